//! What becomes of each event that comes: kept, known already, or none of the file's. Sans-I/O.
//!
//! The rule: the archive holds the source's files byte for byte. So an event is kept only if it begins where the last
//! one ended and says itself that it ends where its length says; everything that the source makes up for a replica
//! (artificial rotations, heartbeats, repeated format descriptions) steers this machine and is dropped. Whatever does
//! not fit is a gap and an error.

use holdfast_binlog::event::{FLAG_ARTIFICIAL, HEADER_LEN};
use holdfast_binlog::kind::EventType;
use holdfast_binlog::transaction::{Assembler, Oddity, Pushed, Transaction};
use holdfast_binlog::walker::{MAGIC, Walker};
use holdfast_binlog::{Body, Header};
use holdfast_format::gtid::{Flavor, GtidSet, MariaDbGtid};
use holdfast_format::record::Position;

use crate::error::Error;
use crate::tail::Tail;

/// Offset of the first event of a file.
pub const FIRST_OFFSET: u64 = MAGIC.len() as u64;

/// What to do with an event.
#[derive(Debug)]
pub enum Taken {
    /// Nothing: it is not of the file, or archived already.
    Nothing,
    /// The source is alive and has sent everything that it has.
    CaughtUp,
    /// A file begins; its events follow.
    File,
    /// Keep its bytes.
    Keep(Kept),
}

/// About an event that is kept.
#[derive(Debug)]
pub struct Kept {
    /// No transaction is open behind it: the log may be cut here.
    pub boundary: bool,
    /// Where the transaction begins that it belongs to.
    pub since: Option<u64>,
    /// The transaction that it ends.
    pub transaction: Option<Box<Transaction>>,
}

/// A break in the log, before it is made an error.
#[derive(Debug)]
pub enum Flaw {
    /// The log can't go on; recorded as a gap.
    Gap(String),
    /// Something that no server sends; trying again may help.
    Event(holdfast_binlog::Error),
}

/// What the source must serve again: the last transaction that is archived, and what follows it in the file.
///
/// All of it counts. The first event alone proves little: MariaDB's holds a number and a time in whole seconds, which a
/// log that was reset and filled again within the second has, too.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Where its first event begins.
    pub offset: u64,
    /// Its first event.
    pub bytes: Vec<u8>,
    /// The end of what is summed up.
    end: u64,
    /// Of all bytes from the first event on, but those in `rest`. No CRC: events end with their own, behind which all look
    /// alike to it.
    summed: Option<Box<blake3::Hasher>>,
    /// What is not summed up yet: of nearly all transactions nobody ever asks for the sum.
    rest: Vec<u8>,
}

/// Bytes of an anchor that are kept as they are.
const ANCHOR_REST_MAX: usize = 64 << 10;

impl Anchor {
    /// Begins with the event `raw` at `offset`.
    #[must_use]
    pub fn new(offset: u64, raw: &[u8]) -> Self {
        let mut anchor = Self { offset, bytes: raw.to_vec(), end: offset, summed: None, rest: Vec::new() };
        anchor.extend(offset, raw);
        anchor
    }

    /// Begins anew, in the same memory.
    fn restart(&mut self, offset: u64, raw: &[u8]) {
        raw.clone_into(&mut self.bytes);
        (self.offset, self.end, self.summed) = (offset, offset, None);
        self.rest.clear();
        self.extend(offset, raw);
    }

    /// Goes on with the event `raw` at `offset`, if that is where it ends.
    pub fn extend(&mut self, offset: u64, raw: &[u8]) {
        if offset != self.end {
            return;
        }
        self.end += raw.len() as u64;
        if self.rest.len() + raw.len() > ANCHOR_REST_MAX {
            let summed = self.summed.get_or_insert_default();
            summed.update(&self.rest).update(raw);
            self.rest.clear();
        } else {
            self.rest.extend_from_slice(raw);
        }
    }

    fn digest(&self) -> blake3::Hash {
        let mut hasher = self.summed.as_deref().cloned().unwrap_or_default();
        hasher.update(&self.rest);
        hasher.finalize()
    }

    /// Can a log that shows `shown` so far, from the same offset on, be the same one?
    fn allows(&self, shown: &Self) -> bool {
        self.bytes == shown.bytes
            && match shown.end.cmp(&self.end) {
                std::cmp::Ordering::Equal => self.digest() == shown.digest(),
                // Longer than the sum: an event that ends at another place than ours did.
                std::cmp::Ordering::Greater => false,
                std::cmp::Ordering::Less => true,
            }
    }
}

