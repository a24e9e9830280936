//! The serial applier: the source's transactions one by one, in the source's order, on one
//! connection to a private server.
//!
//! Rows go as `BINLOG '..'`, their flags bit for bit, so no trigger fires, no type is
//! converted, and cascades happen where the source's did. Definitions and accounts go as text
//! in the session that they ran in.
//!
//! Nobody reads the server meanwhile, so small transactions of the source that follow each
//! other share one of ours, in the same order, with one checkpoint for all of them: a kill
//! loses the whole group or none of it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use holdfast_binlog::event::{Body, Event, FLAG_SUPPRESS_USE};
use holdfast_binlog::gtid_event::{AlterPhase, GtidDetail};
use holdfast_binlog::payload::inner_events;
use holdfast_binlog::query::{Query, StatusVars};
use holdfast_binlog::statement::{Action, Object, Statement, Verb};
use holdfast_binlog::tables::{TableCache, TableKey};
use holdfast_binlog::transaction::{Assembler, Pushed, Transaction};
use holdfast_binlog::{FormatDescription, Walker, encode};
use holdfast_format::gtid::{Flavor, Gtid, GtidSet, MariaDbBinlogState};
use holdfast_mysql::Conn;

use crate::batch::{Batch, statement as binlog_statement};
use crate::checkpoint::{self, Checkpoint, Intent};
use crate::ddl;
use crate::error::Error;
use crate::log::{EventPlace, Log};
use crate::scan::Summary;
use crate::session::Session;

/// Longest silence of the server within one statement: an ALTER of a table of many
/// terabytes takes days, a server that died is seen by its closed socket at once.
const STATEMENT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Row data of a group of transactions after which it is committed: some thousand rows, so
/// that a commit costs little beside them and a rollback after a kill is short.
const GROUP_BYTES: u64 = 512 << 10;

/// Transactions in a group: progress stands still for as long as the server takes for them.
const GROUP_TRANSACTIONS: u64 = 500;

/// What a replay is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names base, log and cut; a half-done replay goes on only under the same name.
    pub plan: String,
    /// The host's boot id (`/proc/sys/kernel/random/boot_id`): a replay doesn't sync, so it
    /// can't go on behind a crash of the host.
    pub boot_id: String,
    /// What the base holds; transactions in it are not applied.
    pub base: GtidSet,
}

/// Options for a private server on which a replay runs: nothing is synced, a crash of the
/// process is survived, one of the host is not (see [`Options::boot_id`]).
#[must_use]
pub fn server_args(flavor: Flavor) -> Vec<String> {
    let mut args = vec![
        // Not 0: what a killed server forgets of InnoDB it must also forget of accounts and
        // definitions, which MariaDB keeps in files of their own.
        "--innodb-flush-log-at-trx-commit=2".to_owned(),
        "--max-allowed-packet=1G".to_owned(),
        "--transaction-isolation=READ-COMMITTED".to_owned(),
        "--performance-schema=OFF".to_owned(),
    ];
    if flavor == Flavor::MariaDb {
        args.push("--loose-slave-run-triggers-for-rbr=NO".to_owned());
    }
    args
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Transactions of the log that are behind us; the last few hundred may not be committed yet.
    pub transactions: u64,
    /// Their row changes.
    pub rows: u64,
    /// Bytes of log read.
    pub bytes: u64,
    /// The copy is as the source was at this commit time, microseconds of Unix time.
    pub consistent_through_micros: u64,
}

/// What a replay did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Transactions applied by this call.
    pub applied: u64,
    /// Transactions that were applied before, by an earlier call.
    pub resumed_after: u64,
    /// Transactions that the base held already.
    pub in_base: u64,
    /// Everything that the copy now holds: base and log.
    pub gtids: GtidSet,
    /// MariaDB: the same by domain and server.
    pub binlog_state: MariaDbBinlogState,
    /// What was in the range.
    pub summary: Summary,
}

