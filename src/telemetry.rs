//! Logging, to standard error.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::{LogArgs, LogFormat};

/// Sets logging up for the process: our own events from the wanted level on, those of libraries only at trace.
pub fn start(args: &LogArgs) {
    let others = match args.log_level {
        tracing::Level::TRACE => LevelFilter::TRACE,
        _ => LevelFilter::OFF,
    };
    let filter = Targets::new().with_default(others).with_target("valkeeper", args.log_level);
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let layer = match args.log_format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}
