//! The inner layer: InnoDB's descriptors, integers big endian.
//!
//! Each begins with 12 bytes: u32 version (100 in all releases so far), u32 length of the whole, u32 type.

use crate::error::{Error, Result};

/// The only version of descriptors there is.
pub const VERSION: u32 = 100;

const TYPE_LOCATOR: u32 = 1;
const TYPE_TASK: u32 = 2;
const TYPE_STATE: u32 = 3;
const TYPE_FILE: u32 = 4;
const TYPE_DATA: u32 = 5;

const LOCATOR_LEN: usize = 34;
const STATE_LEN: usize = 46;
const KEY_LEN: usize = 64;

/// Offset of the locator's state byte and of the byte after it, which a resume changes.
const LOCATOR_STATE_AT: usize = 32;

/// Longest file name: the servers' own limit of a path is 4000 bytes.
pub const NAME_BYTES_MAX: u32 = 4096;

/// The stages of a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing yet.
    None,
    /// The donor opens its files.
    Init,
    /// Data files, read without locks: pages may be torn or old.
    FileCopy,
    /// The pages that changed meanwhile.
    PageCopy,
    /// The redo log.
    RedoCopy,
    /// All sent.
    Done,
}

impl State {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Init => 1,
            Self::FileCopy => 2,
            Self::PageCopy => 3,
            Self::RedoCopy => 4,
            Self::Done => 5,
        }
    }

    fn parse(number: u32) -> Result<Self> {
        Ok(match number {
            0 => Self::None,
            1 => Self::Init,
            2 => Self::FileCopy,
            3 => Self::PageCopy,
            4 => Self::RedoCopy,
            5 => Self::Done,
            _ => return Err(Error::protocol("a clone state", "0 to 5", number.to_string())),
        })
    }
}

/// Type 1: a clone's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InnoDbLocator {
    /// The clone's id; 0 in the one that starts a clone.
    pub clone_id: u64,
    /// The snapshot's id.
    pub snapshot_id: u64,
    /// Place in the donor's table of clones.
    pub index: u32,
    /// The state.
    pub state: State,
    /// All file descriptors of `FileCopy` have been received.
    pub files_known: bool,
}

/// What has arrived of the current state; sent in a resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Chunks of which the first blocks are here: chunk number, blocks done. At most 256.
    pub incomplete: Vec<(u32, u32)>,
    /// One bit a chunk, chunk 1 first, low bit first: wholly or partly received.
    pub reserved: Vec<u32>,
}

impl InnoDbLocator {
    /// The locator that starts a clone.
    #[must_use]
    pub fn version_only() -> Self {
        Self { clone_id: 0, snapshot_id: 0, index: 0, state: State::None, files_known: false }
    }

    /// The bytes, with our progress for a resume.
    #[must_use]
    pub fn encode(&self, progress: Option<&Progress>) -> Vec<u8> {
        let mut body = Vec::with_capacity(LOCATOR_LEN);
        body.extend_from_slice(&self.clone_id.to_be_bytes());
        body.extend_from_slice(&self.snapshot_id.to_be_bytes());
        body.extend_from_slice(&self.index.to_be_bytes());
        debug_assert_eq!(body.len() + 12, LOCATOR_STATE_AT);
        body.push(self.state.number() as u8);
        body.push(u8::from(self.files_known));
        if let Some(progress) = progress {
            body.extend_from_slice(&(progress.incomplete.len() as u32).to_be_bytes());
            for (chunk, blocks) in &progress.incomplete {
                body.extend_from_slice(&chunk.to_be_bytes());
                body.extend_from_slice(&blocks.to_be_bytes());
            }
            body.extend_from_slice(&(progress.reserved.len() as u32).to_be_bytes());
            for word in &progress.reserved {
                body.extend_from_slice(&word.to_be_bytes());
            }
        }
        with_header(TYPE_LOCATOR, &body)
    }

    /// Reads a locator; what follows the 34 bytes (progress, padding) is not read.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        match Descriptor::parse(bytes)? {
            Descriptor::Locator(locator) => Ok(locator),
            other => Err(Error::protocol("a clone locator", "type 1", format!("{other:?}"))),
        }
    }
}

