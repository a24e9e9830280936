//! Questions to an archive of many transactions: what `find`, `status` and a plan wait for, from a cold start on.
//!
//! The log is one of index frames alone, as the receiver writes them; no question here reads an event.

use std::fs;
use std::path::Path;
use std::time::Instant;

use holdfast_archive::find::{Query, find};
use holdfast_archive::storage::LogStore;
use holdfast_archive::{Indexed, ServerLog, Target};
use holdfast_format::gtid::{Flavor, Gtid, GtidSet, Tsid, Uuid};
use holdfast_format::ids::ServerId;
use holdfast_format::record::{LogRecord, Position, StreamKey};
use holdfast_format::segment::FrameKind;
use holdfast_format::txn_index::{IndexFrame, StatementText, TableChange, TxnEntry, TxnKind};
use holdfast_store::Repository;

use super::archive::new_repository;
use super::error::{Error, Result, at, sql};
use super::folder::{bytes_below, remove};
use super::measure::drop_caches;

const SERVER: ServerId = ServerId([1; 16]);
const SOURCE: Uuid = Uuid([2; 16]);
/// Offset of the first event of a file.
const FIRST_OFFSET: u64 = 4;

const BEGIN_US: i64 = 1_700_000_000_000_000;

/// Bytes of events of a transaction: some rows.
const TRANSACTION_BYTES: u64 = 600;

/// Microseconds between two commits.
const BETWEEN_US: u64 = 300;

/// Transactions of a segment: some 64 MB of events.
const SEGMENT_TRANSACTIONS: u64 = 100_000;

/// One in so many transactions is a definition, and one touches the rare table.
const RARE: u64 = 50_000;

/// A question and what it took.
#[derive(Clone, Debug)]
pub struct Answer {
    /// In words.
    pub question: &'static str,
    /// Transactions that it gave.
    pub found: u64,
    /// Seconds with an empty page cache, from opening the server's log to the last answer; the repository was open.
    pub seconds: f64,
}

/// Makes an archive of so many transactions in `work` and asks it. Gives the answers and the bytes of the repository.
///
/// # Errors
/// Those of the repository.
pub fn ask(work: &Path, transactions: u64) -> Result<(Vec<Answer>, u64)> {
    let dir = work.join("asked");
    remove(&dir)?;
    at("make", &dir, fs::create_dir_all(&dir))?;
    let repository = new_repository(&dir)?;
    fill(&repository, transactions)?;
    let bytes = bytes_below(&dir)?;
    let last_us = BEGIN_US + micros(transactions);
    let table = |name: &str| Query { table: Some(name.to_owned()), ..Query::default() };
    let asked: [(&'static str, Query); 4] = [
        ("find --ddl", Query { ddl: true, ..Query::default() }),
        ("find --like 'DROP%'", Query { like: Some("DROP%".to_owned()), ..Query::default() }),
        ("find --table shop.rare", table("shop.rare")),
        (
            "find --since (10 s before the end)",
            Query { since_us: Some(last_us - 10_000_000), ..Query::default() },
        ),
    ];
    let mut answers = Vec::new();
    for (question, query) in &asked {
        answers.push(answer(&repository, question, |log| {
            let mut found = 0;
            let mut count = |_: Indexed| {
                found += 1;
                Ok(())
            };
            sql(find(log, query, usize::MAX, &mut count))?;
            Ok(found)
        })?);
    }
    answers.push(answer(&repository, "what is covered (status)", |log| {
        let coverage = sql(log.coverage())?;
        let first = coverage.first().map(|interval| interval.begin);
        let moments = first.map(|base| sql(log.moments(base))).transpose()?.flatten();
        moments.map(|_| coverage.iter().map(|i| i.transactions).sum()).ok_or_else(|| nothing("no moment"))
    })?);
    let middle = BEGIN_US + micros(transactions / 2);
    answers.push(answer(&repository, "restore --to a time (its plan)", |log| {
        let cut = sql(log.resolve(&Target::Time(middle)))?.map_err(|hole| nothing(&hole.reason))?;
        Ok(sql(log.size(cut.place, log.end().unwrap_or(cut.place)))?.transactions)
    })?);
    drop(repository);
    remove(&dir)?;
    Ok((answers, bytes))
}

fn nothing(why: &str) -> Error {
    Error::Server(format!("the archive of the bench can't be asked: {why}"))
}

fn micros(transactions: u64) -> i64 {
    i64::try_from(transactions * BETWEEN_US).unwrap_or(i64::MAX)
}

fn answer(
    repository: &Repository,
    question: &'static str,
    ask: impl FnOnce(&ServerLog<'_>) -> Result<u64>,
) -> Result<Answer> {
    // Where it is not allowed, the figures are warm ones: reading some MB is the least of it.
    let _ = drop_caches();
    let began = Instant::now();
    let log = sql(ServerLog::open(repository, SERVER))?;
    let found = ask(&log)?;
    Ok(Answer { question, found, seconds: began.elapsed().as_secs_f64() })
}

fn fill(repository: &Repository, transactions: u64) -> Result<()> {
    let nothing = GtidSet::empty(Flavor::MySql);
    let opening = format_description();
    let bytes = opening.len() as u64;
    // The moment at which the log begins is read from its first event.
    let first = Span { number: 0, first: 0, end: 0, bytes, before: &nothing, after: &nothing };
    first.write(repository, FrameKind::LogEvents, vec![opening])?;
    let mut before = nothing.clone();
    for k in 0..transactions.div_ceil(SEGMENT_TRANSACTIONS) {
        let (first, end) = (k * SEGMENT_TRANSACTIONS, ((k + 1) * SEGMENT_TRANSACTIONS).min(transactions));
        let after = sql(GtidSet::parse(Flavor::MySql, &format!("{SOURCE}:1-{end}")))?;
        let bytes = (end - first) * TRANSACTION_BYTES;
        let span = Span { number: k + 1, first, end, bytes, before: &before, after: &after };
        let entries = (first..end).map(|n| entry(n, n - first)).collect();
        let frames = IndexFrame::split(span.number, &span.file(), entries, true);
        span.write(repository, FrameKind::LogIndex, frames.iter().map(IndexFrame::encode).collect())?;
        before = after;
    }
    Ok(())
}

/// A segment of the log: a file of the source with the transactions from `first` up to `end`.
struct Span<'a> {
    number: u64,
    first: u64,
    end: u64,
    bytes: u64,
    before: &'a GtidSet,
    after: &'a GtidSet,
}

impl Span<'_> {
    fn file(&self) -> String {
        format!("binlog.{:06}", self.number + 1)
    }

    fn write(&self, repository: &Repository, kind: FrameKind, frames: Vec<Vec<u8>>) -> Result<()> {
        let stream = StreamKey { server: SERVER, source_uuid: SOURCE, incarnation: 0 };
        let place = |offset, gtid: &GtidSet| Position { file: self.file(), offset, gtid: gtid.clone() };
        let start = place(FIRST_OFFSET, self.before);
        let mut writer = sql(repository.begin(&stream, &start))?;
        let transactions = self.end - self.first;
        let at = |n: u64| if transactions == 0 { 0 } else { BEGIN_US + micros(n) };
        let record = LogRecord {
            stream,
            number: self.number,
            segment: writer.segment(),
            first: start,
            last: place(FIRST_OFFSET + self.bytes, self.after),
            gtid_before: self.before.clone(),
            gtid_after: self.after.clone(),
            first_us: at(self.first),
            last_us: at(self.end.saturating_sub(1)),
            transactions,
            events: 0,
            bytes: self.bytes,
        };
        for frame in frames {
            sql(writer.append(kind, &frame))?;
        }
        sql(writer.seal(record))
    }
}

