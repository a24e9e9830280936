//! The files of a clone: names, lengths, and the way of their bytes into the sink.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_mysql::clone::descriptor::{FileDescriptor, State};

use super::donor::encrypted;
use crate::assemble::BlockAssembler;
use crate::error::Error;
use crate::page::{self, PageFormat};
use crate::path::FilePath;
use crate::sink::{BLOCK_BYTES, BLOCK_BYTES_U64, FileKind, FileNo, FileSpec, Sink};
use crate::verify::VerifyingSink;

/// Files of one clone; 500 bytes each, so 500 MB at the very most.
const FILES_MAX: u32 = 1_000_000;

/// Redo files: the server's own archive has at most 1000.
const REDO_FILES_MAX: u32 = 1000;

/// Files are laid out as `mysqld` makes them.
const MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// Flags of a file that is no tablespace.
const NO_FLAGS: u32 = u32::MAX;

/// Pages of a new tablespace.
const INITIAL_PAGES: u64 = 7;
/// A new undo tablespace.
const UNDO_BYTES: u64 = 16 << 20;
/// Ids of undo tablespaces.
const UNDO_SPACE_FIRST: u32 = 0xFFFF_FFF0 - 127 * 400_000;
const UNDO_SPACE_LAST: u32 = 0xFFFF_FFEF;

/// Redo files are called so since 8.0.30.
const NEW_REDO_NAMES: (u16, u16, u16) = (8, 0, 30);

/// A file of the clone, by the donor's number.
#[derive(Debug)]
pub(super) struct CloneFile {
    no: FileNo,
    announced: FilePath,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: FilePath,
    /// As the donor last said.
    size: u64,
    format: Option<PageFormat>,
    deleted: bool,
    assembler: BlockAssembler,
    /// One past the last byte of a block or page.
    end: u64,
}

/// All of them.
pub(super) struct Files<'a> {
    sink: &'a VerifyingSink<'a>,
    data: RwLock<BTreeMap<u32, Arc<CloneFile>>>,
    redo: RwLock<BTreeMap<u32, Arc<CloneFile>>>,
    new_redo_names: bool,
    /// `innodb_page_size`.
    page_bytes: u64,
}

impl CloneFile {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Files<'a> {
    pub(super) fn new(sink: &'a VerifyingSink<'a>, version: (u16, u16, u16), page_bytes: u64) -> Self {
        Self {
            sink,
            data: RwLock::default(),
            redo: RwLock::default(),
            new_redo_names: version >= NEW_REDO_NAMES,
            page_bytes,
        }
    }

    fn map(&self, state: State) -> &RwLock<BTreeMap<u32, Arc<CloneFile>>> {
        if state == State::RedoCopy { &self.redo } else { &self.data }
    }

    fn get(&self, state: State, index: u32) -> Result<Arc<CloneFile>, Error> {
        let map = self.map(state).read().unwrap_or_else(PoisonError::into_inner);
        map.get(&index).cloned().ok_or_else(|| Error::Malformed {
            place: "the clone's stream".to_owned(),
            expected: "bytes of a file that was announced".to_owned(),
            got: format!("file number {index} in {state:?}"),
        })
    }