/// Type 2: the first descriptor of each data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskDescriptor {
    /// Our number on the donor.
    pub task: u32,
    /// Chunk to go on with; 0 at the start.
    pub chunk: u32,
    /// Block to go on with; 0 at the start.
    pub block: u32,
}

/// Type 3: a state begins or ends, or the donor is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDescriptor {
    /// The state.
    pub state: State,
    /// The task that it goes to.
    pub task: u32,
    /// Chunks in this state.
    pub chunks: u32,
    /// Files, of `PageCopy` pages, of `RedoCopy` redo files.
    pub files: u32,
    /// Estimate of bytes to be sent; in the master's start only.
    pub estimate: u64,
    /// Estimate of bytes on disk; in the master's start only.
    pub estimate_disk: u64,
    /// True: the state begins; false: it ends.
    pub start: bool,
    /// An acknowledgement, or a sign of life while the donor waits.
    pub ack: bool,
}

impl StateDescriptor {
    /// The bytes, as the ACK sends them back.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(STATE_LEN);
        for word in [self.state.number(), self.task, self.chunks, self.files] {
            body.extend_from_slice(&word.to_be_bytes());
        }
        body.extend_from_slice(&self.estimate.to_be_bytes());
        body.extend_from_slice(&self.estimate_disk.to_be_bytes());
        let flags = u16::from(self.start) | (u16::from(self.ack) << 1);
        body.extend_from_slice(&flags.to_be_bytes());
        with_header(TYPE_STATE, &body)
    }

    /// The descriptor that acknowledges this one.
    #[must_use]
    pub fn acknowledged(mut self) -> Self {
        self.ack = true;
        self
    }
}

/// Flags of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileFlags(pub u16);

impl FileFlags {
    const KNOWN: u16 = 0b11_1111;

    /// Pages are compressed by zlib (transparent page compression).
    #[must_use]
    pub fn zlib(self) -> bool {
        self.0 & 1 != 0
    }

    /// Pages are compressed by lz4.
    #[must_use]
    pub fn lz4(self) -> bool {
        self.0 & 2 != 0
    }

    /// Pages are encrypted.
    #[must_use]
    pub fn encrypted(self) -> bool {
        self.0 & 4 != 0
    }

    /// The file was renamed meanwhile.
    #[must_use]
    pub fn renamed(self) -> bool {
        self.0 & 8 != 0
    }

    /// The file was deleted meanwhile.
    #[must_use]
    pub fn deleted(self) -> bool {
        self.0 & 16 != 0
    }

    /// A key comes with the descriptor.
    #[must_use]
    pub fn has_key(self) -> bool {
        self.0 & 32 != 0
    }
}

/// Type 4: a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDescriptor {
    /// The state it belongs to.
    pub state: State,
    /// Bytes.
    pub size: u64,
    /// Bytes on the donor's disk.
    pub allocated: u64,
    /// Tablespace flags; 0xffffffff where there are none.
    pub space_flags: u32,
    /// Block size of the donor's file system.
    pub fs_block_size: u32,
    /// Flags.
    pub flags: FileFlags,
    /// Tablespace id.
    pub space_id: u32,
    /// The file's number; data files and redo files count apart.
    pub index: u32,
    /// First chunk, counted from 1.
    pub chunk_first: u32,
    /// Last chunk.
    pub chunk_last: u32,
    /// The name in the donor's file-system encoding; empty for redo. Not to be trusted as a path.
    pub name: Vec<u8>,
    /// The tablespace's key and IV in clear, if they came.
    pub key: Option<zeroize::Zeroizing<Vec<u8>>>,
}

/// Type 5: the file bytes that come in the next packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataDescriptor {
    /// The state.
    pub state: State,
    /// The sending task.
    pub task: u32,
    /// The chunk.
    pub chunk: u32,
    /// Blocks of the chunk that are done with this one, counted from 1.
    pub block: u32,
    /// The file's number.
    pub file_index: u32,
    /// Bytes that follow.
    pub len: u32,
    /// Where in the file.
    pub offset: u64,
    /// The file's size now.
    pub file_size: u64,
}

/// Any descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor {
    /// Type 1.
    Locator(InnoDbLocator),
    /// Type 2.
    Task(TaskDescriptor),
    /// Type 3.
    State(StateDescriptor),
    /// Type 4.
    File(FileDescriptor),
    /// Type 5.
    Data(DataDescriptor),
}

