//! `export`: what the repository holds, in forms that need nothing of ours.
//!
//! The source's own binlog files (`binlogs.rs`), or a data directory at any moment (`datadir.rs`), as a folder or as one
//! tar archive (`tar.rs`). What stands under its final name is whole and on the disk (`whole_file.rs`).

mod binlogs;
mod datadir;
mod tar;
mod whole_file;

pub use binlogs::{BinlogsView, ExportedFile, binlogs};
pub use datadir::{DatadirView, Tar, datadir};
