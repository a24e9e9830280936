//! The leading session: takes the events of the log in order, on the caller's connection.
//!
//! In a serial replay it applies everything itself. With net change, rows go to the window
//! (`window.rs` applies it), and what is no change of rows, or not safe to merge, is done here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use holdfast_binlog::event::{Body, Event};
use holdfast_binlog::gtid_event::{AlterPhase, FL_PREPARED_XA, GtidDetail};
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::query::{Query, StatusVars};
use holdfast_binlog::rows::Rows;
use holdfast_binlog::statement::{Statement, Verb};
use holdfast_binlog::tables::TableCache;
use holdfast_binlog::transaction::{Assembler, Pushed, RowCounts, Transaction};
use holdfast_binlog::{FormatDescription, Walker, encode};
use holdfast_format::gtid::{Gtid, GtidSet, MariaDbBinlogState};
use holdfast_mysql::Conn;

use super::cascades::Cascades;
use super::change::Given;
use super::kinds::Kinds;
use super::load::Files;
use super::sender::{SendError, Sender};
use super::temporary::Temporaries;
use super::{Limit, Options, Outcome, Progress, give_format, prepare};
use crate::ahead::{self, Events};
use crate::appliers::Running;
use crate::batch::{Batch, statement as binlog_statement};
use crate::checkpoint::{self, Checkpoint, Intent};
use crate::ddl;
use crate::error::Error;
use crate::log::{EventPlace, Log};
use crate::net::Net;
use crate::scan::Summary;
use crate::session::{self, RowSessions, Session};

/// Row data of a group of transactions after which it is committed: some thousand rows, so
/// that a commit costs little beside them and a rollback after a kill is short.
const GROUP_BYTES: u64 = 512 << 10;

/// Transactions in a group: progress stands still for as long as the server takes for them.
const GROUP_TRANSACTIONS: u64 = 500;

/// The transaction that is under way.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// Not to be applied: it is behind the checkpoint or in the base.
    pub(super) skip: bool,
    /// Rows of a table without transactions: the checkpoint must follow at once.
    pub(super) alone: bool,
    /// Some of its rows are taken.
    pub(super) rows: bool,
    /// A CREATE .. SELECT of MySQL: nothing but its rows may come before COMMIT.
    pub(super) ctas: bool,
    /// A statement ran that committed and moved the checkpoint.
    pub(super) noted: bool,
    /// MariaDB's two-phase ALTER.
    pub(super) alter: Option<AlterPhase>,
    /// BEGIN, or MariaDB's GTID event that says as much.
    pub(super) begun: bool,
    /// Its rows are applied here, whatever the mode: they belong to a statement, or a part of
    /// it was rolled back.
    pub(super) here: bool,
    /// Row events behind us.
    pub(super) row_events: u64,
    /// The session of its rows; `None`: nothing said one.
    pub(super) session: Option<Arc<str>>,
    /// An XA transaction: the statement that begins it.
    pub(super) xa: Option<Vec<u8>>,
    /// Something is in it, whether it is applied or not.
    pub(super) changes: bool,
    /// Rows are in it: what it changes on the source, it changes here.
    pub(super) has_rows: bool,
    /// Its statements changed rows here.
    pub(super) has_effect: bool,
    /// Values that the source gave to the next statement.
    pub(super) given: Given,
    /// Files for LOAD DATA.
    pub(super) files: Files,
    /// Its rows follow a definition: what was noted of the table before it.
    pub(super) before: Vec<u8>,
}

impl Current {
    fn with_rows(&mut self) {
        (self.changes, self.has_rows) = (true, true);
    }

    /// Do its rows go to the window, if there is one?
    pub(super) fn to_window(&self) -> bool {
        !self.skip && !self.here && !self.ctas && !self.alone
    }
}