impl Descriptor {
    /// Reads a descriptor; unknown versions, types and flags are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields { rest: bytes };
        let version = fields.u32()?;
        if version != VERSION {
            return Err(Error::protocol(
                "a clone descriptor",
                format!("version {VERSION}"),
                format!("version {version}; this server's clone is newer than this Holdfast"),
            ));
        }
        let len = fields.u32()?;
        if u64::from(len) > bytes.len() as u64 {
            return Err(Error::protocol(
                "a clone descriptor",
                format!("{len} bytes"),
                format!("{}", bytes.len()),
            ));
        }
        let kind = fields.u32()?;
        match kind {
            TYPE_LOCATOR => locator(&mut fields).map(Self::Locator),
            TYPE_TASK => task(&mut fields).map(Self::Task),
            TYPE_STATE => state(&mut fields).map(Self::State),
            TYPE_FILE => file(&mut fields).map(Self::File),
            TYPE_DATA => data(&mut fields).map(Self::Data),
            _ => Err(Error::protocol("a clone descriptor", "type 1 to 5", format!("type {kind}"))),
        }
    }
}

fn locator(fields: &mut Fields<'_>) -> Result<InnoDbLocator> {
    Ok(InnoDbLocator {
        clone_id: fields.u64()?,
        snapshot_id: fields.u64()?,
        index: fields.u32()?,
        state: State::parse(u32::from(fields.u8()?))?,
        files_known: fields.u8()? != 0,
    })
}

fn task(fields: &mut Fields<'_>) -> Result<TaskDescriptor> {
    Ok(TaskDescriptor { task: fields.u32()?, chunk: fields.u32()?, block: fields.u32()? })
}

fn state(fields: &mut Fields<'_>) -> Result<StateDescriptor> {
    let (state, task, chunks, files) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
    let (estimate, estimate_disk, flags) = (fields.u64()?, fields.u64()?, fields.u16()?);
    known_flags("a clone state", flags, 0b11)?;
    Ok(StateDescriptor {
        state: State::parse(state)?,
        task,
        chunks,
        files,
        estimate,
        estimate_disk,
        start: flags & 1 != 0,
        ack: flags & 2 != 0,
    })
}

fn file(fields: &mut Fields<'_>) -> Result<FileDescriptor> {
    let state = State::parse(fields.u32()?)?;
    let (size, allocated) = (fields.u64()?, fields.u64()?);
    let (space_flags, fs_block_size) = (fields.u32()?, fields.u32()?);
    let flags = FileFlags(fields.u16()?);
    known_flags("a clone file", flags.0, FileFlags::KNOWN)?;
    let (space_id, index) = (fields.u32()?, fields.u32()?);
    let (chunk_first, chunk_last) = (fields.u32()?, fields.u32()?);
    let name_len = fields.u32()?;
    if name_len > NAME_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "the name of a clone's file",
            got: u64::from(name_len),
            limit: u64::from(NAME_BYTES_MAX),
        });
    }
    let name = fields.take(name_len as usize)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    if name.contains(&0) {
        return Err(Error::protocol("the name of a clone's file", "no NUL", format!("{name:02x?}")));
    }
    let key =
        if flags.has_key() { Some(zeroize::Zeroizing::new(fields.take(KEY_LEN)?.to_vec())) } else { None };
    Ok(FileDescriptor {
        state,
        size,
        allocated,
        space_flags,
        fs_block_size,
        flags,
        space_id,
        index,
        chunk_first,
        chunk_last,
        name: name.to_vec(),
        key,
    })
}

fn data(fields: &mut Fields<'_>) -> Result<DataDescriptor> {
    Ok(DataDescriptor {
        state: State::parse(fields.u32()?)?,
        task: fields.u32()?,
        chunk: fields.u32()?,
        block: fields.u32()?,
        file_index: fields.u32()?,
        len: fields.u32()?,
        offset: fields.u64()?,
        file_size: fields.u64()?,
    })
}

fn known_flags(place: &'static str, flags: u16, known: u16) -> Result<()> {
    if flags & !known == 0 {
        return Ok(());
    }
    Err(Error::protocol(place, format!("flags within {known:#06x}"), format!("{flags:#06x}")))
}

