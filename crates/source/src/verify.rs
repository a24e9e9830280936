//! A sink that looks at InnoDB pages as they pass.
//!
//! Bytes go through to the real sink untouched, good or bad. A bad page of a hot copy may only have been
//! caught half-written, so nothing is said before the end: a later patch of the same page clears it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::outcome::{PageCounts, Warning};
use crate::page::{self, PageFormat, Verdict};
use crate::path::FilePath;
use crate::sink::{BLOCK_BYTES_U64, FileKind, FileNo, FileSpec, FileState, Sink, SinkError};

/// Bad pages remembered one by one in a copy; 64 Ki of them are about 4 MiB. A copy has a handful, a broken disk more
/// than anyone reads.
const BAD_PAGES_MAX: u64 = 64 * 1024;

/// Bad pages of one file that become a warning each.
const BAD_PAGES_LISTED: usize = 16;

/// Verifies pages of [`FileKind::Tablespace`] files on their way into another sink.
pub struct VerifyingSink<'a> {
    inner: &'a dyn Sink,
    files: Mutex<HashMap<FileNo, Arc<Mutex<Watched>>>>,
    /// For the second and later files of the system tablespace, which have no page 0 of their own.
    system_format: Mutex<Option<PageFormat>>,
}

#[derive(Debug)]
struct Watched {
    path: FilePath,
    system: bool,
    /// `None` until block 0 came, or for good if it is no tablespace after all.
    format: Option<PageFormat>,
    first_page_no: u64,
    counts: PageCounts,
    bad: BTreeMap<u64, BadPage>,
    bad_unlisted: u64,
    /// One past the last byte that came in a block.
    seen_end: u64,
    /// A page that is whole needs a key to be read.
    encrypted: bool,
}

#[derive(Debug, Clone, Copy)]
struct BadPage {
    page_type: u16,
    lsn: u64,
    flaw: page::Flaw,
}

impl<'a> VerifyingSink<'a> {
    /// In front of `inner`.
    #[must_use]
    pub fn new(inner: &'a dyn Sink) -> Self {
        Self { inner, files: Mutex::default(), system_format: Mutex::default() }
    }

    /// Says what is known of a tablespace before its page 0 comes.
    pub fn declare(&self, file: FileNo, format: PageFormat) {
        if let Some(watched) = self.watched(file) {
            let mut watched = lock(&watched);
            watched.format = Some(format);
            if watched.system {
                *lock(&self.system_format) = Some(format);
            }
        }
    }

    /// The count over all files, and a warning for each bad page that stayed bad.
    #[must_use]
    pub fn finish(&self) -> (PageCounts, Vec<Warning>) {
        let mut files: Vec<_> = lock(&self.files).drain().collect();
        files.sort_by_key(|(no, _)| *no);
        let (mut counts, mut warnings) = (PageCounts::default(), Vec::new());
        for (_, watched) in files {
            let watched = lock(&watched);
            let mut own = watched.counts;
            own.bad = watched.bad.len() as u64 + watched.bad_unlisted;
            counts += own;
            for (&page, bad) in watched.bad.iter().take(BAD_PAGES_LISTED) {
                warnings.push(Warning::BadPage {
                    file: watched.path.to_string(),
                    page,
                    page_type: bad.page_type,
                    lsn: bad.lsn,
                    reason: bad.flaw.to_string(),
                });
            }
            let more = own.bad.saturating_sub(BAD_PAGES_LISTED as u64);
            if more > 0 {
                warnings.push(Warning::MoreBadPages { file: watched.path.to_string(), count: more });
            }
        }
        (counts, warnings)
    }

    /// An error that names the first tablespace with an encrypted page. The restored server would have no keys.
    pub fn refuse_encrypted(&self) -> Result<(), Error> {
        let mut names: Vec<String> = lock(&self.files)
            .values()
            .filter_map(|watched| {
                let watched = lock(watched);
                watched.encrypted.then(|| watched.path.to_string())
            })
            .collect();
        names.sort_unstable();
        let Some(file) = names.first().cloned() else { return Ok(()) };
        let more = match names.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        Err(Error::Encrypted { file, more })
    }

    fn watched(&self, file: FileNo) -> Option<Arc<Mutex<Watched>>> {
        lock(&self.files).get(&file).cloned()
    }

