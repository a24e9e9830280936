//! The outer layer: commands and responses, one logical packet each, integers little endian.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::version::{Flavor, ServerVersion};
use crate::wire::Reader;

/// The highest protocol version that we announce: V3, `COM_RES_CONFIG_V3` known. V4 (9.7) adds nothing we need, and the
/// donor answers with the lower of both sides' versions.
pub const PROTOCOL_VERSION: u32 = 0x0102;

/// The lowest protocol version: 8.0.17.
pub const PROTOCOL_VERSION_MIN: u32 = 0x0100;

/// The engine number of InnoDB in locators and descriptors.
pub const ENGINE_INNODB: u8 = 12;

/// Engines in one answer; the donor has a handful at most.
const LOCATORS_MAX: usize = 64;

/// Longest locator: 34 bytes, and in a resume the bitmap of chunks; 1 MiB of bitmap is 8.4 M chunks of 64 MiB.
const LOCATOR_BYTES_MAX: u32 = 4 << 20;

/// Bit 31 of the DDL field: no backup lock, concurrent DDL is welcome (8.0.27 and later).
const NO_BACKUP_LOCK: u32 = 1 << 31;

const COM_INIT: u8 = 1;
const COM_ATTACH: u8 = 2;
const COM_REINIT: u8 = 3;
const COM_EXECUTE: u8 = 4;
const COM_ACK: u8 = 5;
const COM_EXIT: u8 = 6;

const RES_LOCATORS: u8 = 1;
const RES_DATA_DESCRIPTOR: u8 = 2;
const RES_DATA: u8 = 3;
const RES_PLUGIN: u8 = 4;
const RES_CONFIG: u8 = 5;
const RES_COLLATION: u8 = 6;
const RES_PLUGIN_V2: u8 = 7;
const RES_CONFIG_V3: u8 = 8;
const RES_CONFIG_V4: u8 = 9;
const RES_COMPLETE: u8 = 99;
pub(super) const RES_ERROR: u8 = 100;

/// What an engine gave as the name of a clone; handed back to it unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locator {
    /// The engine's number.
    pub engine: u8,
    /// Its bytes; for InnoDB see `InnoDbLocator`.
    pub bytes: Vec<u8>,
}

impl Locator {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.engine);
        out.extend_from_slice(&(self.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        let engine = reader.u8()?;
        let len = reader.u32()?;
        if len > LOCATOR_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a clone locator",
                got: u64::from(len),
                limit: u64::from(LOCATOR_BYTES_MAX),
            });
        }
        Ok(Self { engine, bytes: reader.take(len as usize)?.to_vec() })
    }
}

/// What becomes of DDL on the donor while it is cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ddl {
    /// DDL waits until the clone ends (`LOCK INSTANCE FOR BACKUP`); the clone waits this long for the lock.
    Block {
        /// Whole seconds count.
        lock_wait: Duration,
    },
    /// DDL goes on and is announced in the stream; needs 8.0.27.
    Concurrent {
        /// How long the clone waits for its short locks; whole seconds count.
        lock_wait: Duration,
    },
}

impl Ddl {
    /// The DDL field for a donor of `version`.
    ///
    /// Before 8.0.27 the field is nothing but seconds: bit 31 would mean a lock with a timeout of 68 years.
    pub fn field(self, version: &ServerVersion, endpoint: &str) -> Result<u32> {
        let seconds =
            |wait: Duration| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).clamp(1, NO_BACKUP_LOCK - 1);
        match self {
            Self::Block { lock_wait } => Ok(seconds(lock_wait)),
            Self::Concurrent { lock_wait } if version.numbers() >= (8, 0, 27) => {
                Ok(NO_BACKUP_LOCK | seconds(lock_wait))
            }
            Self::Concurrent { .. } => Err(Error::Unsupported {
                endpoint: endpoint.to_owned(),
                version: version.to_string(),
                reason: "a clone with concurrent DDL needs MySQL 8.0.27; allow DDL to wait".to_owned(),
            }),
        }
    }
}

/// True if a server of this version has the clone plugin.
#[must_use]
pub fn has_clone(version: &ServerVersion) -> bool {
    version.flavor == Flavor::MySql && version.numbers() >= (8, 0, 17)
}