fn with_header(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + body.len());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&(12 + body.len() as u32).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(body);
    out
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.rest.split_at_checked(len) else {
            return Err(Error::protocol(
                "a clone descriptor",
                format!("{len} more bytes"),
                format!("{}", self.rest.len()),
            ));
        };
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TASK_LEN: usize = 24;
    const FILE_LEN: usize = 62;
    const DATA_LEN: usize = 52;

    fn state_numbers() -> impl Strategy<Value = State> {
        (0u32..6).prop_map(|n| State::parse(n).unwrap())
    }

    proptest! {
        #[test]
        fn state_descriptors_come_back(
            state in state_numbers(), task: u32, chunks: u32, files: u32,
            estimate: u64, estimate_disk: u64, start: bool, ack: bool,
        ) {
            let descriptor =
                StateDescriptor { state, task, chunks, files, estimate, estimate_disk, start, ack };
            let bytes = descriptor.encode();
            prop_assert_eq!(bytes.len(), STATE_LEN);
            prop_assert_eq!(Descriptor::parse(&bytes).unwrap(), Descriptor::State(descriptor));
        }

        #[test]
        fn locators_come_back_with_and_without_progress(
            clone_id: u64, snapshot_id: u64, index: u32, state in state_numbers(), files_known: bool,
            reserved in proptest::collection::vec(any::<u32>(), 0..5),
        ) {
            let locator = InnoDbLocator { clone_id, snapshot_id, index, state, files_known };
            let progress = Progress { incomplete: vec![(3, 4)], reserved };
            prop_assert_eq!(locator.encode(None).len(), LOCATOR_LEN);
            prop_assert_eq!(InnoDbLocator::parse(&locator.encode(None)).unwrap(), locator.clone());
            prop_assert_eq!(InnoDbLocator::parse(&locator.encode(Some(&progress))).unwrap(), locator);
        }

        #[test]
        fn any_bytes_are_a_descriptor_or_an_error(
            kind in 0u32..8, body in proptest::collection::vec(any::<u8>(), 0..140),
        ) {
            let _ = Descriptor::parse(&body);
            let _ = Descriptor::parse(&with_header(kind, &body));
        }

        #[test]
        fn a_cut_descriptor_is_an_error(cut in 0usize..FILE_LEN) {
            let bytes = with_header(TYPE_FILE, &[0; FILE_LEN - 12]);
            prop_assert!(Descriptor::parse(&bytes).is_ok());
            prop_assert!(Descriptor::parse(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn a_file_keeps_its_name_flags_and_key() {
        let mut body = vec![0; FILE_LEN - 12];
        body[3] = 2;
        body[28..30].copy_from_slice(&0b10_0100u16.to_be_bytes());
        body[30..34].copy_from_slice(&7u32.to_be_bytes());
        body[34..38].copy_from_slice(&9u32.to_be_bytes());
        body[46..50].copy_from_slice(&10u32.to_be_bytes());
        body.extend_from_slice(b"./d/t.ibd\0");
        body.extend_from_slice(&[5; KEY_LEN]);
        let Descriptor::File(file) = Descriptor::parse(&with_header(TYPE_FILE, &body)).unwrap() else {
            panic!("not a file");
        };
        assert_eq!((file.state, file.space_id, file.index), (State::FileCopy, 7, 9));
        assert_eq!(file.name, b"./d/t.ibd");
        assert!(file.flags.encrypted() && file.flags.has_key() && !file.flags.deleted());
        assert_eq!(file.key.unwrap().as_slice(), [5; KEY_LEN]);
    }

    #[test]
    fn unknown_versions_types_and_flags_are_refused() {
        let mut bytes = with_header(TYPE_DATA, &[0; DATA_LEN - 12]);
        assert!(Descriptor::parse(&bytes).is_ok());
        bytes[3] = 101;
        assert!(Descriptor::parse(&bytes).unwrap_err().to_string().contains("101"));
        assert!(Descriptor::parse(&with_header(6, &[0; 40])).is_err());
        let mut state = with_header(TYPE_STATE, &[0; STATE_LEN - 12]);
        state[STATE_LEN - 1] = 4;
        assert!(Descriptor::parse(&state).is_err());
        assert!(Descriptor::parse(&with_header(TYPE_TASK, &[0; TASK_LEN - 12])).is_ok());
    }
}
