//! Finds the programs of a server on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_mysql::{Flavor, ServerVersion};

use crate::compat::{self, Fit};
use crate::error::{Error, Result};

/// The programs of one installed server.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `mysqld` or `mariadbd`.
    pub server: PathBuf,
    /// Its version, as it says itself.
    pub version: ServerVersion,
    /// MariaDB's `mariadb-install-db`, if it is there.
    pub install_db: Option<PathBuf>,
    /// MariaDB's `mariadb-backup` (`mariabackup` by its old name), if it is there.
    pub backup: Option<PathBuf>,
}

/// Folders where distributions and vendors put servers.
const USUAL: [&str; 6] =
    ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/usr/local/mysql/bin"];

/// Where programs lie within a folder that the user named: the folder itself, what
/// `tools/get-server` makes, a vendor's archive, a root of a system.
const WITHIN: [&str; 7] = ["", "bin", "sbin", "usr/sbin", "usr/bin", "root/usr/sbin", "root/usr/bin"];

impl Programs {
    /// Finds a server of `flavor`: in `dir` if one is given, else where servers usually are and
    /// in `$PATH`. With `wanted`, the version of the data that it is to open, only a server that
    /// may open them is taken, and the best fit of several.
    pub fn find(dir: Option<&Path>, flavor: Flavor, wanted: Option<&ServerVersion>) -> Result<Self> {
        let folders = folders(dir);
        let name = || wanted.map_or_else(|| format!("{flavor} server"), ToString::to_string);
        let mut best: Option<(Fit, Self)> = None;
        let mut refused: Vec<(ServerVersion, PathBuf, String)> = Vec::new();
        for server in candidates(&folders, flavor) {
            let Some(version) = version_of(&server) else { continue };
            let verdict = match wanted {
                Some(data) => compat::fit(&version, data),
                None if version.flavor == flavor => Ok(Fit::Exact),
                None => Err(format!("It is no {flavor}")),
            };
            match verdict {
                Ok(fit) if best.as_ref().is_none_or(|(so_far, _)| fit > *so_far) => {
                    best = Some((fit, Self::beside(server, version, &folders)));
                }
                Ok(_) => {}
                Err(why) => refused.push((version, server, why)),
            }
        }
        if let Some((_, programs)) = best {
            return Ok(programs);
        }
        let Some((_, _, why)) = refused.first() else {
            let looked_in: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
            return Err(Error::NoPrograms { wanted: name(), looked_in: looked_in.join(", ") });
        };
        let why = why.clone();
        let found: Vec<String> =
            refused.iter().map(|(version, path, _)| format!("{version} ({})", path.display())).collect();
        Err(Error::WrongVersion { wanted: name(), found: found.join(", "), why })
    }

    fn beside(server: PathBuf, version: ServerVersion, folders: &[PathBuf]) -> Self {
        let own = server.parent().map(Path::to_path_buf);
        let sibling = own.as_ref().and_then(|folder| folder.parent()).map(|up| up.join("bin"));
        let near: Vec<PathBuf> = own.into_iter().chain(sibling).chain(folders.iter().cloned()).collect();
        let helper = |names: &[&str]| {
            near.iter()
                .find_map(|folder| names.iter().map(|name| folder.join(name)).find(|path| path.is_file()))
        };
        Self {
            install_db: helper(&["mariadb-install-db", "mysql_install_db"]),
            backup: helper(&["mariadb-backup", "mariabackup"]),
            server,
            version,
        }
    }

    /// The family.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.version.flavor
    }

    /// How this server fits data of the version `data`; an error that says why if it does not.
    pub fn check(&self, data: &ServerVersion) -> Result<Fit> {
        compat::fit(&self.version, data).map_err(|why| Error::WrongVersion {
            wanted: data.to_string(),
            found: format!("{} ({})", self.version, self.server.display()),
            why,
        })
    }

    /// `mariadb-backup`, or the error that names its package.
    pub fn backup_program(&self) -> Result<&Path> {
        self.backup.as_deref().ok_or_else(|| Error::NoHelper {
            program: "mariadb-backup".to_owned(),
            server: self.server.clone(),
            package: "mariadb-backup",
        })
    }
}

fn folders(dir: Option<&Path>) -> Vec<PathBuf> {
    let all: Vec<PathBuf> = match dir {
        Some(dir) => WITHIN
            .iter()
            .map(|within| if within.is_empty() { dir.to_path_buf() } else { dir.join(within) })
            .collect(),
        None => USUAL
            .iter()
            .map(PathBuf::from)
            .chain(std::env::var_os("PATH").iter().flat_map(std::env::split_paths))
            .filter(|folder| folder.is_absolute())
            .collect(),
    };
    let mut unique: Vec<PathBuf> = Vec::new();
    for folder in all {
        if folder.is_dir() && !unique.contains(&folder) {
            unique.push(folder);
        }
    }
    // A folder that does not exist is still named in the error.
    if let (true, Some(dir)) = (unique.is_empty(), dir) {
        unique.push(dir.to_path_buf());
    }
    unique
}

fn candidates(folders: &[PathBuf], flavor: Flavor) -> Vec<PathBuf> {
    let names: &[&str] = match flavor {
        Flavor::MySql => &["mysqld", "mariadbd"],
        Flavor::MariaDb => &["mariadbd", "mysqld"],
    };
    let mut found = Vec::new();
    for folder in folders {
        for name in names {
            let path = folder.join(name);
            if path.is_file() {
                found.push(path);
            }
        }
    }
    found
}

/// Asks a server program for its version: `.. Ver 9.7.4-2 for Linux on x86_64 ..`.
fn version_of(server: &Path) -> Option<ServerVersion> {
    let output =
        Command::new(server).args(["--no-defaults", "--version"]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_once("Ver ")?.1.split_whitespace().next()?;
    Some(ServerVersion::parse(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fake(dir: &Path, name: &str, version: &str) {
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{name}  Ver {version} for Linux on x86_64'\n"))
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn wanted(version: &str) -> ServerVersion {
        ServerVersion::parse(version)
    }

    #[test]
    fn the_best_fit_of_several_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fake(&dir.path().join("bin"), "mysqld", "9.7.3");
        fake(&dir.path().join("sbin"), "mysqld", "9.7.4");
        let found = Programs::find(Some(dir.path()), Flavor::MySql, Some(&wanted("9.7.4-2"))).unwrap();
        assert_eq!(found.server, dir.path().join("sbin/mysqld"));
    }

    #[test]
    fn helpers_are_found_under_both_names() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), "mariadbd", "10.11.19-MariaDB");
        fake(dir.path(), "mariabackup", "10.11.19-MariaDB");
        let found = Programs::find(Some(dir.path()), Flavor::MariaDb, None).unwrap();
        assert_eq!(found.backup_program().unwrap(), dir.path().join("mariabackup"));
        assert!(found.install_db.is_none());
    }

    #[test]
    fn a_wrong_version_is_named_with_its_path_and_the_rule() {
        let dir = tempfile::tempdir().unwrap();
        fake(&dir.path().join("bin"), "mysqld", "8.4.6");
        let error = Programs::find(Some(dir.path()), Flavor::MySql, Some(&wanted("9.7.4-2"))).unwrap_err();
        let text = error.to_string();
        for part in ["MySQL 9.7.4-2", "MySQL 8.4.6", "bin/mysqld", "series", "--engine-dir"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }

    #[test]
    fn an_empty_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(dir.path()), Flavor::MariaDb, None).unwrap_err();
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    }
}
