//! Binlog files that a server left become part of its archive.
//!
//! They are read twice. The first reading writes nothing: it follows the files as a source's stream is followed, from where
//! the archive ends, and refuses what is no log without a hole behind it. The second one writes, up to the last
//! transaction that is whole. Killed in the middle, the same call goes on where the archive ends then.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_binlog::event::HEADER_LEN;
use holdfast_binlog::{EventType, Header, Walker};
use holdfast_format::gtid::{Flavor, Gtid, GtidSet, Uuid};
use holdfast_format::ids::ServerId;
use holdfast_format::record::{Position, StreamKey};

use crate::error::{Error, Result};
use crate::intake::{FIRST_OFFSET, Flaw, Intake, Taken, file_number, next_file, place};
use crate::keeper::Keeper;
use crate::log::stream_name;
use crate::mark::{FileMark, Origin};
use crate::options::{Followed, Note};
use crate::start;
use crate::storage::LogStore;
use crate::tail::{self, Tail};

mod files;
mod marks;

use files::{EventFile, Step};
use marks::{ByABackup, by_a_backup, mark_of};

/// Header flag of a replica's copy of another server's log.
const FLAG_RELAY_LOG: u16 = 0x0040;

/// The files, wherever they lie.
pub trait BinlogFiles {
    /// Their names as the server gave them, oldest first.
    fn names(&self) -> &[String];

    /// Opens one of them, by its place among the names, at an offset.
    fn open(&self, place: usize, offset: u64) -> std::io::Result<Box<dyn Read + '_>>;
}

/// Whose files they are said to be.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// The server.
    pub server: ServerId,
    /// The identity that it shows.
    pub source_uuid: Uuid,
    /// Its family.
    pub flavor: Flavor,
    /// The user vouches for it: that they are of this server, and go on in the life of its log that is archived.
    pub vouched: bool,
}

/// What an import will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The stream that it writes.
    pub stream: StreamKey,
    /// Where the archive of that stream ends now; `None` if nothing of it is archived.
    pub from: Option<Position>,
    /// Where it will end.
    pub until: Position,
    /// Transactions to come.
    pub transactions: u64,
    /// Bytes of events that both readings go through.
    pub bytes: u64,
    /// What to know of it.
    pub warnings: Vec<String>,
    flavor: Flavor,
    /// The first file that is read.
    first: usize,
    way: Way,
}

/// How the files meet the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing is archived of the stream: it begins with the first file.
    Begin,
    /// The archive's last transaction is in them, at this offset of the first one that is read, and shown again.
    Shown(u64),
    /// They begin with the file that the archived one names as the next; the user vouches for the rest.
    Vouched,
}

fn refuse<T>(file: &str, reason: impl Into<String>) -> Result<T> {
    Err(Error::Import { file: file.to_owned(), reason: reason.into() })
}