/// Applies the log to the server behind `conn`. May be killed at any moment; the same call
/// on a new connection goes on. Scan the range first ([`crate::scan::scan`]).
///
/// # Errors
/// Fails when the log can't be read, when something in it can't be replayed, and when the
/// server refuses what succeeded on the source.
pub fn replay(
    conn: &mut Conn,
    log: &dyn Log,
    options: &Options,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let mut applier = Applier::open(conn, options)?;
    let mut reader = log.read().map_err(Error::Log)?;
    let (mut walker, mut assembler) = (Walker::default(), Assembler::new());
    let mut bytes = Vec::new();
    let mut report = Progress::default();
    while let Some(place) = reader.next(&mut bytes).map_err(Error::Log)? {
        walker.set_position(place.position);
        let event = walker.whole(&bytes).map_err(Error::binlog(&place))?;
        report.bytes += bytes.len() as u64;
        let Some(format) = walker.format() else { continue };
        let pushed = assembler.push(&event, format).map_err(Error::binlog(&place))?;
        applier.place = place.clone();
        applier.event(&event, format)?;
        if let Pushed::End(transaction) = pushed {
            applier.end(&transaction)?;
            report.transactions = applier.seen;
            report.rows = applier.summary.rows;
            report.consistent_through_micros = transaction.commit_micros;
            if progress(&report).is_break() {
                applier.commit_group()?;
                return Err(Error::Stopped(applier.seen));
            }
        }
    }
    applier.outcome()
}

/// The transaction that is under way.
#[derive(Debug, Default)]
struct Current {
    /// Not to be applied: it is behind the checkpoint or in the base.
    skip: bool,
    /// Rows of a table without transactions: the checkpoint must follow at once.
    alone: bool,
    /// Some of its rows are taken.
    rows: bool,
    /// A CREATE .. SELECT of MySQL: nothing but its rows may come before COMMIT.
    ctas: bool,
    /// A statement ran that committed and moved the checkpoint.
    noted: bool,
    /// MariaDB's two-phase ALTER.
    alter: Option<AlterPhase>,
    /// BEGIN, or MariaDB's GTID event that says as much.
    begun: bool,
}

struct Applier<'a> {
    conn: &'a mut Conn,
    options: &'a Options,
    mariadb: bool,
    packet_max: u64,
    checkpoint: Checkpoint,
    session: Session,
    tables: TableCache,
    batch: Batch,
    /// Where the first event in the batch lies.
    batch_since: EventPlace,
    /// Format description that our session was given.
    format: Option<FormatDescription>,
    current: Option<Current>,
    /// A transaction of ours is open on the server.
    open: bool,
    /// Whole transactions of the source in it, and the row data of all.
    group: (u64, u64),
    place: EventPlace,
    /// Transactions of the log so far.
    seen: u64,
    applied: u64,
    in_base: u64,
    gtids: GtidSet,
    binlog_state: MariaDbBinlogState,
    summary: Summary,
    flush_privileges: bool,
    /// Tables known to be transactional (true) or not; forgotten with every definition.
    engines: HashMap<TableKey, bool>,
}

impl<'a> Applier<'a> {
    fn open(conn: &'a mut Conn, options: &'a Options) -> Result<Self, Error> {
        let mariadb = conn.server().is_mariadb();
        conn.set_read_timeout(STATEMENT_MAX);
        let setup = || Error::server("preparing the session");
        conn.execute("SET SESSION sql_log_bin=0").map_err(setup())?;
        conn.execute("SET SESSION wait_timeout=31536000").map_err(setup())?;
        if mariadb {
            conn.execute("SET SESSION pseudo_slave_mode=1").map_err(setup())?;
        } else if conn.server().numbers() >= (8, 0, 26) {
            conn.execute("SET SESSION pseudo_replica_mode=1").map_err(setup())?;
        } else {
            conn.execute("SET SESSION pseudo_slave_mode=1").map_err(setup())?;
        }
        let packet = conn.query_text("SELECT @@max_allowed_packet").map_err(setup())?;
        let packet_max = packet.and_then(|text| text.parse().ok()).unwrap_or(1 << 20);
        checkpoint::alone(conn)?;
        if mariadb {
            ddl::become_admin(conn)?;
        }
        let checkpoint = checkpoint::open(conn, &options.plan, &options.boot_id)?;
        let mut binlog_state = MariaDbBinlogState::default();
        if let GtidSet::MariaDb(pos) = &options.base {
            binlog_state = pos.iter().collect();
        }
        Ok(Self {
            conn,
            options,
            mariadb,
            packet_max,
            checkpoint,
            session: Session::new(mariadb),
            tables: TableCache::default(),
            batch: Batch::default(),
            batch_since: EventPlace::default(),
            format: None,
            current: None,
            open: false,
            group: (0, 0),
            place: EventPlace::default(),
            seen: 0,
            applied: 0,
            in_base: 0,
            gtids: options.base.clone(),
            binlog_state,
            summary: Summary::default(),
            flush_privileges: false,
            engines: HashMap::new(),
        })
    }