/// The state of one stream between two events.
#[derive(Debug)]
pub struct Intake {
    flavor: Flavor,
    file: String,
    /// Where the next event of the file must begin: the end of what is archived.
    offset: u64,
    /// Where the next event that comes begins: before `offset` while the source repeats what we have.
    incoming: u64,
    walker: Walker,
    format_event: Vec<u8>,
    assembler: Assembler,
    executed: Option<GtidSet>,
    /// What the first file's own list names, if it is a MariaDB's: the last transaction of each writer.
    history: Vec<MariaDbGtid>,
    rotated_to: Option<String>,
    anchor: Option<Anchor>,
    /// What this connection has shown of the anchor so far.
    shown: Option<Anchor>,
    connected: bool,
}

impl Intake {
    /// At the start of a file of which nothing is archived. `executed` is what was before it, if that is known.
    #[must_use]
    pub fn new(flavor: Flavor, file: &str, executed: Option<GtidSet>) -> Self {
        Self {
            flavor,
            file: file.to_owned(),
            offset: FIRST_OFFSET,
            incoming: FIRST_OFFSET,
            walker: Walker::new(FIRST_OFFSET),
            format_event: Vec::new(),
            assembler: Assembler::new(),
            executed,
            history: Vec::new(),
            rotated_to: None,
            anchor: None,
            shown: None,
            connected: false,
        }
    }

    /// Behind what is archived, between two transactions.
    #[must_use]
    pub fn resume(flavor: Flavor, at: &Position, tail: &mut Tail) -> Self {
        let mut intake = Self::new(flavor, &at.file, Some(at.gtid.clone()));
        intake.offset = at.offset;
        intake.anchor = tail.anchor.take();
        intake.rotated_to = tail.rotated_to.take();
        intake
    }

    fn begin_file(&mut self, name: String) {
        self.file = name;
        self.offset = FIRST_OFFSET;
        self.incoming = FIRST_OFFSET;
        self.walker = Walker::new(FIRST_OFFSET);
        self.anchor = None;
    }

    /// The file that is followed.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The end of what is archived.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the list at the head of the file names with which it began: the last transaction of each writer in each
    /// domain (MariaDB).
    pub(crate) fn history(&self) -> &[MariaDbGtid] {
        &self.history
    }

    /// What was executed up to the last transaction that ended. `None` before the first file's own list was read.
    #[must_use]
    pub fn executed(&self) -> Option<&GtidSet> {
        self.executed.as_ref()
    }

    /// The end of what is archived, as a position. Between transactions it is exact.
    #[must_use]
    pub fn position(&self) -> Position {
        let gtid = self.executed.clone().unwrap_or_else(|| GtidSet::empty(self.flavor));
        Position { file: self.file.clone(), offset: self.offset, gtid }
    }

