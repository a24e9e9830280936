//! `export`: what the repository holds, in forms that need nothing of ours.
//!
//! The source's own binlog files (`binlogs.rs`), or a moment: a data directory (`datadir.rs`), as a folder or as one tar
//! archive (`tar.rs`), or a script of SQL (`sql.rs`). What stands under its final name is whole and on the disk
//! (`whole_file.rs`, `part_file.rs`).

mod binlogs;
pub(crate) mod datadir;
mod part_file;
pub mod sql;
mod tar;
mod whole_file;

pub use binlogs::{BinlogsView, ExportedFile, binlogs};
pub use datadir::{DatadirView, datadir};

use std::io::Write;
use std::path::PathBuf;

/// Where an archive or a script goes.
pub enum Destination<'w> {
    /// A file that does not exist yet.
    File(PathBuf),
    /// Whatever the caller has, such as standard output.
    Stream(&'w mut dyn Write),
}

impl std::fmt::Debug for Destination<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::File(_)) { "Destination::File" } else { "Destination::Stream" })
    }
}
