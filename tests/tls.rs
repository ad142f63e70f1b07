//! Mutual TLS on every port, and nothing else: what is promised of clusters without it holds, and who cannot prove who
//! they are stay outside.

#[path = "tls/commands.rs"]
mod commands;
#[path = "tls/moving.rs"]
mod moving;
#[path = "tls/options.rs"]
mod options;
#[path = "tls/refused.rs"]
mod refused;
#[path = "tls/rotating.rs"]
mod rotating;
#[path = "tls/stories.rs"]
mod stories;
#[path = "tls/tools.rs"]
mod tools;
#[path = "tls/unusable.rs"]
mod unusable;