    /// Is a transaction open?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.assembler.is_open()
    }

    /// The event that describes the format in force; empty before the first one.
    #[must_use]
    pub fn format_event(&self) -> &[u8] {
        &self.format_event
    }

    /// Where to ask the source to begin: at the last transaction that we have, so that it must show that it has the
    /// same one.
    pub fn reconnect(&mut self) -> u64 {
        self.connected = false;
        self.shown = None;
        self.incoming = self.anchor.as_ref().map_or(FIRST_OFFSET, |anchor| anchor.offset);
        self.incoming
    }

    /// Goes on at the end of what is archived without its being shown again: somebody else says that it is the same log.
    pub(crate) fn trust(&mut self) {
        self.connected = true;
        self.incoming = self.offset;
    }

    /// What a source must show again: the last transaction, and what follows it in the file.
    pub(crate) fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// Has anything come of this file by which a source can prove that it still has the same one? Without it a new
    /// connection must begin in the file before.
    #[must_use]
    pub fn can_be_proved(&self) -> bool {
        self.anchor.is_some()
    }

    /// Has this connection shown that the source has our last transaction, and what comes now is new?
    #[must_use]
    pub fn goes_on(&self) -> bool {
        self.anchor.is_some() && self.incoming == self.offset && !self.format_event.is_empty()
    }

    /// Is this connection still to show that the source has our last transaction?
    #[must_use]
    pub fn shows_nothing(&self) -> bool {
        self.anchor
            .as_ref()
            .is_some_and(|anchor| anchor.offset == self.incoming && self.incoming < self.offset)
    }

    /// Takes an event as it came.
    pub fn take(&mut self, raw: &[u8]) -> std::result::Result<Taken, Flaw> {
        let Some(header) = raw.first_chunk::<HEADER_LEN>().map(Header::read) else {
            return Err(Flaw::Gap("an event came that is shorter than its header".to_owned()));
        };
        let artificial =
            header.flags & FLAG_ARTIFICIAL != 0 || (header.log_pos == 0 && header.timestamp == 0);
        match header.kind {
            EventType::ROTATE if artificial => self.rotation(raw),
            EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => Ok(self.heartbeat(header)),
            EventType::FORMAT_DESCRIPTION if self.incoming > FIRST_OFFSET => self.format_again(raw),
            _ if artificial && header.kind != EventType::FORMAT_DESCRIPTION => Ok(Taken::Nothing),
            _ if self.incoming < self.offset => self.known(raw, &header),
            _ => self.keep(raw, &header),
        }
    }

    /// Tells the name of the file that follows.
    fn rotation(&mut self, raw: &[u8]) -> std::result::Result<Taken, Flaw> {
        let (name, offset) = rotation_target(raw)?;
        self.rotated(name, offset)
    }

    /// Takes that what follows is of this file, from this offset on.
    pub(crate) fn rotated(&mut self, name: String, offset: u64) -> std::result::Result<Taken, Flaw> {
        if !self.connected {
            self.connected = true;
            if name != self.file || offset != self.incoming {
                return Err(Flaw::Gap(format!(
                    "the source answers with {name}:{offset} to the request for {}:{}",
                    self.file, self.incoming
                )));
            }
            return Ok(Taken::Nothing);
        }
        if name == self.file {
            return Ok(Taken::Nothing);
        }
        if self.assembler.is_open() || self.incoming < self.offset {
            return Err(Flaw::Gap(format!("{} ends in the middle of a transaction", self.file)));
        }
        let expected = self.rotated_to.take().or_else(|| next_file(&self.file));
        if expected.as_deref() != Some(name.as_str()) || offset != FIRST_OFFSET {
            let expected =
                expected.unwrap_or_else(|| "a file of the same name and the next number".to_owned());
            return Err(Flaw::Gap(format!("after {} comes {name}, not {expected}", self.file)));
        }
        self.begin_file(name);
        Ok(Taken::File)
    }

    fn heartbeat(&self, header: Header) -> Taken {
        // The position of version 1 is cut to 32 bits, which is good enough to tell "no further".
        let at_end = header.kind != EventType::HEARTBEAT || header.log_pos == self.offset as u32;
        if at_end && self.incoming == self.offset { Taken::CaughtUp } else { Taken::Nothing }
    }

    /// A stream that begins inside a file repeats the file's format.
    fn format_again(&mut self, raw: &[u8]) -> std::result::Result<Taken, Flaw> {
        let mut walker = Walker::new(self.incoming);
        walker.whole(raw).map_err(Flaw::Event)?;
        walker.set_position(self.incoming);
        self.walker = walker;
        raw.clone_into(&mut self.format_event);
        Ok(Taken::Nothing)
    }

    /// An event that is archived already: it must be the same one.
    fn known(&mut self, raw: &[u8], header: &Header) -> std::result::Result<Taken, Flaw> {
        let event = self.walker.whole(raw).map_err(Flaw::Event)?;
        if event.kind() == EventType::FORMAT_DESCRIPTION {
            raw.clone_into(&mut self.format_event);
        }
        let next = self.incoming + u64::from(header.length);
        let same = self.anchor.as_ref().is_none_or(|anchor| {
            if self.incoming >= anchor.end {
                return true;
            }
            match self.shown.as_mut() {
                Some(shown) => shown.extend(self.incoming, raw),
                None => self.shown = Some(Anchor::new(self.incoming, raw)),
            }
            self.shown.as_ref().is_some_and(|shown| anchor.allows(shown))
        });
        if !same || next > self.offset {
            return Err(Flaw::Gap(format!(
                "at {}:{} the source serves another transaction than the one that is archived; it was reset, \
                 restored, or lost its tail",
                self.file, self.incoming
            )));
        }
        self.incoming = next;
        Ok(Taken::Nothing)
    }

    fn keep(&mut self, raw: &[u8], header: &Header) -> std::result::Result<Taken, Flaw> {
        let end = self.offset + raw.len() as u64;
        // The header has 32 bits for it; files grow beyond 4 GiB by one large transaction.
        if header.log_pos != end as u32 {
            return Err(Flaw::Gap(format!(
                "the event at {}:{} says that it ends at {}, not at {end}: bytes are missing before it",
                self.file, self.offset, header.log_pos
            )));
        }
        self.walker.set_position(self.offset);
        let event = self.walker.whole(raw).map_err(Flaw::Event)?;
        if event.kind() == EventType::FORMAT_DESCRIPTION {
            raw.clone_into(&mut self.format_event);
        }
        self.check_special(&event)?;
        let Some(format) = self.walker.format() else {
            return Err(Flaw::Gap(format!("{} begins without a format description", self.file)));
        };
        let starts = !self.assembler.is_open();
        let pushed = self.assembler.push(&event, format).map_err(Flaw::Event)?;
        let first_of_file = self.anchor.is_none() && event.kind() != EventType::FORMAT_DESCRIPTION;
        if (starts && !matches!(pushed, Pushed::Outside)) || first_of_file {
            match self.anchor.as_mut() {
                Some(anchor) => anchor.restart(self.offset, raw),
                None => self.anchor = Some(Anchor::new(self.offset, raw)),
            }
        } else if let Some(anchor) = self.anchor.as_mut() {
            anchor.extend(self.offset, raw);
        }
        self.offset = end;
        self.incoming = end;
        let transaction = match pushed {
            Pushed::End(transaction) => Some(self.ended(transaction)?),
            Pushed::Inside | Pushed::Outside => None,
        };
        let since = transaction.as_ref().map(|t| t.start).or_else(|| self.assembler.open_since());
        Ok(Taken::Keep(Kept { boundary: !self.assembler.is_open(), since, transaction }))
    }

    fn check_special(&mut self, event: &holdfast_binlog::Event<'_>) -> std::result::Result<(), Flaw> {
        if !matches!(
            event.kind(),
            EventType::ROTATE
                | EventType::PREVIOUS_GTIDS
                | EventType::GTID_LIST
                | EventType::START_ENCRYPTION
        ) {
            return Ok(());
        }
        let Some(format) = self.walker.format() else { return Ok(()) };
        match event.parse(format).map_err(Flaw::Event)? {
            Body::Rotate { file, .. } => {
                self.rotated_to = Some(String::from_utf8_lossy(file).into_owned());
                Ok(())
            }
            Body::PreviousGtids(set) => self.check_history(GtidSet::MySql(set)),
            Body::GtidList(state) => {
                if self.executed.is_none() {
                    self.history = state.iter().collect();
                }
                self.check_history(GtidSet::MariaDb(state.position()))
            }
            Body::StartEncryption { .. } => {
                Err(Flaw::Gap(format!("{} is encrypted in a way that replicas can't read", self.file)))
            }
            _ => Ok(()),
        }
    }

    /// A file's list of what was before it must be what we have seen.
    fn check_history(&mut self, before: GtidSet) -> std::result::Result<(), Flaw> {
        let Some(executed) = &self.executed else {
            self.executed = Some(before);
            return Ok(());
        };
        let mut missing = before.clone();
        if missing.subtract(executed).is_err() {
            return Err(Flaw::Gap("the source changed its family".to_owned()));
        }
        if !missing.is_empty() {
            return Err(Flaw::Gap(format!(
                "{} says that {missing} came before it, which was never seen in the log",
                self.file
            )));
        }
        // MySQL's list is complete; MariaDB's may forget a domain on demand (FLUSH BINARY LOGS DELETE_DOMAIN_ID).
        if let (GtidSet::MySql(_), GtidSet::MySql(_)) = (&before, executed) {
            let mut lost = executed.clone();
            let _ = lost.subtract(&before);
            if !lost.is_empty() {
                return Err(Flaw::Gap(format!(
                    "{} knows nothing of {lost}, which is archived: the source was reset or lost its tail",
                    self.file
                )));
            }
        }
        Ok(())
    }

    fn ended(&mut self, transaction: Box<Transaction>) -> std::result::Result<Box<Transaction>, Flaw> {
        if let Some(odd) = transaction.oddities.iter().find(|odd| odd.oddity == Oddity::Incident) {
            return Err(Flaw::Gap(format!(
                "the source itself reports lost events at {}:{} ({})",
                self.file,
                odd.position,
                odd.subject.as_deref().unwrap_or("no reason given")
            )));
        }
        if let Some(gtid) = &transaction.gtid {
            let executed = self.executed.get_or_insert_with(|| GtidSet::empty(self.flavor));
            if gtid.flavor() == Flavor::MySql && executed.contains(gtid) {
                return Err(Flaw::Gap(format!("{gtid} comes a second time: the source was reset")));
            }
            executed.add(gtid).map_err(|error| Flaw::Gap(error.to_string()))?;
        }
        Ok(transaction)
    }
}