/// Reads all of the files that are to come, and says what an import of them does. Writes nothing. `origins` are the
/// places at which backups of the server stand.
///
/// # Errors
/// [`Error::Import`] with the file and why it can't be; [`Error::Event`] for a damaged one.
pub fn check(
    store: &dyn LogStore,
    owner: &Owner,
    files: &dyn BinlogFiles,
    origins: &[Origin],
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Plan> {
    follow_each_other(files.names())?;
    let (mut plan, intake) = meet(store, owner, files)?;
    let mut checker = Checker::new(owner, intake);
    feed(files, &plan, stop, progress, &mut checker)?;
    plan.until = match (checker.until(), &plan.from) {
        (Some(until), _) => until,
        (None, Some(from)) => from.clone(),
        (None, None) => {
            let first = files.names().first().map(String::as_str).unwrap_or_default();
            return refuse(first, "it holds nothing behind its head");
        }
    };
    (plan.transactions, plan.bytes) = (checker.transactions, checker.bytes);
    plan.warnings.extend(checker.cut);
    if matches!(plan.way, Way::Shown(_)) {
        return Ok(plan);
    }
    let known = match by_a_backup(files, origins)? {
        ByABackup::Same => true,
        ByABackup::Another(file) => {
            return refuse(
                &file,
                "a backup stands in another file of this name: it is of another server, or of another life of this \
                 one's log",
            );
        }
        ByABackup::Nothing => owner.vouched || checker.own,
    };
    if !known {
        let first = files.names().first().map(String::as_str).unwrap_or_default();
        return refuse(
            first,
            "nothing tells that it is of this server: no backup of it stands in these files, none of their \
             transactions was begun on it (a replica's log has its source's), and nothing of them is archived",
        );
    }
    Ok(plan)
}

/// Writes what [`check`] saw.
///
/// # Errors
/// As `check`, if the files changed since; what came before it is kept.
pub fn import(
    store: &dyn LogStore,
    plan: &Plan,
    files: &dyn BinlogFiles,
    stretch_bytes: u64,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
    note: &mut dyn FnMut(Note<'_>),
) -> Result<Followed> {
    let mut keeper = Keeper::start(store, &plan.stream, None, stretch_bytes, note)?;
    keeper.flavor = plan.flavor;
    let at = keeper.tail.as_ref().and_then(|tail| tail.at.clone());
    if at != plan.from {
        let name = files.names().first().map(String::as_str).unwrap_or_default();
        return refuse(name, "the archive went on while it was read; run the same command again");
    }
    keeper.intake = Some(match (at, keeper.tail.as_mut()) {
        (Some(at), Some(tail)) => resume(plan.flavor, &at, tail, plan.way == Way::Vouched).0,
        _ => Intake::new(plan.flavor, files.names().get(plan.first).map_or("", String::as_str), None),
    });
    let mut writer = Writer { keeper, until: &plan.until };
    let fed = feed(files, plan, stop, progress, &mut writer);
    let finished = writer.keeper.finish();
    // What came before a failure is good; the failure is what the caller must hear. Nothing is recorded of a hole in
    // files: the log itself may go on.
    fed.map_err(|error| match error {
        Error::Gap { reason, .. } => Error::Import { file: plan.until.file.clone(), reason },
        other => other,
    })?;
    finished
}

impl Plan {
    /// Is everything archived already?
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let same = |from: &Position| from.file == self.until.file && from.offset == self.until.offset;
        self.from.as_ref().is_some_and(same)
    }
}

/// Goes on at the end of what is archived; gives where the first file is read from.
fn resume(flavor: Flavor, at: &Position, tail: &mut Tail, vouched: bool) -> (Intake, u64) {
    let mut intake = Intake::resume(flavor, at, tail);
    let from = intake.reconnect();
    if vouched {
        intake.trust();
    }
    (intake, from)
}

/// Names of one log, in order, none missing.
fn follow_each_other(names: &[String]) -> Result<()> {
    for pair in names.windows(2) {
        let [before, name] = pair else { continue };
        if next_file(before).as_deref() != Some(name.as_str()) {
            return refuse(name, format!("it does not follow {before}: a file between them is missing"));
        }
    }
    match names.first() {
        Some(first) if file_number(first).is_some() => Ok(()),
        Some(first) => refuse(first, "its name does not end with the number of a binlog file"),
        None => refuse("nothing", "no file is named"),
    }
}

/// Where the files meet the archive.
fn meet(store: &dyn LogStore, owner: &Owner, files: &dyn BinlogFiles) -> Result<(Plan, Intake)> {
    let names = files.names();
    let first_name = names.first().map(String::as_str).unwrap_or_default();
    let keys = store.streams()?.into_iter().filter(|key| key.server == owner.server);
    let newest = keys.max_by_key(|key| key.incarnation);
    let flavor = owner.flavor;
    let plan = |stream: StreamKey, from: Option<Position>, first: usize, way: Way| Plan {
        stream,
        until: Position { file: String::new(), offset: 0, gtid: GtidSet::empty(flavor) },
        from,
        transactions: 0,
        bytes: 0,
        warnings: Vec::new(),
        flavor,
        first,
        way,
    };
    let begin =
        |stream: StreamKey| (plan(stream, None, 0, Way::Begin), Intake::new(flavor, first_name, None));
    let Some(stream) = newest else {
        let (server, source_uuid) = (owner.server, owner.source_uuid);
        return Ok(begin(StreamKey { server, source_uuid, incarnation: 0 }));
    };
    if stream.source_uuid != owner.source_uuid {
        return refuse(
            first_name,
            format!("the newest log that is archived is of {}, another server", stream_name(&stream)),
        );
    }
    let mut tail = tail::find(store, &stream)?;
    let Some(at) = tail.at.clone() else { return Ok(begin(stream)) };
    if let Some(first) = names.iter().position(|name| *name == at.file) {
        same_as_archived(store, &stream, files)?;
        let (intake, from) = resume(flavor, &at, &mut tail, false);
        return Ok((plan(stream, Some(at), first, Way::Shown(from)), intake));
    }
    if tail.rotated_to.as_deref() == Some(first_name) && owner.vouched {
        let (intake, _) = resume(flavor, &at, &mut tail, true);
        return Ok((plan(stream, Some(at), 0, Way::Vouched), intake));
    }
    // Behind a hole that is recorded, a life of its own may begin where a backup stands.
    let next = start::plan(store, owner.server, owner.source_uuid)?;
    let led =
        next.stream.incarnation > stream.incarnation && by_a_backup(files, &next.origins)? == ByABackup::Same;
    if led && origins_reach(names, &next.origins) {
        return Ok(begin(next.stream));
    }
    let end = place(&at);
    if tail.rotated_to.as_deref() == Some(first_name) {
        return refuse(
            first_name,
            format!(
                "the archive ends with {}, and only that file can show that this is the same log: name it, too, or \
                 vouch for it",
                at.file
            ),
        );
    }
    let earlier = names.last().and_then(|last| file_number(last)) < file_number(&at.file);
    let reason = if earlier {
        format!("it lies before the end of what is archived ({end}), and a log grows at its end only")
    } else {
        format!(
            "between the end of what is archived ({end}) and it there is a hole: name the files from {} on",
            at.file
        )
    };
    refuse(first_name, reason)
}

/// Does a backup stand in one of the files?
fn origins_reach(names: &[String], origins: &[Origin]) -> bool {
    origins.iter().any(|origin| names.contains(&origin.at.file))
}

/// Files that are archived already must be the same ones, and all of them that lie before the archive's end must be.
fn same_as_archived(store: &dyn LogStore, stream: &StreamKey, files: &dyn BinlogFiles) -> Result<()> {
    let stretches = store.stretches(stream)?;
    let end = stretches.last().and_then(|last| file_number(&last.start.file));
    for (at, name) in files.names().iter().enumerate() {
        if file_number(name) > end {
            break;
        }
        if !stretches.iter().any(|stretch| stretch.start.file == *name) {
            return refuse(
                name,
                "it lies before what is archived, and a log grows at its end only; name the files behind it",
            );
        }
        let archived = FileMark::of_archive(store, stream, name)?;
        if archived.is_some_and(|archived| Some(archived) != mark_of(files, at).ok().flatten()) {
            return refuse(
                name,
                "another file of this name is archived: it is of another server, or of another life of this one's log",
            );
        }
    }
    Ok(())
}

/// Who hears what is in the files.
trait Hearer {
    /// The events that follow are of this file, from this offset on.
    fn file(&mut self, name: &str, offset: u64) -> Result<()>;
    /// An event; false: no more are wanted.
    fn event(&mut self, raw: &[u8]) -> Result<bool>;
    /// The file ends; it was cut off inside an event at `Some` offset.
    fn end(&mut self, name: &str, cut: Option<u64>, last: bool) -> Result<()>;
}

/// Plays the files as a source would send them.
fn feed(
    files: &dyn BinlogFiles,
    plan: &Plan,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
    to: &mut dyn Hearer,
) -> Result<()> {
    let names = files.names();
    let mut read = 0;
    for (at, name) in names.iter().enumerate().skip(plan.first) {
        let from = match plan.way {
            Way::Shown(from) if at == plan.first => from,
            _ => FIRST_OFFSET,
        };
        to.file(name, from)?;
        if from > FIRST_OFFSET {
            // A stream that begins inside a file repeats the file's format.
            let mut head = EventFile::open(files, at, FIRST_OFFSET)?;
            if let Step::Event = head.step()? {
                to.event(head.event())?;
            }
        }
        let mut file = EventFile::open(files, at, from)?;
        let cut = loop {
            match file.step()? {
                Step::Event => {
                    read += file.event().len() as u64;
                    if !to.event(file.event())? {
                        return Ok(());
                    }
                    progress(read);
                    if stop.load(Ordering::Relaxed) {
                        return Err(Error::Interrupted);
                    }
                }
                Step::End => break None,
                Step::Cut(offset) => break Some(offset),
            }
        };
        to.end(name, cut, at + 1 == names.len())?;
    }
    Ok(())
}

/// Follows the files as they would be archived, and writes nothing.
struct Checker<'o> {
    owner: &'o Owner,
    intake: Intake,
    /// Where the log may be cut, as far as it was read.
    boundary: Option<(String, u64)>,
    transactions: u64,
    bytes: u64,
    /// A transaction has the server's own identity, and was begun where the file was written.
    own: bool,
    /// The number of the server on which the transaction that comes was begun.
    begun_on: Option<u32>,
    /// A transaction has no GTID.
    anonymous: bool,
    /// The first file that does not say at its end that it is closed.
    unclosed: Option<String>,
    /// The number of the server that wrote the files.
    server_id: Option<u32>,
    last_kind: Option<EventType>,
    /// The last file does not end behind a transaction.
    cut: Option<String>,
}

