//! The folder for a private server's temporary files.
//!
//! It must be the server's own: a starting MariaDB deletes every file whose name begins with
//! `#sql` in its `tmpdir` (`mysql_rm_tmp_tables` in its source), so two servers that share one,
//! be it the default `/tmp`, destroy each other's temporary tables. It lies inside the datadir,
//! since the sort files of a large `ALTER TABLE` may be as large as the table.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::error::{Error, Result};

/// The folder's name, within the datadir.
pub(crate) const TMP_DIR: &str = ".holdfast-tmp";

/// Makes the folder, or keeps the one that a killed server left.
pub(crate) fn create(datadir: &Path) -> Result<()> {
    let path = datadir.join(TMP_DIR);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => {
            Err(Error::file("make the folder", &path, source))
        }
        _ => Ok(()),
    }
}

/// Removes the folder and what a server left in it.
pub(crate) fn remove(datadir: &Path) {
    // What is left over is removed by the next server that starts and stops here.
    let _ = fs::remove_dir_all(datadir.join(TMP_DIR));
}
