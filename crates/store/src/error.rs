//! What can go wrong in a repository.

use std::sync::Arc;

use holdfast_format::ids::{BackupId, ServerId};

/// Result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call to a repository failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place where the repository lies refused.
    #[error(transparent)]
    Io(#[from] holdfast_io::Error),
    /// An object holds something else than the format allows.
    #[error("the object {object} can't be read: {source}; run holdfast-fsck to see what depends on it")]
    Format {
        /// The object.
        object: String,
        /// What is wrong.
        source: holdfast_format::Error,
    },
    /// The whole repository is of another version, or uses what this program does not know.
    #[error("this repository can't be read: {source}")]
    OtherFormat {
        /// Which one.
        source: holdfast_format::Error,
    },
    /// An object's bytes are not what was written.
    #[error("the object {object} is damaged at {place}: {why}; run holdfast-fsck to see what depends on it")]
    Damaged {
        /// The object.
        object: String,
        /// The frame, slot or structure.
        place: String,
        /// What was found.
        why: String,
    },
    /// A block of a backup can't be read.
    #[error("block {block} of the file {file} in backup {backup} can't be read: {source}")]
    Block {
        /// The backup.
        backup: BackupId,
        /// The file's path.
        file: String,
        /// Number of the block in the file, from 0; 64 KiB each.
        block: u64,
        /// Why.
        source: Box<Error>,
    },
    /// There is no repository here.
    #[error("there is no Holdfast repository in this place; make one with `holdfast init`")]
    NotARepository,
    /// There is one already.
    #[error("there is a Holdfast repository in this place already; use it, or name another folder")]
    AlreadyARepository,
    /// The folder holds something that is no part of a repository.
    #[error(
        "the folder {folder} is not empty: it holds {holds}; name an empty folder, or one that does not exist"
    )]
    NotEmpty {
        /// The folder.
        folder: String,
        /// The first thing found in it.
        holds: String,
    },
    /// No key slot opens with this secret.
    #[error("the passphrase, key file or kit does not open this repository")]
    WrongSecret,
    /// The keys were rotated after this process came in.
    #[error("the keys of this repository were rotated since this process opened it; run the command again")]
    KeysRotated,
    /// The records were sealed anew since these keys were kept.
    #[error(
        "the records of this repository are under generation {generation} of its keys, which this recovery kit or copy of \
         the keyring lacks: it is from before they were re-encrypted"
    )]
    KeyLacking {
        /// The generation.
        generation: u32,
    },
    /// A kit was asked for by somebody who came in with keys that are no more.
    #[error(
        "the keys of this repository were rotated or re-encrypted since the kit or keys were made that opened it, so a recovery \
         kit of those would open nothing that is newer"
    )]
    OldKeys,
    /// The text is not a recovery kit, or one with a typing error.
    #[error("this is not a recovery kit of this repository: {why}")]
    BadKit {
        /// What is wrong.
        why: &'static str,
    },
    /// The manifest is damaged, so nothing may be written.
    #[error(
        "the repository is read-only because its manifest is damaged: {why}; holdfast-fsck --repair --dry-run says what can be mended"
    )]
    ReadOnly {
        /// What is wrong with the manifest.
        why: String,
    },
    /// An earlier failure leaves this writer in an unknown state.
    #[error("an earlier failure stopped this writer: {source}")]
    Stopped {
        /// The failure.
        source: Arc<Error>,
    },
    /// No such backup.
    #[error("there is no backup {id} in this repository")]
    NoBackup {
        /// The backup.
        id: BackupId,
    },
    /// Another process writes this stream of log.
    #[error("another process is archiving this stream already")]
    StreamBusy,
    /// A log segment takes no more frames: seal it and begin the next one.
    #[error("the log segment is full; seal it and begin the next one")]
    LogFull,
    /// The repository is being re-encrypted.
    #[error(
        "the repository is being re-encrypted (holdfast key rotate --rekey), and nobody can use it meanwhile"
    )]
    Rekeying,
    /// A re-encryption needs the repository alone, and somebody has it open.
    #[error("the repository is in use by {by}, and a re-encryption needs it alone")]
    InUse {
        /// By whom, as far as that can be seen.
        by: String,
    },
    /// Another process prunes this repository, or checks it.
    #[error("another process is pruning or checking this repository")]
    PruneBusy,
    /// A retention lock forbids it.
    #[error(
        "the backup {id} is locked until {until_us} (microseconds since 1970 UTC) and can't be forgotten before"
    )]
    Locked {
        /// The backup.
        id: BackupId,
        /// Until when, microseconds since the Unix epoch.
        until_us: i64,
    },
    /// A person holds it.
    #[error("the backup {id} is held and can't be forgotten before it is released")]
    Held {
        /// The backup.
        id: BackupId,
    },
    /// It is held, and not by the hold that was to be ended.
    #[error("the backup {id} is held by another hold than the one that was to be ended")]
    HeldAnew {
        /// The backup.
        id: BackupId,
    },
    /// Another backup of the server has the fact that is to be each one's own.
    #[error("the backup {by} has '{value}' already")]
    FactTaken {
        /// Its value.
        value: String,
        /// The backup.
        by: BackupId,
    },
    /// A lock on the server forbids it.
    #[error("the server is locked: neither it nor anything of it may be taken away")]
    ServerLocked {
        /// The server.
        server: ServerId,
    },
    /// It was removed, or never added.
    #[error("the server is protected no more: it was removed meanwhile")]
    ServerGone {
        /// The server.
        server: ServerId,
    },
    /// A request that makes no sense.
    #[error("cannot {op}: {why}")]
    Refused {
        /// What was asked for.
        op: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Whoever asked for the work wants it no more.
    #[error("the restore was cancelled, and what it had laid out is incomplete; the same command goes on")]
    Cancelled,
    /// The system gave no random bytes.
    #[error(
        "the system gave no random bytes, without which nothing may be sealed: {why}; run the command again when it does"
    )]
    Random {
        /// What it said.
        why: String,
    },
    /// A check of our own work failed before it was acknowledged.
    #[error(
        "what was just encoded does not decode to what went in ({what}); nothing was acknowledged; check this machine's memory"
    )]
    SelfCheck {
        /// What was checked.
        what: &'static str,
    },
}

impl Error {
    /// Names the object a format error was found in.
    pub(crate) fn format(object: impl ToString) -> impl FnOnce(holdfast_format::Error) -> Self {
        move |source| Self::Format { object: object.to_string(), source }
    }

    /// An object whose bytes are not what was written.
    pub(crate) fn damaged(object: impl ToString, place: impl ToString, why: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), place: place.to_string(), why: why.to_string() }
    }

    /// True when the place of the repository (or the target of a restore) is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io(e) => e.is_no_space(),
            Self::Stopped { source } => source.is_no_space(),
            Self::Block { source, .. } => source.is_no_space(),
            _ => false,
        }
    }

    /// True when bytes of the repository are not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Format { .. } | Self::Damaged { .. } | Self::ReadOnly { .. } => true,
            Self::Io(holdfast_io::Error::ShortRead { .. } | holdfast_io::Error::NotFound { .. }) => true,
            Self::Block { source, .. } => source.is_damage(),
            Self::Stopped { source } => source.is_damage(),
            _ => false,
        }
    }
}