impl<'o> Checker<'o> {
    fn new(owner: &'o Owner, intake: Intake) -> Self {
        Self {
            owner,
            intake,
            boundary: None,
            transactions: 0,
            bytes: 0,
            own: false,
            begun_on: None,
            anonymous: false,
            unclosed: None,
            server_id: None,
            last_kind: None,
            cut: None,
        }
    }

    /// The end of what is whole; `None` if nothing came that can be archived.
    fn until(&self) -> Option<Position> {
        let (file, offset) = self.boundary.clone()?;
        Some(Position { file, offset, gtid: self.intake.position().gtid })
    }

    fn told<T>(&self, outcome: std::result::Result<T, Flaw>) -> Result<T> {
        outcome.map_err(|flaw| match flaw {
            Flaw::Gap(reason) => Error::Import { file: self.intake.file().to_owned(), reason },
            Flaw::Event(source) => Error::Event { file: self.intake.file().to_owned(), source },
        })
    }

    /// The head of a file says who wrote it.
    fn head(&mut self, raw: &[u8], header: &Header) -> Result<()> {
        let file = self.intake.file().to_owned();
        let mut walker = Walker::new(FIRST_OFFSET);
        walker.whole(raw).map_err(|source| Error::Event { file: file.clone(), source })?;
        let mariadb = walker.format().is_some_and(holdfast_binlog::FormatDescription::is_mariadb);
        if mariadb != (self.owner.flavor == Flavor::MariaDb) {
            let family = if mariadb { "MariaDB" } else { "MySQL" };
            return refuse(&file, format!("it is a log of {family}, and the server is not"));
        }
        if header.flags & FLAG_RELAY_LOG != 0 {
            return refuse(&file, "it is a replica's relay log: name the binary log of the server itself");
        }
        match self.server_id {
            Some(before) if before != header.server_id => refuse(
                &file,
                format!(
                    "it was written by the server with server_id {}, the file before by {before}; if that was changed in \
                     between, import the files before it first, and then these with the last one of those",
                    header.server_id
                ),
            ),
            _ => {
                self.server_id = Some(header.server_id);
                Ok(())
            }
        }
    }
}