/// What the recipient sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// Starts a clone; on the master connection.
    Init {
        /// The highest version we speak.
        version: u32,
        /// See `Ddl::field`.
        ddl: u32,
        /// One version locator for each engine we take.
        locators: &'a [Locator],
    },
    /// Joins a clone with another connection.
    Attach {
        /// The version that was agreed on.
        version: u32,
        /// As in `Init`.
        ddl: u32,
        /// The locators of the donor's answer.
        locators: &'a [Locator],
    },
    /// Goes on with a clone after the connection broke.
    Reinit {
        /// The version that was agreed on.
        version: u32,
        /// As in `Init`.
        ddl: u32,
        /// The donor's locators with our progress in them.
        locators: &'a [Locator],
    },
    /// Asks for the stream.
    Execute,
    /// Tells that a state's data have all arrived, or that we failed; on the auxiliary connection.
    Ack {
        /// 0, or a MySQL error number that makes the donor give up.
        error: i32,
        /// The engine's locator from the donor's answer.
        locator: &'a Locator,
        /// The state descriptor that is answered, its ACK flag set; empty with an error.
        descriptor: &'a [u8],
    },
    /// Leaves clone mode.
    Exit,
}

impl Command<'_> {
    /// The packet's payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let mut start = |code: u8, version: u32, ddl: u32, locators: &[Locator]| {
            out.push(code);
            out.extend_from_slice(&version.to_le_bytes());
            out.extend_from_slice(&ddl.to_le_bytes());
            for locator in locators {
                locator.encode(&mut out);
            }
        };
        match *self {
            Self::Init { version, ddl, locators } => start(COM_INIT, version, ddl, locators),
            Self::Attach { version, ddl, locators } => start(COM_ATTACH, version, ddl, locators),
            Self::Reinit { version, ddl, locators } => start(COM_REINIT, version, ddl, locators),
            Self::Execute => out.push(COM_EXECUTE),
            Self::Ack { error, locator, descriptor } => {
                out.push(COM_ACK);
                out.extend_from_slice(&error.to_le_bytes());
                locator.encode(&mut out);
                out.extend_from_slice(&(descriptor.len() as u32).to_le_bytes());
                out.extend_from_slice(descriptor);
            }
            Self::Exit => out.push(COM_EXIT),
        }
        out
    }
}