/// An event that says of the log no more than when it was begun.
fn format_description() -> Vec<u8> {
    let mut event = u32::try_from(BEGIN_US / 1_000_000 - 10).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    // Type 15, server 1, its length, where it ends, no flags; then binlog version 4.
    event.extend([15, 1, 0, 0, 0, 81, 0, 0, 0, 85, 0, 0, 0, 0, 0, 4, 0]);
    // The server's version, in 50 bytes, and when the log was made.
    event.extend([0; 54]);
    // Headers of 19 bytes, no type has a length of its own, no checksums; four bytes where one would be.
    event.extend([19, 0, 0, 0, 0, 0]);
    event
}

/// Transaction `n`, the `k`th of its file: one to three of twenty tables.
fn entry(n: u64, k: u64) -> TxnEntry {
    let change = |table: String| TableChange {
        database: b"shop".to_vec(),
        table: table.into_bytes(),
        inserted: 1,
        updated: n % 3,
        deleted: n % 2,
    };
    let start = FIRST_OFFSET + k * TRANSACTION_BYTES;
    let mut entry = TxnEntry {
        gtid: Some(Gtid::MySql { tsid: Tsid { sid: SOURCE, tag: Default::default() }, gno: n + 1 }),
        start,
        end: start + TRANSACTION_BYTES,
        commit_us: BEGIN_US + micros(n),
        kind: TxnKind::Rows,
        tables: (0..=n % 3).map(|t| change(format!("t{}", (n * 7 + t) % 20))).collect(),
        tables_cut: false,
        rolled_back: false,
        statement: None,
    };
    if n % RARE == RARE / 2 {
        entry.kind = TxnKind::Ddl;
        let text = format!("DROP TABLE shop.t{}", n % 20).into_bytes();
        entry.statement = Some(StatementText { database: b"shop".to_vec(), text, cut: false });
    } else if n % RARE == RARE / 4 {
        entry.tables.push(change("rare".to_owned()));
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_finds_what_was_put_in() {
        let top = tempfile::tempdir().unwrap();
        let (answers, bytes) = ask(top.path(), 110_000).unwrap();
        let found: Vec<u64> = answers.iter().map(|a| a.found).collect();
        assert_eq!(found, [2, 2, 2, 10_000_000 / BETWEEN_US, 110_000, 55_000 - 1], "{answers:?}");
        assert!(bytes > 0);
    }
}