impl Hearer for Checker<'_> {
    fn file(&mut self, name: &str, offset: u64) -> Result<()> {
        self.last_kind = None;
        let rotated = self.intake.rotated(name.to_owned(), offset);
        self.told(rotated).map(drop)
    }

    fn event(&mut self, raw: &[u8]) -> Result<bool> {
        let header = raw.first_chunk::<HEADER_LEN>().map(Header::read);
        if let Some(header) = header {
            if header.kind == EventType::FORMAT_DESCRIPTION && self.last_kind.is_none() {
                self.head(raw, &header)?;
            }
            self.last_kind = Some(header.kind);
            match header.kind {
                EventType::GTID | EventType::GTID_TAGGED => self.begun_on = Some(header.server_id),
                // What is archived already and only shown again counts, too.
                EventType::ANONYMOUS_GTID => self.anonymous = true,
                _ => {}
            }
        }
        let taken = self.intake.take(raw);
        if let Taken::Keep(kept) = self.told(taken)? {
            self.bytes += raw.len() as u64;
            if let Some(transaction) = &kept.transaction {
                self.transactions += 1;
                match &transaction.gtid {
                    // A replica's log has its source's transactions, each with the source's number.
                    Some(Gtid::MySql { tsid, .. }) => {
                        let here = self.begun_on.is_some() && self.begun_on == self.server_id;
                        self.own |= here && tsid.sid == self.owner.source_uuid;
                    }
                    Some(Gtid::MariaDb(_)) => {}
                    None => self.anonymous = true,
                }
            }
            if let (true, Some(unclosed)) = (self.anonymous, &self.unclosed) {
                return not_closed(unclosed);
            }
            // Of a file of which only the head came, nothing is archived.
            if kept.boundary && self.last_kind != Some(EventType::FORMAT_DESCRIPTION) {
                match self.boundary.as_mut().filter(|(file, _)| file == self.intake.file()) {
                    Some((_, offset)) => *offset = self.intake.offset(),
                    None => self.boundary = Some((self.intake.file().to_owned(), self.intake.offset())),
                }
            }
        }
        Ok(true)
    }

    fn end(&mut self, name: &str, cut: Option<u64>, last: bool) -> Result<()> {
        let short = match cut {
            Some(offset) => Some(format!("it ends inside an event, at {offset}")),
            None if self.intake.is_open() => Some("it ends inside a transaction".to_owned()),
            None => None,
        };
        match short {
            Some(short) if last => {
                let (file, offset) = self.boundary.clone().unwrap_or_default();
                let until = if file.is_empty() { "its begin".to_owned() } else { format!("{file}:{offset}") };
                self.cut = Some(format!("{name}: {short}; taken up to {until}"));
                return Ok(());
            }
            Some(short) => return refuse(name, format!("{short}: copy it whole")),
            None => {}
        }
        let closed = matches!(self.last_kind, Some(EventType::ROTATE | EventType::STOP));
        // The list at the head of the next file names all GTIDs before it, and so tells what is missing at this one's end.
        let listed = !self.anonymous && self.intake.executed().is_some_and(|executed| !executed.is_empty());
        if last || closed {
            return Ok(());
        }
        if !listed {
            return not_closed(name);
        }
        // The list tells nothing of transactions without a GTID: one that comes later ends the trust.
        self.unclosed.get_or_insert_with(|| name.to_owned());
        Ok(())
    }
}

fn not_closed<T>(file: &str) -> Result<T> {
    refuse(
        file,
        "it does not say at its end that it is closed, and without GTIDs nothing else tells whether all of it is there: \
         copy it whole; if the server crashed there, import the files up to it, and take a backup behind it",
    )
}

/// Writes up to the end of what is whole.
struct Writer<'k, 'p> {
    keeper: Keeper<'k>,
    until: &'p Position,
}

impl Hearer for Writer<'_, '_> {
    fn file(&mut self, name: &str, offset: u64) -> Result<()> {
        self.keeper.rotate(name, offset)
    }

    fn event(&mut self, raw: &[u8]) -> Result<bool> {
        let here = self.keeper.intake.as_ref();
        if here.is_some_and(|here| here.file() == self.until.file && here.offset() >= self.until.offset) {
            return Ok(false);
        }
        self.keeper.take(raw).map(|()| true)
    }

    fn end(&mut self, _: &str, _: Option<u64>, _: bool) -> Result<()> {
        Ok(())
    }
}
