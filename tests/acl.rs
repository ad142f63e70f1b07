//! The user that `valkeeper acl` prints: everything works with just that one, and nothing is granted that nobody uses.

#[path = "acl/denied.rs"]
mod denied;
#[path = "acl/everything.rs"]
mod everything;
#[path = "acl/tools.rs"]
mod tools;
