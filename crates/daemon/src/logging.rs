//! The log on standard error, as text or as JSON. What is logged names servers, jobs and codes; never a key, a token
//! or a password: those are never in a message to begin with.

use crate::config::{Log, LogFormat};
use tracing::Level;

/// Begins to log. A second call in one process changes nothing.
pub fn begin(log: &Log) {
    let level = match log.level.as_str() {
        "error" => Level::ERROR,
        "warn" => Level::WARN,
        "debug" => Level::DEBUG,
        _ => Level::INFO,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    // A test may have begun before.
    let _ = match log.format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
}
