//! Searches the log itself for what the index does not have: the original statements of row changes, and who ran a
//! statement, where the source wrote them down.

use holdfast_binlog::event::Event;
use holdfast_binlog::kind::EventType;
use holdfast_binlog::{Body, FormatDescription};
use holdfast_format::record::StreamKey;
use holdfast_format::txn_index::{FrameView, IndexFrame, TxnEntry};

use crate::error::{Error, Result};
use crate::find::{Query, like};
use crate::index::{Indexed, entry_of};
use crate::log::LogReader;
use crate::server_log::ServerLog;

/// Most bytes of the texts of one transaction that are looked at.
const TEXTS_BYTES_MAX: usize = 16 << 20;

/// What is looked for in the log; both must hold where both are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// One of the transaction's statements is like this, original statements of row changes included.
    pub like: Option<String>,
    /// One of its statements was run by this user, of any host. Case counts, as in accounts.
    pub user: Option<String>,
}

/// A transaction that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The transaction.
    pub indexed: Indexed,
    /// The first statement that matched, or the first one at all if only the user was asked for.
    pub text: Option<String>,
    /// Who ran it, where the log says so.
    pub user: Option<String>,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scanned {
    /// Transactions that were read.
    pub transactions: u64,
    /// Of them, those for which the log has an original statement of row changes.
    pub with_text: u64,
    /// Of them, those with a name of a user.
    pub with_user: u64,
    /// There are more than were asked for.
    pub more: bool,
}

/// Reads the segments in which the index has a transaction that fits `query` (whose `like` does not count here), and
/// hands the first `limit` that fit `wanted`, too, to `each`, in the order of the log. `progress` is told the bytes read and
/// all of them, and ends it with false.
pub fn scan(
    log: &ServerLog<'_>,
    query: &Query,
    wanted: &Wanted,
    limit: usize,
    progress: &mut dyn FnMut(u64, u64) -> bool,
    each: &mut dyn FnMut(Hit) -> Result<()>,
) -> Result<Scanned> {
    let query = Query { like: None, ..query.clone() };
    let mut scanned = Scanned::default();
    let (mut segments, mut total) = (Vec::new(), 0);
    for stream in log.streams() {
        let numbers = log.segments_with(&stream, &query)?;
        let stretches = log.store().stretches(&stream)?;
        for (at, stretch) in stretches.iter().enumerate().filter(|(_, s)| numbers.contains(&s.number)) {
            total += stretch.sealed.as_ref().map_or(0, |record| record.bytes);
            segments.push((stream, at));
        }
    }
    let (mut read, mut found) = (0, 0);
    for (stream, at) in segments {
        let one = Segment { log, stream, at, query: &query, wanted };
        let done = one.each(
            &mut scanned,
            &mut |bytes| progress(read + bytes, total.max(read + bytes)),
            &mut |hit| {
                if found >= limit {
                    return Ok(false);
                }
                found += 1;
                each(hit).map(|()| true)
            },
        )?;
        read += done.bytes;
        if done.stopped {
            scanned.more = found >= limit;
            return if scanned.more { Ok(scanned) } else { Err(Error::Interrupted) };
        }
    }
    Ok(scanned)
}

/// A segment that is read.
struct Segment<'a, 's> {
    log: &'a ServerLog<'s>,
    stream: StreamKey,
    at: usize,
    query: &'a Query,
    wanted: &'a Wanted,
}

struct Done {
    bytes: u64,
    stopped: bool,
}

