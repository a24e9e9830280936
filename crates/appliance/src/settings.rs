//! The user's own configuration: how to reach and log in to a server.
//!
//! The repository holds a server's identity and history; this file holds what must never
//! be there: the account, and the *path* to its password. No password is ever written.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How much of the connection is encrypted, and how much of the peer is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Plain text.
    Disabled,
    /// TLS when the server offers it, the certificate unchecked.
    #[default]
    Preferred,
    /// TLS or nothing, the certificate unchecked.
    Required,
    /// TLS, and the certificate must be signed by the CA.
    VerifyCa,
    /// TLS, and the certificate must be for this host.
    VerifyIdentity,
}

/// How to log in to one server, as the user told `server add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Repository id (32 hexadecimal digits) that the server was added to.
    pub repository: String,
    /// The server's name there.
    pub name: String,
    /// Account name; from the option files when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// MySQL option file with a `[client]` group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults_file: Option<PathBuf>,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: Tls,
    /// PEM file of the CA, for `verify-ca` and `verify-identity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca: Option<PathBuf>,
    /// PEM file of the server's public key, under which the password may go where there is no TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_public_key: Option<PathBuf>,
    /// Where there is no TLS: send the password under whatever key the server sends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub get_server_public_key: bool,
    /// All hosts of its replication set, as `HOST:PORT`, where there is more than one: its log is followed on another one
    /// when the present one is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// After how many seconds it counts as gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_over_after_s: Option<u64>,
    /// MariaDB: the program mariadb-backup, or, in several words, a command that writes an xbstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backup_command: Vec<String>,
}

/// The configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// One entry for each server that this user protects.
    #[serde(default, rename = "server", skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<Login>,
}

/// What the process was given by its environment; the only place that reads it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Where [`Settings`] lie: `HOLDFAST_CONFIG`, else `$XDG_CONFIG_HOME/holdfast/holdfast.toml`,
    /// else `~/.config/holdfast/holdfast.toml`.
    pub config_file: PathBuf,
    /// `~/.my.cnf` and its kin, in the order MySQL's own client reads them.
    pub option_files: Vec<PathBuf>,
    /// Folder for what has to wait on disk during a copy: `TMPDIR`, else `/var/tmp`.
    pub spool: PathBuf,
    /// `HOLDFAST_IO=pool`: never io_uring.
    pub force_pool: bool,
    /// `HOLDFAST_AEAD=portable`: RustCrypto's AES-GCM in place of aws-lc's.
    pub portable_aead: bool,
    /// `HOLDFAST_INDEX_MIB=N`: memory for the index of known blocks, for a backup; 100 MiB hold a TiB of blocks.
    pub index_mib: Option<u64>,
}

impl Environment {
    /// Reads the process environment.
    ///
    /// # Errors
    /// `Usage` when neither a home folder nor `HOLDFAST_CONFIG` is set, or a variable has
    /// a value that means nothing.
    pub fn read() -> Result<Self> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let home = var("HOME").map(PathBuf::from);
        let config_file = match (var("HOLDFAST_CONFIG"), var("XDG_CONFIG_HOME"), &home) {
            (Some(file), _, _) => PathBuf::from(file),
            (None, Some(dir), _) => Path::new(&dir).join("holdfast/holdfast.toml"),
            (None, None, Some(home)) => home.join(".config/holdfast/holdfast.toml"),
            (None, None, None) => {
                return Err(Error::usage("There is no home folder to keep the configuration in.")
                    .with_next("set HOLDFAST_CONFIG to the file to use"));
            }
        };
        let mut option_files = vec![PathBuf::from("/etc/my.cnf"), PathBuf::from("/etc/mysql/my.cnf")];
        option_files.extend(home.map(|h| h.join(".my.cnf")));
        Ok(Self {
            config_file,
            option_files,
            spool: var("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from),
            force_pool: choice("HOLDFAST_IO", &["auto", "uring"], "pool")?,
            portable_aead: choice("HOLDFAST_AEAD", &["auto", "fast"], "portable")?,
            index_mib: mebibytes("HOLDFAST_INDEX_MIB")?,
        })
    }
}

