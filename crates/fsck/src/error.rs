//! Why a repository could not be checked at all. What is wrong inside of one is a [`Flaw`](crate::report::Flaw).

/// The result of a check's beginning.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a check did not take place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no repository.
    #[error(
        "{place} holds no Holdfast repository: it has no keyring and no manifest; name the folder that `holdfast init` made"
    )]
    NoRepository {
        /// Where it was looked for.
        place: String,
    },
    /// No key slot opens.
    #[error(
        "the {secret} opens none of the {slots} key slots of this repository; give one that `holdfast key list` would show, or --kit F"
    )]
    WrongKey {
        /// What was given: a passphrase or a key file.
        secret: &'static str,
        /// How many slots there are.
        slots: usize,
    },
    /// All copies of the keyring are damaged.
    #[error(
        "no copy of the keyring can be read ({flaw}), and without one nothing can be opened; put back a copy of the \
         folder keyring from a mirror, or open it with the recovery kit (--kit F)"
    )]
    NoKeyring {
        /// What is wrong with the last of them.
        flaw: String,
    },
    /// The kit does not open a keyring that is whole.
    #[error(
        "the recovery kit is from before the last `holdfast key rotate` and does not open the keyring, which is whole; use a \
         passphrase or key file that is valid now, or a kit from after it"
    )]
    OldKit,
    /// The whole repository is of another version, or uses what this program does not know.
    #[error(
        "this repository can't be checked: {0}; use the holdfast-fsck of the Holdfast that wrote it, or a newer one"
    )]
    OtherFormat(holdfast_format::Error),
    /// The command line asks for something impossible.
    #[error("{0}")]
    Usage(String),
    /// Garbage collection is at work.
    #[error("garbage collection (holdfast prune) is at work on this repository; repair when it is done")]
    PruneAtWork,
    /// The keys are changed, or were while this began.
    #[error(
        "the repository is being re-encrypted (holdfast key rotate --rekey), or its keys were changed just now; check it when that is done"
    )]
    Rekeying,
    /// The manifest takes no record.
    #[error(
        "the manifest is damaged, so no record can follow; `holdfast-fsck --repair --dry-run` says what can be mended"
    )]
    ManifestDamaged,
    /// What a repair would write does not read back right; nothing was replaced.
    #[error(
        "what the repair made is not right, so it was not written: {0}; check this machine's memory and disk, and run the repair again"
    )]
    NotProven(String),
    /// The system gives no random bytes.
    #[error(
        "the system gives no random bytes, without which nothing may be sealed: {why}; run it again when it does"
    )]
    NoRandom {
        /// What it says.
        why: String,
    },
    /// Storage failed.
    #[error(transparent)]
    Io(#[from] holdfast_io::Error),
}

impl Error {
    /// The exit code of the command.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoRepository { .. } => 10,
            Self::WrongKey { .. } | Self::OldKit => 12,
            Self::NoKeyring { .. } => 21,
            Self::Usage(_) => 2,
            Self::PruneAtWork | Self::Rekeying => 11,
            Self::ManifestDamaged => 21,
            Self::OtherFormat(_) | Self::NotProven(_) | Self::NoRandom { .. } | Self::Io(_) => 1,
        }
    }
}