/// What the donor sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// The clone's names, one for each engine; their order gives the locator index.
    Locators {
        /// The version agreed on.
        version: u32,
        /// The names.
        locators: Vec<Locator>,
    },
    /// A descriptor of an engine, see `Descriptor::parse`.
    Descriptor {
        /// The engine's number.
        engine: u8,
        /// Which locator it belongs to.
        locator_index: u8,
        /// The descriptor.
        bytes: &'a [u8],
    },
    /// File bytes; follow a data descriptor on the same connection.
    Data(&'a [u8]),
    /// A plugin that the donor has.
    Plugin {
        /// Its name.
        name: &'a [u8],
        /// The library it comes from; empty: built in; `None`: an old donor doesn't say.
        library: Option<&'a [u8]>,
    },
    /// A variable of the donor.
    Config {
        /// Its name.
        key: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// A collation that the donor has.
    Collation(&'a [u8]),
    /// The command is done.
    Complete,
    /// The command failed.
    Failed {
        /// MySQL error number.
        code: i32,
        /// Its text.
        message: &'a [u8],
    },
}

impl<'a> Response<'a> {
    /// Reads a packet's payload. Unknown codes are errors: we cannot know what they leave out.
    pub fn parse(payload: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new("a clone response", payload);
        let code = reader.u8()?;
        let response = match code {
            RES_LOCATORS => {
                let version = reader.u32()?;
                if !(PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&version) {
                    return Err(Error::protocol(
                        "the clone's versions",
                        format!("{PROTOCOL_VERSION_MIN:#06x} to {PROTOCOL_VERSION:#06x}"),
                        format!("{version:#06x}"),
                    ));
                }
                Self::Locators { version, locators: parse_locators(&mut reader)? }
            }
            RES_DATA_DESCRIPTOR => {
                let (engine, locator_index) = (reader.u8()?, reader.u8()?);
                Self::Descriptor { engine, locator_index, bytes: reader.rest() }
            }
            RES_DATA => Self::Data(reader.rest()),
            RES_PLUGIN => Self::Plugin { name: sized(&mut reader)?, library: None },
            RES_PLUGIN_V2 => {
                let name = sized(&mut reader)?;
                Self::Plugin { name, library: Some(sized(&mut reader)?) }
            }
            RES_CONFIG | RES_CONFIG_V3 | RES_CONFIG_V4 => {
                let key = sized(&mut reader)?;
                Self::Config { key, value: sized(&mut reader)? }
            }
            RES_COLLATION => Self::Collation(sized(&mut reader)?),
            RES_COMPLETE => Self::Complete,
            RES_ERROR => {
                let code = reader.u32()?.cast_signed();
                Self::Failed { code, message: reader.rest() }
            }
            _ => {
                return Err(Error::protocol(
                    "a clone response",
                    "a code of protocol V1 to V4",
                    code.to_string(),
                ));
            }
        };
        if !reader.is_empty() {
            return Err(Error::protocol(
                "a clone response",
                format!("the end of a response with code {code}"),
                format!("{} bytes more", reader.remaining()),
            ));
        }
        Ok(response)
    }
}

fn parse_locators(reader: &mut Reader<'_>) -> Result<Vec<Locator>> {
    let mut locators = Vec::new();
    while !reader.is_empty() {
        if locators.len() == LOCATORS_MAX {
            return Err(Error::TooLarge {
                what: "the number of engines of a clone",
                got: LOCATORS_MAX as u64 + 1,
                limit: LOCATORS_MAX as u64,
            });
        }
        locators.push(Locator::parse(reader)?);
    }
    Ok(locators)
}

fn sized<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let len = reader.u32()?;
    reader.take(len as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_init_is_laid_out_as_the_donor_reads_it() {
        let locators = [Locator { engine: 12, bytes: vec![0xaa, 0xbb] }];
        let command = Command::Init { version: 0x0102, ddl: 0x8000_012c, locators: &locators };
        assert_eq!(command.encode(), [1, 0x02, 0x01, 0, 0, 0x2c, 0x01, 0, 0x80, 12, 2, 0, 0, 0, 0xaa, 0xbb]);
    }

    #[test]
    fn an_ack_carries_error_locator_and_descriptor() {
        let locator = Locator { engine: 12, bytes: vec![7] };
        let command = Command::Ack { error: -1, locator: &locator, descriptor: &[9, 8] };
        assert_eq!(command.encode(), [5, 255, 255, 255, 255, 12, 1, 0, 0, 0, 7, 2, 0, 0, 0, 9, 8]);
    }

    #[test]
    fn the_no_lock_flag_never_reaches_a_donor_that_would_read_it_as_seconds() {
        let ddl = Ddl::Concurrent { lock_wait: Duration::from_secs(300) };
        assert_eq!(ddl.field(&ServerVersion::parse("8.0.27"), "h").unwrap(), 0x8000_012c);
        assert!(ddl.field(&ServerVersion::parse("8.0.26"), "h").is_err());
        let block = Ddl::Block { lock_wait: Duration::from_secs(u64::MAX) };
        assert_eq!(block.field(&ServerVersion::parse("8.0.17"), "h").unwrap() & NO_BACKUP_LOCK, 0);
    }

    #[test]
    fn a_version_above_ours_and_an_unknown_code_are_refused() {
        assert!(Response::parse(&[1, 0x03, 0x01, 0, 0]).is_err());
        assert!(Response::parse(&[10]).is_err());
        assert!(Response::parse(&[99, 1]).is_err());
        assert_eq!(Response::parse(&[99]).unwrap(), Response::Complete);
    }

    #[test]
    fn clone_is_there_from_8_0_17_on_mysql_only() {
        assert!(has_clone(&ServerVersion::parse("8.0.17")) && has_clone(&ServerVersion::parse("9.7.4-2")));
        assert!(!has_clone(&ServerVersion::parse("8.0.16")));
        assert!(!has_clone(&ServerVersion::parse("11.8.6-MariaDB")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_response_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Response::parse(&bytes);
        }

        #[test]
        fn locators_come_back(
            locators in proptest::collection::vec(
                (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..60)), 0..5),
        ) {
            let locators: Vec<_> =
                locators.into_iter().map(|(engine, bytes)| Locator { engine, bytes }).collect();
            let mut payload = vec![RES_LOCATORS, 2, 1, 0, 0];
            for locator in &locators {
                locator.encode(&mut payload);
            }
            prop_assert_eq!(
                Response::parse(&payload).unwrap(),
                Response::Locators { version: 0x0102, locators }
            );
        }
    }
}
