//! What can go wrong in a comparison.

use std::path::{Path, PathBuf};

/// An error of the rig.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be used.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("{program} ended with {status}; the end of what it said:\n{said}")]
    Program {
        /// The program's name.
        program: String,
        /// Its exit status in words.
        status: String,
        /// The last lines of its output.
        said: String,
    },
    /// A restored folder is not the source.
    #[error("{tool} restored {}, which differs from its source: {got}", path.display())]
    Differs {
        /// The tool.
        tool: String,
        /// The restored file or folder.
        path: PathBuf,
        /// How it differs.
        got: String,
    },
    /// The server did not do what a data set needs.
    #[error("the server for the data set: {0}")]
    Server(String),
    /// The machine's own figures could not be read.
    #[error("{what} in {place} reads '{got}', which is not a number")]
    Figure {
        /// What was looked for.
        what: &'static str,
        /// Where.
        place: &'static str,
        /// What stood there.
        got: String,
    },
}

/// A result of the rig.
pub type Result<T> = std::result::Result<T, Error>;

/// Names the file in an error of the system.
pub(crate) fn at<T>(what: &'static str, path: &Path, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { what, path: path.to_path_buf(), source })
}

/// An error of a server, or of what works with one, in its own words.
pub(crate) fn sql<T, E: std::fmt::Display>(result: std::result::Result<T, E>) -> Result<T> {
    result.map_err(|error| Error::Server(error.to_string()))
}
