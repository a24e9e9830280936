//! What can be wrong with bytes that claim to be of this format.

/// Result of every decoder of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why bytes were not read. `what` names the structure, `field` the place in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end before the structure does.
    #[error("{what} is cut short: {needed} bytes are needed at offset {at}, {got} are there")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Offset in the structure, bytes.
        at: u64,
        /// Bytes needed there.
        needed: u64,
        /// Bytes left.
        got: u64,
    },
    /// A field holds what it may not hold.
    #[error("{what} is damaged or foreign: {field} should be {expected}, it is {got}")]
    Bad {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What the format allows.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A length or count is beyond its limit.
    #[error("{what} is damaged or foreign: {field} is {got}, the limit is {limit}")]
    TooLarge {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// The value found.
        got: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// The structure was written by a version that this one can't read.
    #[error(
        "{what} has format version {got}, this program reads version {expected}; use {}",
        if got < expected { "the Holdfast that wrote it" } else { "a newer Holdfast" }
    )]
    Version {
        /// The structure.
        what: &'static str,
        /// The version this code reads.
        expected: u32,
        /// The version found.
        got: u32,
    },
    /// The repository uses what this program does not know.
    #[error(
        "the repository uses features (0x{unknown:x}) that this program does not know; use a newer Holdfast"
    )]
    Features {
        /// The bits of its word of features that are not known.
        unknown: u32,
    },
    /// The checksum over the structure doesn't match.
    #[error("{what} is damaged: its checksum does not match its bytes")]
    Checksum {
        /// The structure.
        what: &'static str,
    },
    /// Bytes follow the end of the structure.
    #[error("{what} is damaged or foreign: {extra} bytes follow its end")]
    Trailing {
        /// The structure.
        what: &'static str,
        /// How many.
        extra: u64,
    },
    /// A GTID set inside the structure is not one.
    #[error("{what} is damaged or foreign: {source}")]
    Gtid {
        /// The structure.
        what: &'static str,
        /// What is wrong with the set.
        source: crate::gtid::GtidError,
    },
}

impl Error {
    /// A field that holds what it may not hold.
    pub(crate) fn bad(
        what: &'static str,
        field: &'static str,
        expected: impl ToString,
        got: impl ToString,
    ) -> Self {
        Self::Bad { what, field, expected: expected.to_string(), got: got.to_string() }
    }
}