    /// Finds a file's format with its first block, and whether these bytes are to be looked at at all.
    fn format_of(&self, watched: &mut Watched, offset: u64, bytes: &[u8]) -> Option<PageFormat> {
        if watched.format.is_none() && offset == 0 {
            watched.format = PageFormat::from_first_page(bytes);
            if watched.format.is_none() && watched.system {
                watched.format = *lock(&self.system_format);
                let number = bytes.get(4..8).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
                watched.first_page_no = u64::from(number);
            }
            if watched.system && watched.format.is_some() {
                *lock(&self.system_format) = watched.format;
            }
        }
        watched.format
    }

    fn look(&self, file: FileNo, offset: u64, bytes: &[u8], patch: bool) {
        let Some(watched) = self.watched(file) else { return };
        let (format, system, first) = {
            let mut watched = lock(&watched);
            let Some(format) = self.format_of(&mut watched, offset, bytes) else { return };
            (format, watched.system, watched.first_page_no)
        };
        let page_bytes = u64::from(format.page_bytes);
        if !offset.is_multiple_of(page_bytes) {
            return;
        }
        // The sums are computed outside the lock: that is where the time goes.
        let mut encrypted = format.encrypted;
        let mut verdicts = Vec::with_capacity(bytes.len() / format.page_bytes as usize);
        for (index, page) in bytes.chunks_exact(format.page_bytes as usize).enumerate() {
            let page_no = offset / page_bytes + index as u64;
            let verdict = page::check(format, first + page_no, system, page);
            encrypted |= !matches!(verdict, Verdict::Bad(_)) && page::is_encrypted(format, page);
            verdicts.push((page_no, page, verdict));
        }
        let mut watched = lock(&watched);
        watched.encrypted |= encrypted;
        for (page_no, page, verdict) in verdicts {
            let again = patch && (page_no + 1) * page_bytes <= watched.seen_end;
            watched.note(page_no, page, verdict, again);
        }
        if !patch {
            watched.seen_end = watched.seen_end.max(offset + bytes.len() as u64);
        }
    }
}

