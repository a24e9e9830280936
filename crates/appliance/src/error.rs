//! The one error that users see: a stable code, a sentence, and the next step.

use serde::Serialize;

/// How a command ends, as the exit status that scripts read.
///
/// The numbers follow restic's where both mean the same, so that a script written for
/// one reads the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The command failed for a reason that has no code of its own.
    Failed,
    /// Arguments or configuration are wrong; nothing was tried.
    Usage,
    /// There is no repository at the place that was named.
    NoRepository,
    /// Somebody else holds a lock that is needed.
    Locked,
    /// The passphrase or key does not open this repository.
    WrongKey,
    /// The target can't be restored: before the first backup, after the last event, or in a gap.
    TargetUnreachable,
    /// Stored bytes are not what was written.
    Corruption,
    /// The restore ran, and its proof failed.
    ProofFailed,
    /// A retention lock or a policy forbids it.
    PolicyForbids,
    /// The command was interrupted.
    Interrupted,
}

impl Code {
    /// The process exit status of this code.
    pub fn exit_status(self) -> u8 {
        match self {
            Code::Failed => 1,
            Code::Usage => 2,
            Code::NoRepository => 10,
            Code::Locked => 11,
            Code::WrongKey => 12,
            Code::TargetUnreachable => 20,
            Code::Corruption => 21,
            Code::ProofFailed => 22,
            Code::PolicyForbids => 23,
            Code::Interrupted => 130,
        }
    }
}

/// What went wrong, for a person.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Stable kind; decides the exit status.
    pub code: Code,
    /// A full sentence that names the object.
    pub message: String,
    /// What to do next, when we know it.
    pub next: Option<String>,
}

impl Error {
    /// An error of the kind `code` that says `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: None }
    }

    /// A failure without a code of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    /// Wrong arguments or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    /// The same error with the next step added.
    #[must_use]
    pub fn with_next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// A result that ends in front of a person.
pub type Result<T> = std::result::Result<T, Error>;
