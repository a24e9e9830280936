//! An open repository together with what this user may do in it.

use crate::digest::Digest;
use crate::error::{Code, Error, Result};
use crate::settings::{Environment, Login, Settings};
use holdfast_format::ids::ServerId;
use holdfast_format::record::{BackupRecord, ServerRecord};
use holdfast_io::{Directory, EngineChoice, Objects, RealDisk};
use holdfast_store::{Clock, Engine, OpenOptions, RecoveryKit, Repository, Secret};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A fact of a backup that holds what a restore in place was to write over: the moment that it was to lead to.
pub const SAVED_FACT: &str = "holdfast.in_place";

/// What opens the repository, as the user named it.
#[derive(Clone, Debug)]
pub enum Key {
    /// File whose first line is the passphrase.
    PassphraseFile(PathBuf),
    /// The passphrase itself, typed at a terminal.
    Passphrase(zeroize::Zeroizing<String>),
    /// Command whose first line of output is the passphrase.
    PassphraseCommand(String),
    /// File whose whole content is the key.
    KeyFile(PathBuf),
    /// File with the recovery kit.
    RecoveryKit(PathBuf),
}

/// The system's clock; the store has none of its own.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        crate::time::now()
    }
}

/// An open repository, the user's settings, and his environment.
#[derive(Debug)]
pub struct Catalogue {
    /// Where it lies.
    pub place: PathBuf,
    /// The repository.
    pub repository: Repository,
    /// What the process was given.
    pub environment: Environment,
    /// What the records say, as far as they were read.
    digest: Mutex<Digest>,
}

impl Catalogue {
    /// Opens the repository in the folder `place`.
    ///
    /// # Errors
    /// `NoRepository`, `WrongKey`, `Corruption`, each with the next step.
    pub fn open(environment: Environment, place: &Path, key: &Key) -> Result<Self> {
        let secret = secret(key)?;
        let objects = objects(place)?;
        let options = open_options(&environment);
        let repository = Repository::open(objects, &secret, options).map_err(|e| store_error(place, e))?;
        Ok(Self { place: place.to_path_buf(), repository, environment, digest: Mutex::default() })
    }

    /// Asks what the records say, as of the last append, refresh or opening.
    pub fn known<T>(&self, ask: impl FnOnce(&Digest) -> T) -> T {
        let mut digest = self.digest.lock().unwrap_or_else(PoisonError::into_inner);
        let news = self.repository.records_from(digest.seen());
        digest.take(&news);
        ask(&digest)
    }

    /// The server called `name`.
    ///
    /// # Errors
    /// `Usage` with the names that exist.
    pub fn server(&self, name: &str) -> Result<ServerRecord> {
        if let Some(server) = self.known(|known| known.servers().iter().find(|s| s.name == name).cloned()) {
            return Ok(server);
        }
        let servers = self.servers();
        let error = Error::usage(format!("There is no server called '{name}' in {}.", self.place.display()));
        let names: Vec<&str> = servers.iter().map(|s| s.name.as_str()).collect();
        Err(error.with_next(if names.is_empty() {
            format!("add it: holdfast server add {name} --host HOST --user USER")
        } else {
            format!("the servers here are: {}", names.join(", "))
        }))
    }

    /// The protected servers, in the order they were added.
    pub fn servers(&self) -> Vec<ServerRecord> {
        self.known(|known| known.servers().to_vec())
    }

    /// The name of a server, the last one that it had if it was removed since.
    pub fn server_name(&self, id: ServerId) -> String {
        self.known(|known| known.name_of(id).map(str::to_owned)).unwrap_or_else(|| id.to_string())
    }

    /// This user's way in to `server`, if he has one.
    ///
    /// # Errors
    /// `Usage` when the configuration can't be read.
    pub fn login(&self, server: &ServerRecord) -> Result<Option<Login>> {
        let settings = Settings::load(&self.environment.config_file)?;
        Ok(settings.login(&self.repository.id().to_string(), &server.name).cloned())
    }

    /// Backups of `server`, oldest first; without those that a restore in place took of what it was to write over, which
    /// no policy counts and no restore begins with.
    pub fn backups_of(&self, server: &ServerRecord) -> Vec<BackupRecord> {
        let mut backups = self.repository.backups_of(server.id);
        backups.retain(|b| b.fact(SAVED_FACT).is_none());
        backups
    }

    /// Turns an error of the store into one for a person.
    pub fn store_error(&self, error: holdfast_store::Error) -> Error {
        store_error(&self.place, error)
    }
}

/// The door to a repository that is there.
pub(crate) fn objects(place: &Path) -> Result<Arc<dyn Objects>> {
    let directory = Directory::open(RealDisk::shared(), place).map_err(|error| {
        if error.is_not_found() {
            store_error(place, holdfast_store::Error::NotARepository)
        } else {
            Error::failed(format!("The folder {} can't be used: {error}.", place.display()))
        }
    })?;
    Ok(Arc::new(directory))
}

/// How this process opens any repository.
pub(crate) fn open_options(environment: &Environment) -> OpenOptions {
    let mut options = OpenOptions::new(Arc::new(SystemClock));
    if environment.portable_aead {
        options.engine = Engine::Portable;
    }
    if environment.force_pool {
        options.io = EngineChoice::Pool;
    }
    if let Some(mib) = environment.index_mib {
        options.index_bytes_max = mib << 20;
    }
    options
}

/// A key file is not stretched as a passphrase is, so it has to be random, and of this length at least.
const KEY_FILE_BYTES_MIN: usize = 16;