impl Environment {
    /// What a daemon works with: nobody's home and nobody's option files, only what its configuration names.
    ///
    /// # Errors
    /// `Usage` when a variable has a value that means nothing.
    pub fn of_daemon(logins: PathBuf, spool: Option<PathBuf>) -> Result<Self> {
        Ok(Self {
            config_file: logins,
            option_files: Vec::new(),
            spool: spool.unwrap_or_else(|| PathBuf::from("/var/tmp")),
            force_pool: choice("HOLDFAST_IO", &["auto", "uring"], "pool")?,
            portable_aead: choice("HOLDFAST_AEAD", &["auto", "fast"], "portable")?,
            index_mib: mebibytes("HOLDFAST_INDEX_MIB")?,
        })
    }
}

/// Whether the variable `name` is set to `wanted`; `others` are the other words it may hold.
fn choice(name: &str, others: &[&str], wanted: &str) -> Result<bool> {
    let Some(value) = std::env::var_os(name).filter(|v| !v.is_empty()) else { return Ok(false) };
    let value = value.to_string_lossy().into_owned();
    if value == wanted {
        return Ok(true);
    }
    if others.contains(&value.as_str()) {
        return Ok(false);
    }
    Err(Error::usage(format!("{name} is '{value}', which means nothing."))
        .with_next(format!("use {wanted} or {}", others.join(" or "))))
}

/// The number of MiB in the variable `name`.
fn mebibytes(name: &str) -> Result<Option<u64>> {
    let Some(value) = std::env::var_os(name).filter(|v| !v.is_empty()) else { return Ok(None) };
    let value = value.to_string_lossy().into_owned();
    match value.parse::<u64>() {
        Ok(mib) if mib <= 1 << 20 => Ok(Some(mib)),
        _ => Err(Error::usage(format!("{name} is '{value}', which is no number of MiB."))
            .with_next("use a whole number, such as 128")),
    }
}

impl Settings {
    /// Reads the file; one that is not there is an empty configuration.
    ///
    /// # Errors
    /// `Usage` when it can't be read or is not valid.
    pub fn load(file: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Error::usage(format!(
                    "The configuration {} can't be read: {error}.",
                    file.display()
                )));
            }
        };
        toml::from_str(&text).map_err(|error| {
            Error::usage(format!("The configuration {} is not valid: {error}", file.display()))
        })
    }

    /// Writes the file whole, readable by its owner only, through a neighbour and a rename.
    ///
    /// # Errors
    /// `Failed` with the file's name.
    pub fn save(&self, file: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::failed(format!("The configuration {} can't be written: {error}.", file.display()))
        };
        let text = toml::to_string_pretty(self).map_err(|e| failed(&e))?;
        let dir = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).map_err(|e| failed(&e))?;
        let neighbour = dir.join(format!(".holdfast.toml.{}", std::process::id()));
        let write = || -> std::io::Result<()> {
            use std::os::unix::fs::OpenOptionsExt;
            let mut out = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&neighbour)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&neighbour, file)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|e| failed(&e))
    }

    /// The login of `name` in `repository`.
    pub fn login(&self, repository: &str, name: &str) -> Option<&Login> {
        self.logins.iter().find(|l| l.repository == repository && l.name == name)
    }

    /// Puts `login` in, in place of an older one of the same server.
    pub fn put(&mut self, login: Login) {
        self.logins.retain(|l| !(l.repository == login.repository && l.name == login.name));
        self.logins.push(login);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_are_saved_are_read_back_and_only_the_owner_can_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("deep/holdfast.toml");
        let mut settings = Settings::load(&file).unwrap();
        assert_eq!(settings, Settings::default());
        let login = Login {
            repository: "00".repeat(16),
            name: "shop".into(),
            user: Some("bk".into()),
            password_file: Some("/etc/holdfast/shop.pw".into()),
            ..Login::default()
        };
        settings.put(login.clone());
        settings.put(login);
        settings.save(&file).unwrap();
        assert_eq!(Settings::load(&file).unwrap(), settings);
        assert_eq!(settings.logins.len(), 1);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfast.toml");
        std::fs::write(&file, "[[server]]\nrepository='a'\nname='b'\npasword='x'\n").unwrap();
        let error = Settings::load(&file).unwrap_err();
        assert!(error.message.contains("pasword"), "{}", error.message);
    }
}