impl Segment<'_, '_> {
    fn each(
        &self,
        scanned: &mut Scanned,
        progress: &mut dyn FnMut(u64) -> bool,
        each: &mut dyn FnMut(Hit) -> Result<bool>,
    ) -> Result<Done> {
        let stretches = self.log.store().stretches(&self.stream)?;
        let Some(stretch) = stretches.get(self.at) else { return Ok(Done { bytes: 0, stopped: false }) };
        let mut reader = LogReader::over(self.log.store(), &self.stream, &stretches, self.at, self.at + 1)?;
        // A transaction that began in an earlier segment has its statement there.
        reader.give_all();
        let (mut bytes, mut texts) = (0, Texts::default());
        while let Some(event) = reader.next_event()? {
            bytes += event.event.raw.len() as u64;
            if !progress(bytes) {
                return Ok(Done { bytes, stopped: true });
            }
            let fail = |source| Error::Event { file: event.file.to_owned(), source };
            texts.take(&event.event, event.format).map_err(fail)?;
            let Some(transaction) = &event.transaction else { continue };
            let gathered = std::mem::take(&mut texts);
            if event.number != stretch.number {
                continue;
            }
            scanned.transactions += 1;
            scanned.with_text += u64::from(!gathered.originals.is_empty());
            scanned.with_user += u64::from(!gathered.users.is_empty());
            let statements = transaction.statements.iter().map(|note| note.text.as_str());
            let all = || gathered.originals.iter().map(String::as_str).chain(statements.clone());
            let text = match &self.wanted.like {
                Some(pattern) => {
                    let fits = all().find(|text| like(text.as_bytes(), pattern.as_bytes()));
                    if fits.is_none() {
                        continue;
                    }
                    fits
                }
                None => all().next(),
            };
            let user = match &self.wanted.user {
                Some(wanted) => {
                    let by = gathered.users.iter().find(|user| user.split('@').next() == Some(wanted));
                    if by.is_none() {
                        continue;
                    }
                    by
                }
                None => gathered.users.first(),
            };
            let (file, number, entry) = (event.file.to_owned(), event.number, entry_of(transaction));
            if !fits(self.query, number, &file, &entry)? {
                continue;
            }
            let indexed = Indexed { file, number, life: self.log.life_of(&self.stream), entry };
            let hit = Hit { indexed, text: text.map(str::to_owned), user: user.cloned() };
            if !each(hit)? {
                return Ok(Done { bytes, stopped: true });
            }
        }
        Ok(Done { bytes, stopped: false })
    }
}

/// Whether the index would let it through.
fn fits(query: &Query, number: u64, file: &str, entry: &TxnEntry) -> Result<bool> {
    let frame = IndexFrame { number, file: file.to_owned(), complete: true, entries: vec![entry.clone()] };
    let bytes = frame.encode();
    let frame = FrameView::decode(&bytes)?;
    let wanted = query.wanted_of(frame.tables());
    let mut fits = false;
    frame.each(|entry| {
        fits = query.matches(entry, &wanted);
        Ok::<_, Error>(())
    })?;
    Ok(fits)
}

/// What the events of a transaction say besides what it does.
#[derive(Debug, Default)]
struct Texts {
    /// Original statements of row changes.
    originals: Vec<String>,
    /// `user@host` of those who ran statements.
    users: Vec<String>,
    bytes: usize,
}

impl Texts {
    fn take(
        &mut self,
        event: &Event<'_>,
        format: &FormatDescription,
    ) -> std::result::Result<(), holdfast_binlog::Error> {
        if !matches!(
            event.kind(),
            EventType::QUERY
                | EventType::QUERY_COMPRESSED
                | EventType::ROWS_QUERY
                | EventType::ANNOTATE_ROWS
                | EventType::TRANSACTION_PAYLOAD
        ) {
            return Ok(());
        }
        match event.parse(format)? {
            Body::RowsQuery(text) if self.bytes < TEXTS_BYTES_MAX => {
                self.bytes += text.len();
                self.originals.push(String::from_utf8_lossy(text).into_owned());
            }
            Body::Query(query) => {
                if let Some((user, host)) = query.vars.invoker {
                    let text = String::from_utf8_lossy;
                    self.users.push(format!("{}@{}", text(user), text(host)));
                }
            }
            Body::Payload(payload) => {
                let mut inner = payload.events(event, format)?;
                while let Some(inside) = inner.next_event()? {
                    self.take(&inside, format)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