/// The first line that a command prints; it is run by the shell, with our standard input and error.
fn first_line_of(command: &str) -> Result<zeroize::Zeroizing<String>> {
    let failed = |why: String| {
        Error::usage(format!("The passphrase command gave no passphrase: {why}."))
            .with_next(format!("try it: {command}"))
    };
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::inherit())
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let text = zeroize::Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let text = std::str::from_utf8(&text).map_err(|_| failed("it printed no UTF-8".to_owned()))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(zeroize::Zeroizing::new(line.to_owned())),
        None => Err(failed("its first line is empty".to_owned())),
    }
}

/// Reads the key that the user named.
///
/// # Errors
/// `Usage` when a file can't be read, `WrongKey` when a kit is none.
pub(crate) fn secret(key: &Key) -> Result<Secret> {
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map(zeroize::Zeroizing::new)
            .map_err(|error| Error::usage(format!("The file {} can't be read: {error}.", path.display())))
    };
    match key {
        Key::Passphrase(text) => Ok(Secret::passphrase(text.as_str())),
        Key::PassphraseFile(path) => {
            let text = read(path)?;
            let line = text.lines().next().unwrap_or_default();
            if line.is_empty() {
                return Err(Error::usage(format!("The first line of {} is empty.", path.display()))
                    .with_next("write the passphrase on it"));
            }
            Ok(Secret::passphrase(line))
        }
        Key::PassphraseCommand(command) => {
            let line = first_line_of(command)?;
            Ok(Secret::passphrase(line.as_str()))
        }
        Key::KeyFile(path) => {
            let content = std::fs::read(path).map(zeroize::Zeroizing::new).map_err(|error| {
                Error::usage(format!("The key file {} can't be read: {error}.", path.display()))
            })?;
            if content.len() < KEY_FILE_BYTES_MIN {
                return Err(Error::usage(format!(
                    "The key file {} has {} bytes, which is guessed too easily.",
                    path.display(),
                    content.len()
                ))
                .with_next("make one: head -c 32 /dev/urandom > FILE"));
            }
            Ok(Secret::key_file(content.to_vec()))
        }
        Key::RecoveryKit(path) => RecoveryKit::from_text(&read(path)?)
            .map(Secret::Kit)
            .map_err(|error| Error::new(Code::WrongKey, format!("{}: {error}", path.display()))),
    }
}

/// An error of the store for a person.
pub(crate) fn store_error(place: &Path, error: holdfast_store::Error) -> Error {
    use holdfast_store::Error as Store;
    let text = sentence(&error.to_string());
    match &error {
        Store::NotARepository => {
            Error::new(Code::NoRepository, format!("There is no repository in {}.", place.display()))
                .with_next(format!("make one: holdfast init {}", place.display()))
        }
        Store::AlreadyARepository => {
            Error::usage(format!("There is a repository in {} already.", place.display()))
                .with_next("use it as it is, or name another folder")
        }
        Store::NotEmpty { holds, .. } => Error::usage(format!(
            "The folder {} is not empty: it holds {holds}.",
            place.display()
        ))
        .with_next("name an empty folder, or one that does not exist"),
        Store::WrongSecret => Error::new(
            Code::WrongKey,
            format!("The passphrase does not open the repository in {}.", place.display()),
        )
        .with_next("check the passphrase file, or open it with --recovery-kit FILE"),
        Store::BadKit { why } => Error::new(
            Code::WrongKey,
            format!("The recovery kit does not open the repository in {}: {why}.", place.display()),
        )
        .with_next("name the kit that `holdfast init` made for this repository, or use the passphrase"),
        Store::KeysRotated => Error::new(Code::WrongKey, text)
            .with_next("start the command again, with a passphrase or key file that is valid now"),
        Store::OldKeys => Error::new(Code::WrongKey, text).with_next(
            "run the same command with a passphrase or key file that is valid now (--passphrase-file, --key-file); then destroy the old kit",
        ),
        Store::KeyLacking { .. } => Error::new(Code::WrongKey, text).with_next(
            "use a passphrase or key file that is valid now, or a kit from after the last `holdfast key rotate`",
        ),
        Store::NoBackup { .. } => Error::usage(text).with_next("see what there is: holdfast list"),
        Store::Locked { id, until_us } => Error::failed(format!(
            "The backup {id} is locked until {} and can't be forgotten before.",
            crate::time::show_time(*until_us)
        ))
        .with_next("forget it then; a lock can be extended, never shortened"),
        Store::OtherFormat { .. } => {
            Error::failed(text).with_next("use the Holdfast that wrote it, or a newer one")
        }
        Store::Io(holdfast_io::Error::LockBusy { .. }) => Error::new(Code::Locked, text)
            .with_next("wait until the other command is done, and run this one again"),
        Store::StreamBusy => {
            Error::new(Code::Locked, text).with_next("stop the other `holdfast archive` first")
        }
        Store::PruneBusy => Error::new(Code::Locked, text)
            .with_next("wait until the other `holdfast prune` or `holdfast-fsck` has ended"),
        Store::Rekeying => Error::new(Code::Locked, text).with_next("wait until it has ended"),
        Store::InUse { .. } => Error::new(Code::Locked, text)
            .with_next("stop it (holdfastd and `holdfast archive`, too), and run the same command again"),
        _ if error.is_no_space() => Error::failed(format!("The repository's file system is full: {text}"))
            .with_next("free some space; nothing that was acknowledged is lost"),
        _ if error.is_damage() => Error::new(Code::Corruption, text)
            .with_next(format!("run `holdfast-fsck {}` to see what it affects", place.display())),
        _ => Error::failed(text),
    }
}

/// The text with a capital letter and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let mut sentence: String = match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => return String::new(),
    };
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}