pub(crate) struct Lead<'a> {
    pub(super) conn: &'a mut Conn,
    pub(super) progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    pub(super) report: Progress,
    /// Net change, if rows are not applied one by one.
    pub(super) net: Option<Net<'a>>,
    pub(super) options: &'a Options,
    pub(super) mariadb: bool,
    pub(super) packet_max: u64,
    pub(super) checkpoint: Checkpoint,
    pub(super) session: Session,
    row_sessions: RowSessions,
    pub(super) tables: TableCache,
    pub(super) batch: Batch,
    /// Where the first event in the batch lies.
    pub(super) batch_since: EventPlace,
    /// Format description that our session was given.
    pub(super) format: Option<FormatDescription>,
    pub(super) current: Option<Current>,
    /// A transaction of ours is open on the server.
    pub(super) open: bool,
    /// Whole transactions of the source in it, and the row data of all.
    pub(super) group: (u64, u64),
    /// The counters before it are on record.
    pub(super) counted: bool,
    pub(super) place: EventPlace,
    /// Transactions of the log so far.
    pub(super) seen: u64,
    pub(super) applied: u64,
    pub(super) in_base: u64,
    /// Rows handed to the server.
    pub(super) written: u64,
    pub(super) gtids: GtidSet,
    pub(super) binlog_state: MariaDbBinlogState,
    pub(super) summary: Summary,
    pub(super) flush_privileges: bool,
    /// What is known of tables; forgotten with every definition.
    pub(super) kinds: Kinds,
    /// Rows that cascades of the statement under way reached.
    pub(super) cascades: Cascades,
    /// XA transactions that are prepared on the copy.
    pub(super) prepared: BTreeSet<String>,
    /// XA transactions that were prepared without a change: no server keeps them over a restart.
    pub(super) prepared_empty: BTreeSet<String>,
    /// XA transactions that were prepared with statements alone, which changed nothing, as far as is known.
    /// Of each: did the server list it when this call began?
    pub(super) prepared_by_text: BTreeMap<String, bool>,
    /// Temporary tables of the source's connections.
    pub(super) temporaries: Temporaries,
}

impl<'a> Lead<'a> {
    pub(crate) fn open(
        conn: &'a mut Conn,
        options: &'a Options,
        progress: &'a mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let mariadb = prepare(conn)?;
        let setup = || Error::server("preparing the session");
        // A call that was killed in the middle of a LOAD DATA left it on.
        conn.execute("SET GLOBAL local_infile = 0").map_err(setup())?;
        let packet = conn.query_text("SELECT @@max_allowed_packet").map_err(setup())?;
        let packet_max = packet.and_then(|text| text.parse().ok()).unwrap_or(1 << 20);
        checkpoint::alone(conn)?;
        if mariadb {
            ddl::become_admin(conn, true)?;
        }
        let checkpoint = checkpoint::open(conn, &options.plan, &options.boot_id, options.done)?;
        let prepared = super::xa::prepared(conn)?;
        let mut binlog_state = MariaDbBinlogState::default();
        if let GtidSet::MariaDb(pos) = &options.base {
            binlog_state = pos.iter().collect();
        }
        Ok(Self {
            conn,
            progress,
            report: Progress::default(),
            net: None,
            options,
            mariadb,
            packet_max,
            checkpoint,
            session: Session::new(mariadb),
            row_sessions: RowSessions::new(mariadb),
            tables: TableCache::default(),
            batch: Batch::default(),
            batch_since: EventPlace::default(),
            format: None,
            current: None,
            open: false,
            group: (0, 0),
            counted: false,
            place: EventPlace::default(),
            seen: 0,
            applied: 0,
            in_base: 0,
            written: 0,
            gtids: options.base.clone(),
            binlog_state,
            summary: Summary::default(),
            flush_privileges: false,
            kinds: Kinds::default(),
            cascades: Cascades::default(),
            prepared,
            prepared_empty: BTreeSet::new(),
            prepared_by_text: BTreeMap::new(),
            temporaries: Temporaries::default(),
        })
    }

    /// What was on record when this call began.
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(crate) fn conn(&mut self) -> &mut Conn {
        self.conn
    }

    /// Lets rows go to a window of net change.
    pub(crate) fn use_net(&mut self, net: Net<'a>) {
        self.net = Some(net);
    }

    /// Replays the log.
    pub(crate) fn run(mut self, log: &dyn Log) -> Result<Outcome, Error> {
        if self.net.is_none() && self.checkpoint.window.is_some() {
            return Err(Error::WindowUnderWay);
        }
        self.set_counters_back()?;
        match ahead::read(log, |events| self.take_all(events)) {
            Ok(()) => self.outcome(),
            // The window before may be applied still: it is a good one, and what is to be done differently begins behind it.
            Err(error @ Error::Surprise { .. }) => Err(self.land_before(error)),
            Err(error) => Err(error),
        }
    }

