//! `restore finish`: hands a restored folder over, after which it is an ordinary one.

use super::no_programs;
use crate::catalogue::sentence;
use crate::error::{Error, Result};
use holdfast_engine::Programs;
use holdfast_mysql::ServerVersion;
use serde::Serialize;
use std::path::Path;

/// What `restore finish` did.
#[derive(Clone, Debug, Serialize)]
pub struct FinishedView {
    /// The folder.
    pub into: String,
    /// The running server's port, if it runs.
    pub port: Option<u16>,
    /// How to start it by hand.
    pub start_with: String,
    /// The server that it replicates from, as `HOST:PORT`: it does where it runs, else it begins with its first start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<String>,
    /// What is to be known of how it went.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// Hands a restored folder over.
///
/// # Errors
/// `Failed` when the folder holds no finished restore.
pub fn finish(folder: &Path, engine_dir: Option<&Path>) -> Result<FinishedView> {
    let told = |error: holdfast_restore::Error| Error::failed(sentence(&error.to_string()));
    let marker = holdfast_restore::finish::marker(folder).map_err(told)?;
    // The marker has the family before the version, as people read it.
    let version = marker.engine.split_once(' ').map_or(marker.engine.as_str(), |(_, version)| version);
    let version = ServerVersion::parse(version);
    let programs = Programs::find(engine_dir, version.flavor, Some(&version))
        .map_err(|error| no_programs(&error.to_string()))?;
    let finished = holdfast_restore::finish::finish(folder, &programs).map_err(told)?;
    Ok(FinishedView {
        into: folder.display().to_string(),
        port: finished.running.and_then(|r| r.port),
        start_with: holdfast_restore::fence::start_line_after(&programs.server, folder),
        replica_of: finished.marker.replica_of,
        remarks: finished.remarks,
    })
}
