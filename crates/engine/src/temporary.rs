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

/// Makes the folder, or keeps the one that a killed server left. Anything else under that name is refused, above all a
/// symbolic link: a backup or another user may have planted it, and the server deletes files in its temporary folder.
pub(crate) fn create(datadir: &Path) -> Result<()> {
    let path = datadir.join(TMP_DIR);
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(source) if source.kind() == ErrorKind::AlreadyExists => refuse_unless_folder(&path),
        made => made.map_err(|source| Error::file("make the folder", &path, source)),
    }
}

fn refuse_unless_folder(path: &Path) -> Result<()> {
    // Of the name itself, not of what a link points to.
    let kind = fs::symlink_metadata(path).map_err(|source| Error::file("look at", path, source))?.file_type();
    if kind.is_dir() {
        return Ok(());
    }
    let what = if kind.is_symlink() { "a symbolic link" } else { "no folder" };
    Err(Error::Path {
        path: path.to_path_buf(),
        purpose: "temporary files",
        reason: format!("it is {what}. See where it comes from, remove it and run the command again."),
    })
}

/// Removes the folder and what a server left in it.
pub(crate) fn remove(datadir: &Path) {
    // What is left over is removed by the next server that starts and stops here.
    let _ = fs::remove_dir_all(datadir.join(TMP_DIR));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_or_kept_and_a_link_or_a_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (datadir, elsewhere) = (dir.path().join("data"), dir.path().join("elsewhere"));
        let path = datadir.join(TMP_DIR);
        fs::create_dir(&datadir).unwrap();
        create(&datadir).unwrap();
        fs::write(path.join("left"), "by a killed server").unwrap();
        create(&datadir).unwrap();
        remove(&datadir);
        assert!(!path.exists());

        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("#sql-1.frm"), "somebody's").unwrap();
        for target in [elsewhere.as_path(), Path::new("nowhere")] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            let refused = create(&datadir).unwrap_err().to_string();
            assert!(refused.contains(path.to_str().unwrap()), "{refused}");
            assert!(refused.contains("a symbolic link"), "{refused}");
            // Cleaning up never follows it.
            remove(&datadir);
            assert!(elsewhere.join("#sql-1.frm").exists());
            let _ = fs::remove_file(&path);
        }
        fs::write(&path, "").unwrap();
        assert!(create(&datadir).unwrap_err().to_string().contains("no folder"));
    }
}