    fn take_all(&mut self, events: &mut Events<'_>) -> Result<(), Error> {
        let (mut walker, mut assembler) = (Walker::behind_another(), Assembler::new());
        while let Some((place, bytes)) = events.next()? {
            walker.set_position(place.position);
            let event = walker.whole(bytes).map_err(Error::binlog(place))?;
            self.report.bytes += bytes.len() as u64;
            let Some(format) = walker.format() else { continue };
            let body = event.parse(format).map_err(Error::binlog(place))?;
            let pushed = assembler.push_body(&event, &body, format).map_err(Error::binlog(place))?;
            self.place.go_to(place);
            self.event(place, &event, body, format)?;
            if let Pushed::End(transaction) = pushed {
                self.end(&transaction)?;
                self.report.transactions = self.seen;
                self.report.rows = self.summary.rows;
                self.report.consistent_through_micros = transaction.commit_micros;
                if self.tell().is_break() {
                    // A window is not worth applying for somebody who wants to stop.
                    if self.net.is_none() {
                        self.commit_group()?;
                    }
                    return Err(Error::Stopped(self.seen));
                }
            }
        }
        self.commit_group()
    }

    /// Tells whoever waits how far it is.
    pub(super) fn tell(&mut self) -> ControlFlow<()> {
        let running = self.net.as_ref().and_then(|net| net.running.as_ref());
        self.report.written = self.written + running.map_or(0, Running::rows_done);
        self.report.notes = self.net.as_mut().map(|net| std::mem::take(&mut net.news)).unwrap_or_default();
        (self.progress)(&self.report)
    }

    fn outcome(self) -> Result<Outcome, Error> {
        if self.seen < self.checkpoint.done {
            return Err(Error::LogShrank { available: self.seen, applied: self.checkpoint.done });
        }
        if self.flush_privileges {
            self.conn.execute("FLUSH PRIVILEGES").map_err(Error::server("reloading privileges"))?;
        }
        Ok(Outcome {
            applied: self.applied,
            resumed_after: self.checkpoint.done,
            in_base: self.in_base,
            written: self.written,
            gtids: self.gtids,
            binlog_state: self.binlog_state,
            summary: self.summary,
            classes: self.net.map(|net| net.classes).unwrap_or_default(),
            prepared: self.prepared.into_iter().collect(),
        })
    }