impl Watched {
    fn note(&mut self, page_no: u64, page: &[u8], verdict: Verdict, again: bool) {
        let was_bad = self.bad.remove(&page_no).is_some();
        let count = !again || was_bad;
        match verdict {
            Verdict::Good if count => self.counts.verified += 1,
            Verdict::Empty if count => self.counts.empty += 1,
            Verdict::Unchecked if count => self.counts.unchecked += 1,
            Verdict::Good | Verdict::Empty | Verdict::Unchecked => {}
            Verdict::Bad(flaw) => {
                if again && !was_bad {
                    // It was good before, by whatever count.
                    self.counts.verified = self.counts.verified.saturating_sub(1);
                }
                if (self.bad.len() as u64) < BAD_PAGES_MAX {
                    let bad = BadPage { page_type: page::page_type(page), lsn: page::page_lsn(page), flaw };
                    self.bad.insert(page_no, bad);
                } else {
                    self.bad_unlisted += 1;
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a file of this name is. By name, as the servers themselves tell their files apart.
#[must_use]
pub fn kind_of(path: &FilePath) -> FileKind {
    let (name, whole) = (path.file_name(), path.as_bytes());
    let numbered = |prefix: &[u8]| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            let rest = rest.strip_prefix(b"_").unwrap_or(rest);
            !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)
        })
    };
    // `.new` is mariadb-backup's name for a tablespace that was made during the copy.
    let tablespace = name.ends_with(b".ibd") || name.ends_with(b".ibu") || name.ends_with(b".new");
    if tablespace || numbered(b"ibdata") || numbered(b"undo") {
        FileKind::Tablespace
    } else if numbered(b"ib_logfile") || whole.starts_with(b"#innodb_redo/") {
        FileKind::Redo
    } else {
        FileKind::Plain
    }
}

impl Sink for VerifyingSink<'_> {
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError> {
        let (path, kind) = (spec.path.clone(), spec.kind);
        let no = self.inner.add_file(spec)?;
        if kind == FileKind::Tablespace {
            let watched = Watched {
                system: path.file_name().starts_with(b"ibdata"),
                path,
                format: None,
                first_page_no: 0,
                counts: PageCounts::default(),
                bad: BTreeMap::new(),
                bad_unlisted: 0,
                seen_end: 0,
                encrypted: false,
            };
            lock(&self.files).insert(no, Arc::new(Mutex::new(watched)));
        }
        Ok(no)
    }

    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if let Some(offset) = block_no.checked_mul(BLOCK_BYTES_U64) {
            self.look(file, offset, bytes, false);
        }
        self.inner.block(file, block_no, bytes)
    }

    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.look(file, offset, bytes, true);
        self.inner.patch(file, offset, bytes)
    }

    fn barrier(&self) -> Result<(), SinkError> {
        self.inner.barrier()
    }

    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError> {
        self.inner.set_len(file, len)
    }

    fn unchanged(&self, file: FileNo, len: u64, state: FileState) -> Result<bool, SinkError> {
        self.inner.unchanged(file, len, state)
    }

    /// A file with bad pages is read again each time, so that every copy warns of it.
    fn state(&self, file: FileNo, state: FileState) -> Result<(), SinkError> {
        let bad = self.watched(file).is_some_and(|watched| {
            let watched = lock(&watched);
            !watched.bad.is_empty() || watched.bad_unlisted > 0
        });
        if bad { Ok(()) } else { self.inner.state(file, state) }
    }

    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError> {
        if let Some(watched) = self.watched(file) {
            lock(&watched).path = path.clone();
        }
        self.inner.rename(file, path)
    }

    fn remove(&self, file: FileNo) -> Result<(), SinkError> {
        lock(&self.files).remove(&file);
        self.inner.remove(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Layout;
    use crate::sinks::MemorySink;

    /// Four pages of 16 KiB: a first one with flags, and three with their numbers.
    fn block() -> Vec<u8> {
        let mut block = Vec::new();
        for number in 0u32..4 {
            let mut page = vec![0; 16384];
            page[4..8].copy_from_slice(&number.to_be_bytes());
            page[24..26].copy_from_slice(&(if number == 0 { 8u16 } else { 17855 }).to_be_bytes());
            page[54..58].copy_from_slice(&0x4021u32.to_be_bytes());
            page[100] = 7;
            page::stamp(Layout::Classic, &mut page);
            block.extend(page);
        }
        block
    }

    fn add(sink: &dyn Sink, name: &str) -> FileNo {
        let path = FilePath::new(name).unwrap();
        let kind = kind_of(&path);
        sink.add_file(FileSpec { path, kind, expected_len: 0, mode: 0o640, mtime_us: None }).unwrap()
    }

    #[test]
    fn a_damaged_page_is_named_and_stored_as_it_is() {
        let memory = MemorySink::new();
        let sink = VerifyingSink::new(&memory);
        let file = add(&sink, "shop/orders.ibd");
        let mut bytes = block();
        bytes[2 * 16384 + 5000] ^= 1;
        sink.block(file, 0, &bytes).unwrap();
        let (counts, warnings) = sink.finish();
        assert_eq!(counts, PageCounts { verified: 3, bad: 1, ..PageCounts::default() });
        assert!(
            matches!(&warnings[..], [Warning::BadPage { file, page: 2, .. }] if file == "shop/orders.ibd")
        );
        assert_eq!(memory.content("shop/orders.ibd").unwrap(), bytes);
    }

    #[test]
    fn a_page_torn_in_a_hot_copy_is_cleared_by_the_page_that_replaces_it() {
        let memory = MemorySink::new();
        let sink = VerifyingSink::new(&memory);
        let file = add(&sink, "shop/orders.ibd");
        let good = block();
        let mut torn = good.clone();
        torn[16384 + 9000] ^= 0x40;
        sink.block(file, 0, &torn).unwrap();
        sink.barrier().unwrap();
        sink.patch(file, 16384, &good[16384..32768]).unwrap();
        let (counts, warnings) = sink.finish();
        assert_eq!(counts, PageCounts { verified: 4, ..PageCounts::default() });
        assert!(warnings.is_empty());
        assert_eq!(memory.content("shop/orders.ibd").unwrap(), good);
    }

    #[test]
    fn what_a_file_is_shows_in_its_name() {
        let kind = |name: &str| kind_of(&FilePath::new(name).unwrap());
        for name in ["ibdata1", "ibdata12", "undo_001", "undo001", "a/b.ibd", "mysql.ibd", "x/y.new", "u.ibu"]
        {
            assert_eq!(kind(name), FileKind::Tablespace, "{name}");
        }
        for name in ["ib_logfile0", "#innodb_redo/#ib_redo7"] {
            assert_eq!(kind(name), FileKind::Redo, "{name}");
        }
        for name in ["ibdata", "undo", "a/b.frm", "auto.cnf", "ib_buffer_pool", "ibdatax", "ib_logfile101x"] {
            assert_eq!(kind(name), FileKind::Plain, "{name}");
        }
    }
}