    fn outcome(mut self) -> Result<Outcome, Error> {
        self.commit_group()?;
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
            gtids: self.gtids,
            binlog_state: self.binlog_state,
            summary: self.summary,
        })
    }

    /// Takes an event, inside a payload or not.
    fn event(&mut self, event: &Event<'_>, format: &FormatDescription) -> Result<(), Error> {
        let place = self.place.clone();
        let body = event.parse(format).map_err(Error::binlog(&place))?;
        let flaw = |flaw| Error::Encode { place: place.clone(), flaw };
        match body {
            Body::FormatDescription(found) => {
                if self.current.is_none() {
                    self.tables.clear();
                }
                self.describe(event, found)?;
            }
            Body::Gtid(gtid) => self.begin(gtid.gtid.as_ref(), &gtid.detail),
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
                    if self.batch.is_empty() {
                        self.batch_since = place.clone();
                    }
                    self.batch.table_map(event).map_err(flaw)?;
                }
            }
            Body::Rows(rows) if !self.current_ref().skip => {
                self.open_transaction()?;
                self.current_ref().rows = true;
                self.group.1 += rows.data.len() as u64;
                let since = self.batch_since.clone();
                let mut sender =
                    Sender { conn: self.conn, place: &place, since: &since, packet_max: self.packet_max };
                let mut send = |statement: &str| sender.send(statement);
                self.batch
                    .rows(&event.header, &rows, &mut self.tables, &mut send)
                    .map_err(|e: SendError| e.into_error(&place))?;
            }
            Body::Payload(payload) if !self.current_ref().skip => {
                let mut unpacked = Vec::new();
                payload.unpack(&mut unpacked).map_err(flaw)?;
                for inner in inner_events(&unpacked, format, event.position) {
                    let inner = inner.map_err(Error::binlog(&place))?;
                    self.event(&inner, format)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn current_ref(&mut self) -> &mut Current {
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
        self.conn
            .execute(binlog_statement(&bytes))
            .map_err(Error::server("giving it the format of the log"))?;
        if !self.mariadb {
            // MySQL takes a format description for the start of a replica's work and leaves the
            // session without a GTID to commit under: the next BEGIN would fail with 1782.
            self.conn
                .execute("SET SESSION gtid_next='AUTOMATIC'")
                .map_err(Error::server("preparing the session"))?;
        }
        self.format = Some(found);
        Ok(())
    }

    fn begin(&mut self, gtid: Option<&Gtid>, detail: &GtidDetail) {
        let in_base = gtid.is_some_and(|gtid| self.options.base.contains(gtid));
        let mut current = Current { skip: self.seen < self.checkpoint.done || in_base, ..Current::default() };
        if in_base {
            self.in_base += 1;
        }
        if let GtidDetail::MariaDb { flags, alter } = detail {
            current.begun = flags & holdfast_binlog::gtid_event::FL_STANDALONE == 0;
            current.alter = *alter;
        }
        self.current = Some(current);
    }

    fn open_transaction(&mut self) -> Result<(), Error> {
        if !self.open {
            if self.mariadb {
                // MySQL's BEGIN event carries the session; MariaDB's GTID event doesn't, and a
                // definition may have left any session behind.
                self.session.apply(self.conn, &StatusVars::default())?;
            }
            self.conn.execute("BEGIN").map_err(Error::server("beginning a transaction"))?;
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
        let Some(key) = self.tables.get(table_id).map(|table| TableKey::clone(&table.key)) else {
            return Ok(());
        };
        let transactional = match self.engines.get(&key) {
            Some(known) => *known,
            None => {
                let found = self.conn.query_text(format!(
                    "SELECT COALESCE(MAX(e.transactions), 'YES') FROM information_schema.tables t JOIN \
                     information_schema.engines e ON e.engine = t.engine \
                     WHERE t.table_schema = CONVERT({} USING utf8mb4) AND t.table_name = CONVERT({} USING utf8mb4)",
                    crate::sql::hex(key.database.as_bytes()),
                    crate::sql::hex(key.table.as_bytes())
                ));
                let found = found.map_err(Error::server("asking for the engine of a table"))?;
                let known = found.as_deref() != Some("NO");
                self.engines.insert(key.clone(), known);
                known
            }
        };
        if transactional || self.current_ref().alone {
            return Ok(());
        }
        self.current_ref().alone = true;
        // A transaction of the source with InnoDB rows before these can't be cut here. No
        // server logs one: changes without transactions come in a group of their own.
        if self.current_ref().rows {
            return Ok(());
        }
        self.commit_group()?;
        if self.checkpoint.intent.take_if(|intent| intent.number == self.seen).is_some() {
            return Err(Error::NonTransactional { table: key.to_string(), place: self.place.clone() });
        }
        checkpoint::intend(self.conn, &Intent { number: self.seen, before: Vec::new() })
    }

    fn flush(&mut self) -> Result<(), Error> {
        let (place, since) = (self.place.clone(), self.batch_since.clone());
        let mut sender =
            Sender { conn: self.conn, place: &place, since: &since, packet_max: self.packet_max };
        let mut send = |statement: &str| sender.send(statement);
        self.batch.flush(&mut send).map_err(|e: SendError| e.into_error(&place))
    }

    fn query(&mut self, event: &Event<'_>, query: &Query<'_>, text: &[u8]) -> Result<(), Error> {
        let statement = Statement::classify(text, query.vars.sql_mode.unwrap_or(0));
        let current = self.current_ref();
        if statement.verb == Verb::Begin {
            current.begun = true;
        }
        if current.skip {
            return Ok(());
        }
        match statement.verb {
            // The rows of the transaction are applied in its session.
            Verb::Begin => {
                if self.session.differs(&query.vars) {
                    self.commit_group()?;
                }
                self.session.apply(self.conn, &query.vars)
            }
            Verb::Commit | Verb::Rollback => Ok(()),
            Verb::Savepoint | Verb::Release | Verb::RollbackTo => {
                self.flush()?;
                self.open_transaction()?;
                self.conn.execute(text).map_err(Error::server("setting a savepoint"))?;
                Ok(())
            }
            Verb::Maintenance => {
                let upper = text.get(..16).unwrap_or(text).to_ascii_uppercase();
                self.flush_privileges |= upper.starts_with(b"FLUSH PRIVILEGES");
                Ok(())
            }
            Verb::Ddl if statement.temporary && statement.action == Action::Drop => Ok(()),
            Verb::Ddl | Verb::Acl | Verb::CtasStart => self.definition(event, query, text, &statement),
            other => Err(Error::Refused(format!(
                "`{}` at {} can't be replayed ({other:?}): scan the range first",
                String::from_utf8_lossy(text.get(..80).unwrap_or(text)),
                self.place
            ))),
        }
    }

    /// Runs a statement that commits by itself.
    fn definition(
        &mut self,
        event: &Event<'_>,
        query: &Query<'_>,
        text: &[u8],
        statement: &Statement,
    ) -> Result<(), Error> {
        // The first phase of MariaDB's ALTER has no effect yet, a rolled-back one has none at all.
        if matches!(self.current_ref().alter, Some(AlterPhase::Start | AlterPhase::Rollback { .. })) {
            return Ok(());
        }
        let rows_follow = statement.verb == Verb::CtasStart
            || self.current_ref().begun
                && statement.action == Action::Create
                && statement.object == Object::Table;
        self.commit_group()?;
        self.engines.clear();
        let now = ddl::definitions(self.conn, statement, query.database)?;
        let resumed = self.checkpoint.intent.take_if(|intent| intent.number == self.seen);
        if let Some(intent) = &resumed {
            if ddl::told_by_definitions(statement) && now != intent.before {
                // It took effect; of a CREATE .. SELECT of MySQL, the rows did too.
                self.current_ref().skip = true;
                return self.note_done();
            }
            if rows_follow && statement.verb != Verb::CtasStart && !statement.or_replace {
                // MariaDB: the table may be there without its rows.
                self.drop_created(statement, query.database)?;
            }
        }
        checkpoint::intend(self.conn, &Intent { number: self.seen, before: now })?;
        self.session.apply(self.conn, &query.vars)?;
        self.session.at(self.conn, event.header.timestamp, query.vars.microseconds.unwrap_or(0))?;
        if event.header.flags & FLAG_SUPPRESS_USE == 0 {
            self.session.use_database(self.conn, query.database)?;
        }
        let rewritten = self.mariadb.then(|| ddl::with_admin(text, statement, query.vars.invoker)).flatten();
        if let Err(source) = self.conn.execute(rewritten.as_deref().unwrap_or(text)) {
            self.failed(text, statement, resumed.is_some(), source)?;
        }
        if self.mariadb && statement.object == Object::Account && statement.action == Action::Create {
            ddl::become_admin(self.conn)?;
        }
        ddl::grant_routine(self.conn, statement, query.vars.invoker, query.database)?;
        if matches!(statement.object, Object::Database) {
            self.session.forget_database();
        }
        if statement.verb == Verb::CtasStart {
            // Atomic in MySQL: the transaction goes on, only rows and COMMIT may follow.
            self.open = true;
            self.current_ref().ctas = true;
            return Ok(());
        }
        if rows_follow {
            return Ok(());
        }
        self.note_done()
    }

    /// A statement failed: is it because it took effect before a kill?
    fn failed(
        &mut self,
        text: &[u8],
        statement: &Statement,
        resumed: bool,
        source: holdfast_mysql::Error,
    ) -> Result<(), Error> {
        let what = || String::from_utf8_lossy(text.get(..200).unwrap_or(text)).into_owned();
        let source = Box::new(source);
        match source.as_ref() {
            holdfast_mysql::Error::Server(error) if resumed => {
                if ddl::had_taken_effect(statement, error.code) {
                    return Ok(());
                }
                Err(Error::HalfDone { statement: what(), place: self.place.clone(), source })
            }
            holdfast_mysql::Error::Server(_) => {
                Err(Error::Diverged { what: format!("`{}`", what()), place: self.place.clone(), source })
            }
            _ => Err(Error::Server { doing: "running a statement of the log", source }),
        }
    }

    fn drop_created(&mut self, statement: &Statement, database: &[u8]) -> Result<(), Error> {
        for name in &statement.tables {
            let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let database = name.database.as_deref().map_or_else(|| lossy(database), lossy);
            let table = crate::sql::table(&database, &lossy(&name.table));
            self.conn
                .execute(format!("DROP TABLE IF EXISTS {table}"))
                .map_err(Error::server("dropping a half-made table"))?;
        }
        Ok(())
    }

    /// Moves the checkpoint behind the transaction that is under way.
    fn note_done(&mut self) -> Result<(), Error> {
        self.conn
            .execute(checkpoint::advance(self.seen + 1))
            .map_err(Error::server("moving the checkpoint"))?;
        self.current_ref().noted = true;
        Ok(())
    }

    /// A transaction of the log is complete.
    fn end(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let current = self.current.take().unwrap_or_default();
        if !current.skip || current.noted {
            self.applied += 1;
        }
        self.seen += 1;
        if !current.skip && !current.noted {
            self.group.0 += 1;
            let (transactions, bytes) = self.group;
            if current.ctas {
                self.commit_ctas()?;
            } else if current.alone || transactions >= GROUP_TRANSACTIONS || bytes >= GROUP_BYTES {
                self.commit_group()?;
            }
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
    fn commit_group(&mut self) -> Result<(), Error> {
        self.group = (0, 0);
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

/// Sends BINLOG statements.
struct Sender<'a> {
    conn: &'a mut Conn,
    place: &'a EventPlace,
    since: &'a EventPlace,
    packet_max: u64,
}

/// What can happen while rows are cut and sent.
enum SendError {
    Flaw(holdfast_binlog::Flaw),
    Other(Error),
}

impl From<holdfast_binlog::Flaw> for SendError {
    fn from(flaw: holdfast_binlog::Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl SendError {
    fn into_error(self, place: &EventPlace) -> Error {
        match self {
            Self::Flaw(flaw) => Error::Encode { place: place.clone(), flaw },
            Self::Other(error) => error,
        }
    }
}

impl Sender<'_> {
    fn send(&mut self, statement: &str) -> Result<(), SendError> {
        // One byte of command stands before the text.
        let needed = statement.len() as u64 + 1;
        if needed > self.packet_max {
            let (place, limit) = (self.place.clone(), self.packet_max);
            return Err(SendError::Other(Error::RowTooLong { place, needed, limit }));
        }
        match self.conn.execute(statement) {
            Ok(_) => Ok(()),
            Err(source @ holdfast_mysql::Error::Server(_)) => Err(SendError::Other(Error::Diverged {
                what: format!("a change of rows between {} and the event", self.since),
                place: self.place.clone(),
                source: Box::new(source),
            })),
            Err(source) => Err(SendError::Other(Error::server("applying rows")(source))),
        }
    }
}