/// File and offset of an artificial rotation. It may end with a checksum, depending on what the source believes of us
/// at that moment, so the bytes decide.
pub(crate) fn rotation_target(raw: &[u8]) -> std::result::Result<(String, u64), Flaw> {
    let bad = || Flaw::Gap("a rotation came that names no file".to_owned());
    let body = raw.get(HEADER_LEN..).ok_or_else(bad)?;
    let (offset, name) = body.split_first_chunk::<8>().ok_or_else(bad)?;
    let name = match (raw.split_last_chunk::<4>(), name.split_last_chunk::<4>()) {
        (Some((summed, stored)), Some((shorter, _)))
            if crc32fast::hash(summed) == u32::from_le_bytes(*stored) =>
        {
            shorter
        }
        _ => name,
    };
    let name = std::str::from_utf8(name).map_err(|_| bad())?;
    if name.is_empty() || name.contains(['/', '\0']) {
        return Err(bad());
    }
    Ok((name.to_owned(), u64::from_le_bytes(*offset)))
}

/// The file after `name`: the same with the number one higher, in as many digits.
#[must_use]
pub fn next_file(name: &str) -> Option<String> {
    let (base, number) = name.rsplit_once('.')?;
    let next = number.parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{base}.{next:0width$}", width = number.len()))
}