    /// Files of `state` known so far.
    pub(super) fn known(&self, state: State) -> u64 {
        self.map(state).read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    /// Takes a file that belongs to the stage under way. One that is known already changes nothing: workers repeat redo files.
    pub(super) fn announce(&self, file: &FileDescriptor) -> Result<(), Error> {
        let redo = file.state == State::RedoCopy;
        let limit = if redo { REDO_FILES_MAX } else { FILES_MAX };
        if file.index >= limit {
            return Err(Error::TooMany {
                what: "files of a clone",
                got: u64::from(file.index) + 1,
                limit: u64::from(limit),
            });
        }
        let mut map = self.map(file.state).write().unwrap_or_else(PoisonError::into_inner);
        if map.contains_key(&file.index) {
            return Ok(());
        }
        let path = if redo { self.redo_path(file.index)? } else { self.data_path(&file.name)? };
        if file.flags.encrypted() || file.flags.has_key() {
            return Err(encrypted(path.to_string(), 1));
        }
        let format =
            (file.space_flags != NO_FLAGS).then(|| PageFormat::from_fsp_flags(file.space_flags)).flatten();
        let kind = match (redo, format) {
            (true, _) => FileKind::Redo,
            (false, Some(_)) => FileKind::Tablespace,
            (false, None) => FileKind::Plain,
        };
        let spec = FileSpec { path: path.clone(), kind, expected_len: file.size, mode: MODE, mtime_us: None };
        let no = self.sink.add_file(spec)?;
        if let (FileKind::Tablespace, Some(format)) = (kind, format) {
            self.sink.declare(no, format);
        }
        let announced = path.clone();
        let inner = Inner {
            path,
            size: file.size,
            format,
            deleted: false,
            assembler: BlockAssembler::new(no),
            end: 0,
        };
        map.insert(file.index, Arc::new(CloneFile { no, announced, inner: Mutex::new(inner) }));
        Ok(())
    }

    /// Takes the news that DDL did something to a file. Names and deletions take effect at the end: blocks of the file may
    /// still be on their way, and names may swap.
    pub(super) fn changed_by_ddl(&self, file: &FileDescriptor) -> Result<(), Error> {
        let known = self.data.read().unwrap_or_else(PoisonError::into_inner).get(&file.index).cloned();
        let Some(known) = known else { return self.made_by_ddl(file) };
        let mut inner = known.lock();
        if file.flags.encrypted() || file.flags.has_key() {
            return Err(encrypted(inner.path.to_string(), 1));
        }
        if file.flags.deleted() {
            inner.deleted = true;
        } else if file.flags.renamed() {
            inner.path = self.data_path(&file.name)?;
        }
        Ok(())
    }

    /// A file that came into being during the stage before. Its pages will come as pages or in the redo log, both of which
    /// need a first page to start from.
    fn made_by_ddl(&self, file: &FileDescriptor) -> Result<(), Error> {
        self.announce(&FileDescriptor { state: State::FileCopy, ..file.clone() })?;
        let made = self.get(State::FileCopy, file.index)?;
        let mut inner = made.lock();
        if file.flags.deleted() {
            inner.deleted = true;
            return Ok(());
        }
        let Some(format) = inner.format else { return Ok(()) };
        let undo = (UNDO_SPACE_FIRST..=UNDO_SPACE_LAST).contains(&file.space_id);
        let len = if undo { UNDO_BYTES } else { INITIAL_PAGES * u64::from(format.page_bytes) };
        inner.size = inner.size.max(len);
        inner.end = inner.end.max(len);
        // A patch, for the barrier has passed.
        self.sink.patch(made.no, 0, &page::initial(format, file.space_id, file.space_flags))?;
        Ok(())
    }

    /// Bytes of FILE COPY or REDO COPY. Whole blocks go through at once; the loose ends of a file wait for each other.
    pub(super) fn bytes(&self, state: State, index: u32, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let file = self.get(state, index)?;
        let whole =
            if offset.is_multiple_of(BLOCK_BYTES_U64) { bytes.len() - bytes.len() % BLOCK_BYTES } else { 0 };
        let (blocks, rest) = bytes.split_at(whole);
        {
            let mut inner = file.lock();
            if inner.deleted {
                return Ok(());
            }
            inner.end = inner.end.max(offset.saturating_add(bytes.len() as u64));
            if !rest.is_empty() {
                inner.assembler.write(self.sink, offset.saturating_add(whole as u64), rest)?;
            }
        }
        // Outside of the lock, which other feeders of a large file wait for.
        for (block_no, block) in (offset / BLOCK_BYTES_U64..).zip(blocks.chunks_exact(BLOCK_BYTES)) {
            self.sink.block(file.no, block_no, block)?;
        }
        Ok(())
    }

    /// A page of PAGE COPY. `file_size` is larger than before if the file grew.
    pub(super) fn page(&self, index: u32, offset: u64, file_size: u64, page: &[u8]) -> Result<(), Error> {
        let file = self.get(State::PageCopy, index)?;
        if page.is_empty() || page.len() > BLOCK_BYTES || offset.checked_add(page.len() as u64).is_none() {
            return Err(Error::Malformed {
                place: "a page of the clone".to_owned(),
                expected: format!("1 to {BLOCK_BYTES} bytes"),
                got: format!("{} at {offset}", page.len()),
            });
        }
        {
            let mut inner = file.lock();
            if inner.deleted {
                return Ok(());
            }
            inner.size = inner.size.max(file_size);
            inner.end = inner.end.max(offset + page.len() as u64);
        }
        self.sink.patch(file.no, offset, page).map_err(Error::from)
    }

    /// FILE COPY is over: what waits for more bytes goes to the sink, so that pages win over it.
    pub(super) fn end_of_file_copy(&self) -> Result<(), Error> {
        for file in self.all(State::FileCopy) {
            let mut inner = file.lock();
            if !inner.deleted {
                let size = inner.size;
                inner.assembler.finish(self.sink, size)?;
            }
        }
        Ok(())
    }

    /// All bytes are in the sink: gives every file its length, as a recipient of the server's own would.
    /// Returns the number of files.
    pub(super) fn finish(&self) -> Result<u64, Error> {
        let mut count = 0;
        for file in self.all(State::FileCopy) {
            let inner = file.lock();
            if inner.deleted {
                self.sink.remove(file.no)?;
                continue;
            }
            if inner.path != file.announced {
                self.sink.rename(file.no, inner.path.clone())?;
            }
            let came = inner.end.max(inner.assembler.end());
            self.sink.set_len(file.no, final_len(came, inner.size, inner.format, self.page_bytes))?;
            count += 1;
        }
        for file in self.all(State::RedoCopy) {
            let mut inner = file.lock();
            let len = inner.size.max(inner.end);
            inner.assembler.finish(self.sink, len)?;
            count += 1;
        }
        let path = FilePath::new("mysql").map_err(|source| Error::Name {
            place: "the clone",
            name: "mysql".to_owned(),
            source,
        })?;
        // Without it a server does not start: the folder of the system schema, whose tables lie elsewhere.
        self.sink.add_file(FileSpec {
            path,
            kind: FileKind::Directory,
            expected_len: 0,
            mode: DIRECTORY_MODE,
            mtime_us: None,
        })?;
        Ok(count)
    }

    fn all(&self, state: State) -> Vec<Arc<CloneFile>> {
        self.map(state).read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn redo_path(&self, index: u32) -> Result<FilePath, Error> {
        let name = if self.new_redo_names {
            format!("#innodb_redo/#ib_redo{index}")
        } else {
            format!("ib_logfile{index}")
        };
        FilePath::new(name.clone()).map_err(|source| Error::Name { place: "the clone", name, source })
    }

    fn data_path(&self, name: &[u8]) -> Result<FilePath, Error> {
        let inside = name.strip_prefix(b"./").unwrap_or(name);
        let text = || inside.escape_ascii().to_string();
        // DATA DIRECTORY, a general tablespace, an undo tablespace: the donor names the whole path. Its dictionary does
        // too, and a server that is restored beside the donor would open the donor's file (observed on MySQL 9.7.4).
        if inside.starts_with(b"/") {
            return Err(Error::Outside { file: text(), more: String::new() });
        }
        FilePath::new(inside).map_err(|source| Error::Name {
            place: "the clone's donor",
            name: text(),
            source,
        })
    }
}

/// The length of a data file: what its donor says it is; if more came and that is beyond one extent, whole extents.
fn final_len(came: u64, size: u64, format: Option<PageFormat>, page_bytes: u64) -> u64 {
    let Some(format) = format else { return came.max(size) };
    if came < size {
        return size;
    }
    // An extent is 1 MiB, with pages above 16 KiB 64 of them.
    let pages = if page_bytes <= 16 * 1024 { (1u64 << 20) / page_bytes.max(1024) } else { 64 };
    let extent = pages * u64::from(format.page_bytes);
    if came > extent { came.next_multiple_of(extent) } else { came }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::MemorySink;

    fn file(state: State, index: u32, name: &str, size: u64, flags: u16) -> FileDescriptor {
        FileDescriptor {
            state,
            size,
            allocated: size,
            space_flags: 0x4021,
            fs_block_size: 4096,
            flags: holdfast_mysql::clone::descriptor::FileFlags(flags),
            space_id: 7,
            index,
            chunk_first: 1,
            chunk_last: 1,
            name: name.as_bytes().to_vec(),
            key: None,
        }
    }

    #[test]
    fn names_are_taken_below_the_datadir_only() {
        let memory = MemorySink::new();
        let sink = VerifyingSink::new(&memory);
        let files = Files::new(&sink, (9, 7, 4), 16384);
        for (index, name) in ["./shop/t.ibd", "undo_001"].into_iter().enumerate() {
            files.announce(&file(State::FileCopy, index as u32, name, 0, 0)).unwrap();
        }
        for name in ["../../etc/passwd", "./a/../../b", ""] {
            assert!(
                matches!(files.announce(&file(State::FileCopy, 9, name, 0, 0)), Err(Error::Name { .. })),
                "{name}"
            );
        }
        files.announce(&file(State::RedoCopy, 3, "", 0, 0)).unwrap();
        let names: Vec<_> = memory.specs().into_keys().collect();
        assert_eq!(names, ["#innodb_redo/#ib_redo3", "shop/t.ibd", "undo_001"]);
        let far = files.announce(&file(State::FileCopy, 9, "/data2/shop/far.ibd", 0, 0)).unwrap_err();
        assert!(far.to_string().starts_with("/data2/shop/far.ibd lies outside"), "{far}");
        let files = Files::new(&sink, (8, 0, 29), 16384);
        files.announce(&file(State::RedoCopy, 1, "", 0, 0)).unwrap();
        assert!(memory.specs().contains_key("ib_logfile1"));
    }

    #[test]
    fn an_encrypted_file_is_refused_by_its_name() {
        let memory = MemorySink::new();
        let sink = VerifyingSink::new(&memory);
        let files = Files::new(&sink, (9, 7, 4), 16384);
        let error = files.announce(&file(State::FileCopy, 0, "./shop/secret.ibd", 0, 4)).unwrap_err();
        assert!(error.to_string().contains("shop/secret.ibd"), "{error}");
    }

    #[test]
    fn a_redo_file_whose_header_comes_last_is_whole() {
        let memory = MemorySink::new();
        let sink = VerifyingSink::new(&memory);
        let files = Files::new(&sink, (9, 7, 4), 16384);
        files.announce(&file(State::RedoCopy, 0, "", 3_276_800, 0)).unwrap();
        let body: Vec<u8> = (0..2_500_000u32).map(|i| (i % 251) as u8 + 1).collect();
        for (n, extent) in body.chunks(1 << 20).enumerate() {
            files.bytes(State::RedoCopy, 0, 2048 + ((n as u64) << 20), extent).unwrap();
        }
        files.bytes(State::RedoCopy, 0, 0, &[9; 2048]).unwrap();
        files.finish().unwrap();
        let content = memory.content("#innodb_redo/#ib_redo0").unwrap();
        assert_eq!(content.len(), 3_276_800);
        assert_eq!(&content[..2048], [9; 2048]);
        assert_eq!(&content[2048..2048 + body.len()], body);
        assert!(memory.specs().contains_key("mysql"));
    }

    #[test]
    fn a_short_last_block_gives_way_to_the_pages_that_follow() {
        let memory = MemorySink::new();
        let sink = VerifyingSink::new(&memory);
        let files = Files::new(&sink, (9, 7, 4), 16384);
        files.announce(&file(State::FileCopy, 0, "./d/t.ibd", 7 * 16384, 0)).unwrap();
        files.bytes(State::FileCopy, 0, 0, &[1; 7 * 16384]).unwrap();
        files.end_of_file_copy().unwrap();
        sink.barrier().unwrap();
        files.page(0, 6 * 16384, 9 * 16384, &[2; 16384]).unwrap();
        files.finish().unwrap();
        let content = memory.content("d/t.ibd").unwrap();
        assert_eq!(content.len(), 9 * 16384);
        assert_eq!((content[5 * 16384], content[6 * 16384], content[7 * 16384]), (1, 2, 0));
    }

    #[test]
    fn lengths_follow_the_rule_of_the_server() {
        let format = PageFormat::from_fsp_flags(0x4021);
        assert_eq!(final_len(0, 114_688, format, 16384), 114_688);
        assert_eq!(final_len(114_688, 114_688, format, 16384), 114_688);
        assert_eq!(final_len((1 << 20) + 16384, 1 << 20, format, 16384), 2 << 20);
        assert_eq!(final_len(100, 50, None, 16384), 100);
        assert_eq!(final_len((4 << 20) + 1, 1, PageFormat::from_fsp_flags(7 << 6), 65536), 8 << 20);
    }
}