    /// Takes an event, inside a payload or not.
    fn event(
        &mut self,
        place: &EventPlace,
        event: &Event<'_>,
        body: Body<'_>,
        format: &FormatDescription,
    ) -> Result<(), Error> {
        let flaw = |flaw| Error::Encode { place: place.clone(), flaw };
        match body {
            Body::FormatDescription(found) => {
                if self.current.is_none() {
                    self.tables.clear();
                    if found.created != 0 {
                        self.end_temporaries()?;
                    }
                }
                self.describe(event, found)?;
            }
            Body::Gtid(gtid) => self.begin(gtid.gtid.as_ref(), &gtid.detail)?,
            Body::Rotate { .. } | Body::Stop if self.current.is_none() => self.tables.clear(),
            Body::Query(query) => {
                let mut scratch = Vec::new();
                let text = query.text(&mut scratch).map_err(flaw)?.to_vec();
                self.query(event, &query, &text)?;
            }
            Body::TableMap(map) => {
                self.tables.insert(&map).map_err(flaw)?;
                if !self.current_ref().skip {
                    // May commit what came before, so the batch must not hold the map yet.
                    self.note_non_transactional(map.table_id)?;
                    if self.net.is_some() && self.current_ref().to_window() {
                        return self.window_map(place, event, map.table_id);
                    }
                    if self.batch.is_empty() {
                        self.batch_since = place.clone();
                    }
                    self.batch.table_map(event).map_err(flaw)?;
                }
            }
            Body::Rows(rows) if !self.current_ref().skip => {
                self.current_ref().with_rows();
                let mended = self.mended(&rows)?;
                let rows = mended.as_deref().map_or(rows, |data| Rows { data, ..rows });
                if mended.is_some() && rows.data.is_empty() {
                    return self.without_rows(rows.flags);
                }
                if self.is_inside(&rows) {
                    return match &mut self.net {
                        Some(net) => net.window.end_of(rows.flags, place).map_err(flaw),
                        None => Ok(()),
                    };
                }
                if self.net.is_some() && self.current_ref().to_window() {
                    return self.window_rows(place, &event.header, &rows);
                }
                self.open_transaction()?;
                self.current_ref().rows = true;
                self.group.1 += rows.data.len() as u64;
                let since = self.batch_since.clone();
                let mut sender =
                    Sender { conn: self.conn, place, since: &since, packet_max: self.packet_max };
                let mut send = |events: &[u8]| sender.send(events);
                let apart = rows.kind.change == RowChange::Update
                    && self.tables.get(rows.table_id).is_some_and(|table| self.kinds.apart(&table.key));
                let taken = if apart {
                    self.batch.rows_apart(&event.header, &rows, &mut self.tables, &mut send)
                } else {
                    self.batch.rows(&event.header, &rows, &mut self.tables, &mut send)
                };
                taken.map_err(|e: SendError| e.into_error(place))?;
            }
            Body::Rows(_) => self.current_ref().with_rows(),
            Body::XaPrepare { one_phase, xid } => self.xa_prepare(one_phase, &xid)?,
            Body::IntVar { insert_id, value } => self.current_ref().given.number(insert_id, value),
            Body::Rand { seed1, seed2 } => self.current_ref().given.seeds(seed1, seed2),
            Body::UserVar { name, value } => self.given_variable(name, &value)?,
            Body::BeginLoad(block) | Body::AppendBlock(block) => self.file_block(&block)?,
            Body::OldLoad if !self.current_ref().skip => {
                return Err(Error::Refused(format!(
                    "LOAD DATA as an old server logs it, at {place}, can't be replayed: scan the range first"
                )));
            }
            Body::DeleteFile { file_id } => self.current_ref().files.forget(file_id),
            Body::ExecuteLoad { file_id, query, name, duplicates } => {
                self.load(event, &query, file_id, name, duplicates)?;
            }
            // No server packs statements that change rows.
            Body::Payload(_) if self.current_ref().skip => self.current_ref().with_rows(),
            Body::Payload(payload) => {
                let mut events = payload.events(event, format).map_err(Error::binlog(place))?;
                while let Some(inner) = events.next_event().map_err(Error::binlog(place))? {
                    let body = inner.parse(format).map_err(Error::binlog(place))?;
                    self.event(place, &inner, body, format)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn current_ref(&mut self) -> &mut Current {
        let skip = self.seen < self.checkpoint.done;
        self.current.get_or_insert_with(|| Current { skip, ..Current::default() })
    }

    /// Gives our session the log's format, when it is another one than before.
    fn describe(&mut self, event: &Event<'_>, found: FormatDescription) -> Result<(), Error> {
        let same = |a: &FormatDescription| {
            a.server_version == found.server_version && a.post_header_lengths == found.post_header_lengths
        };
        if self.format.as_ref().is_some_and(same) {
            return Ok(());
        }
        self.commit_group()?;
        let mut bytes = Vec::new();
        encode::format_description_off(event, &mut bytes)
            .map_err(|flaw| Error::Encode { place: self.place.clone(), flaw })?;
        let statement = binlog_statement(&bytes);
        give_format(self.conn, &statement)?;
        if let Some(net) = &mut self.net {
            net.format = (net.format.0 + 1, statement);
        }
        self.format = Some(found);
        Ok(())
    }

    fn begin(&mut self, gtid: Option<&Gtid>, detail: &GtidDetail) -> Result<(), Error> {
        let in_base = gtid.is_some_and(|gtid| self.options.base.contains(gtid));
        let mut current = Current { skip: self.seen < self.checkpoint.done || in_base, ..Current::default() };
        if in_base {
            self.in_base += 1;
        }
        if let GtidDetail::MariaDb { flags, alter, .. } = detail {
            current.begun = flags & holdfast_binlog::gtid_event::FL_STANDALONE == 0;
            current.alter = *alter;
        }
        // While locks of prepared transactions stand, nothing may wait for them out of order.
        let held = !self.prepared.is_empty();
        current.here = self.net.as_ref().is_some_and(|net| held || net.one_by_one(self.seen));
        self.current = Some(current);
        match detail {
            GtidDetail::MariaDb { flags, xa: Some(id), .. } if flags & FL_PREPARED_XA != 0 => {
                let name = super::xa::name(id);
                self.begin_xa(format!("XA START {name}").into_bytes(), &name)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Was a row event of a transaction that is applied in part applied already?
    fn is_inside(&mut self, rows: &Rows<'_>) -> bool {
        let (inside, first) = (self.checkpoint.inside, self.seen == self.checkpoint.done);
        let current = self.current_ref();
        let applied = first && current.row_events < inside && !rows.is_dummy();
        current.row_events += u64::from(applied);
        applied
    }

    /// The session of the rows of the transaction under way.
    pub(super) fn rows_session(&self) -> String {
        let said = self.current.as_ref().and_then(|current| current.session.as_deref());
        said.map_or_else(|| session::rows_default(self.mariadb), str::to_owned)
    }

    pub(super) fn open_transaction(&mut self) -> Result<(), Error> {
        self.drain()?;
        if !self.open {
            if self.mariadb {
                // MySQL's BEGIN event carries the session; MariaDB's GTID event doesn't, and a
                // definition may have left any session behind.
                self.session.apply(self.conn, &StatusVars::default())?;
            }
            let begin = self.current_ref().xa.clone().unwrap_or_else(|| b"BEGIN".to_vec());
            self.conn.execute(begin).map_err(Error::server("beginning a transaction"))?;
            self.open = true;
        }
        Ok(())
    }

    /// Rows of tables without transactions stay when the server is killed before the
    /// checkpoint: that they are under way must be on record first, and a call that finds the
    /// record can't tell which of them were applied.
    fn note_non_transactional(&mut self, table_id: u64) -> Result<(), Error> {
        // Only engines with transactions take part in an atomic CREATE .. SELECT, and the server
        // answers no question (3977) before its COMMIT.
        if self.current_ref().ctas {
            return Ok(());
        }
        let Some(key) = self.tables.get(table_id).map(|table| Arc::clone(&table.key)) else {
            return Ok(());
        };
        let transactional = self.kinds.of(self.conn, &key)?;
        if transactional {
            return Ok(());
        }
        self.stand_alone(&format!("rows of {key}"))
    }

    /// The transaction under way changes a table without transactions: that is noted first.
    pub(super) fn stand_alone(&mut self, what: &str) -> Result<(), Error> {
        if self.current_ref().alone {
            return Ok(());
        }
        self.current_ref().alone = true;
        // A transaction of the source with InnoDB rows before these can't be cut here. No
        // server logs one: changes without transactions come in a group of their own.
        if self.current_ref().rows {
            return Ok(());
        }
        self.commit_group()?;
        if self.net.is_some() && !self.mariadb {
            let session = self.rows_session();
            self.session.apply_text(self.conn, &session)?;
        }
        if self.checkpoint.intent.take_if(|intent| intent.number == self.seen).is_some() {
            return Err(Error::NonTransactional { what: what.to_owned(), place: self.place.clone() });
        }
        // A table that this transaction made is dropped and made anew, so its rows may be there in part.
        let before = self.current_ref().before.clone();
        checkpoint::intend(self.conn, &Intent { number: self.seen, before })
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let (place, since) = (self.place.clone(), self.batch_since.clone());
        let mut sender =
            Sender { conn: self.conn, place: &place, since: &since, packet_max: self.packet_max };
        let mut send = |events: &[u8]| sender.send(events);
        self.batch.flush(&mut send).map_err(|e: SendError| e.into_error(&place))
    }

    fn query(&mut self, event: &Event<'_>, query: &Query<'_>, text: &[u8]) -> Result<(), Error> {
        let statement = Statement::classify(text, query.vars.sql_mode.unwrap_or(0));
        let windowed = self.net.is_some();
        let current = self.current_ref();
        let windowed = windowed && !current.here;
        if statement.verb == Verb::Begin {
            current.begun = true;
        }
        if matches!(statement.verb, Verb::Dml | Verb::Ddl) {
            current.changes = true;
        }
        if statement.verb == Verb::Xa {
            return self.xa(query, text);
        }
        if current.skip {
            self.temporaries.skipped(query, &statement);
            return Ok(());
        }
        match statement.verb {
            // The rows of the transaction are applied in its session.
            Verb::Begin if windowed => {
                let session = self.row_sessions.text(&query.vars);
                self.current_ref().session = Some(session);
                Ok(())
            }
            Verb::Begin => {
                if self.session.differs(&query.vars) {
                    self.commit_group()?;
                }
                self.session.apply(self.conn, &query.vars)
            }
            Verb::Commit | Verb::Rollback => Ok(()),
            // Nothing of this transaction was rolled back: see the scan.
            Verb::Savepoint | Verb::Release if windowed => Ok(()),
            Verb::Savepoint | Verb::Release | Verb::RollbackTo => {
                self.flush()?;
                self.open_transaction()?;
                self.conn.execute(text).map_err(Error::server("setting a savepoint"))?;
                Ok(())
            }
            Verb::Maintenance => {
                let upper = text.get(..16).unwrap_or(text).to_ascii_uppercase();
                if upper.starts_with(b"FLUSH PRIVILEGES") {
                    // What follows may be about accounts whose rows were written before it.
                    self.commit_group()?;
                    self.conn.execute("FLUSH PRIVILEGES").map_err(Error::server("reloading privileges"))?;
                }
                Ok(())
            }
            Verb::Dml => self.change(event, query, text),
            Verb::Ddl if statement.temporary => self.temporary(event, query, text, &statement),
            Verb::Ddl | Verb::Acl | Verb::CtasStart => self.definition(event, query, text, &statement),
            other => Err(Error::Refused(format!(
                "`{}` at {} can't be replayed ({other:?}): scan the range first",
                String::from_utf8_lossy(text.get(..80).unwrap_or(text)),
                self.place
            ))),
        }
    }

    /// A transaction of the log is complete.
    fn end(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let current = self.current.take().unwrap_or_default();
        if !current.skip || current.noted {
            self.applied += 1;
        }
        self.seen += 1;
        let here = self.net.is_none() || !current.to_window();
        self.report.limit = if here && !current.skip { Limit::OneByOne } else { Limit::Log };
        if !current.skip && !current.noted && here {
            self.written += transaction.tables.values().map(RowCounts::total).sum::<u64>();
            self.group.0 += 1;
            let (transactions, bytes) = self.group;
            if current.ctas {
                self.commit_ctas()?;
            } else if current.alone
                || self.net.is_some()
                || transactions >= GROUP_TRANSACTIONS
                || bytes >= GROUP_BYTES
            {
                self.commit_group()?;
            }
        }
        // What was refused is told at once, and not when the next window is full.
        if self.net.as_ref().and_then(|net| net.running.as_ref()).is_some_and(Running::has_failed) {
            self.land()?;
        }
        if self.net.as_ref().is_some_and(|net| net.is_due(self.seen, 0) || net.can_begin()) {
            self.launch()?;
        }
        self.flush_privileges |= transaction.tables.keys().any(|key| key.database == "mysql");
        self.summary.add(transaction, &Arc::clone(&self.place.file));
        if let Some(gtid) = &transaction.gtid {
            self.gtids.add(gtid)?;
            if let Gtid::MariaDb(gtid) = gtid {
                self.binlog_state.update(*gtid);
            }
        }
        Ok(())
    }

    /// Commits the transactions of the source that are in ours, together with their
    /// checkpoint. Must only be called between transactions of the source, or before the
    /// first change of one.
    pub(super) fn commit_group(&mut self) -> Result<(), Error> {
        self.drain()?;
        self.group = (0, 0);
        self.counted = false;
        if !self.open {
            return Ok(());
        }
        self.flush()?;
        let doing = || Error::server("committing");
        self.conn.execute(checkpoint::advance(self.seen)).map_err(doing())?;
        self.conn.execute("COMMIT").map_err(doing())?;
        self.open = false;
        Ok(())
    }

    /// Ends a CREATE .. SELECT of MySQL, then moves the checkpoint: a kill in between is seen
    /// by the table that is there although only the intent is on record.
    fn commit_ctas(&mut self) -> Result<(), Error> {
        self.flush()?;
        self.group = (0, 0);
        self.open = false;
        let doing = || Error::server("committing");
        self.conn.execute("COMMIT").map_err(doing())?;
        self.conn.execute(checkpoint::advance(self.seen)).map_err(doing())?;
        Ok(())
    }
}