/// Turns a flaw into the error that users see.
#[must_use]
pub fn flaw_to_error(flaw: Flaw, stream: &str, after: &Position) -> Error {
    match flaw {
        Flaw::Gap(reason) => Error::Gap {
            stream: stream.to_owned(),
            after: place(after),
            reason,
            next: "Take a new backup: the archive goes on from there".to_owned(),
        },
        Flaw::Event(source) => Error::Event { file: after.file.clone(), source },
    }
}

/// A position for people.
#[must_use]
pub fn place(at: &Position) -> String {
    if at.gtid.is_empty() {
        return format!("{}:{}", at.file, at.offset);
    }
    format!("{}:{} (GTIDs {})", at.file, at.offset, at.gtid)
}

/// Orders two positions of one stream: by the number of the file, then by the offset. `None` if a name has no number.
#[must_use]
pub fn order(a: &Position, b: &Position) -> Option<std::cmp::Ordering> {
    let key = |at: &Position| file_number(&at.file).map(|number| (number, at.offset));
    Some(key(a)?.cmp(&key(b)?))
}

/// The number of a binlog file.
#[must_use]
pub fn file_number(name: &str) -> Option<u64> {
    name.rsplit_once('.')?.1.parse().ok()
}

/// Is this the error of a source that no longer has what we ask for, or never had? Error 1236 has many causes; these are
/// the servers' words (always English) for a file that is gone, a file that is shorter, and purged transactions.
#[must_use]
pub fn is_purged(error: &holdfast_mysql::Error) -> bool {
    let holdfast_mysql::Error::Server(error) = error else { return false };
    let text = error.message.to_ascii_lowercase();
    holdfast_mysql::dump::is_not_there(error)
        && ["could not find", "> file size", "purged", "impossible position", "not in the master's binlog"]
            .iter()
            .any(|words| text.contains(words))
}

/// Is this the error of a source whose `gtid_mode` was changed so far that it no longer serves what it wrote before? These
/// are MySQL's words.
#[must_use]
pub fn is_other_gtid_mode(error: &holdfast_mysql::Error) -> bool {
    let holdfast_mysql::Error::Server(error) = error else { return false };
    let text = error.message.to_ascii_lowercase();
    holdfast_mysql::dump::is_not_there(error)
        && text.contains("cannot replicate")
        && text.contains("gtid_mode")
}

/// Is this what a server says that was asked to read from the middle of an event? Where an event of ours began, another
/// log is then: the numbers of files begin anew after a reset. Only good for an event that we have, since one of these is
/// also said of an event that is too large.
#[must_use]
pub fn is_senseless(error: &holdfast_mysql::Error) -> bool {
    let holdfast_mysql::Error::Server(error) = error else { return false };
    let text = error.message.to_ascii_lowercase();
    holdfast_mysql::dump::is_not_there(error)
        && ["max_allowed_packet", "bogus data", "truncated in the middle", "crc check", "checksum"]
            .iter()
            .any(|words| text.contains(words))
}
