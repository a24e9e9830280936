//! From events to transactions: what each one is, touches, and where it lies.
//!
//! The [`Assembler`] takes events one by one and holds no copy of them, so a transaction
//! of any size costs as much memory as the tables it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_format::gtid::Gtid;

use crate::error::Error;
use crate::event::{Body, Event, FLAG_THREAD_SPECIFIC};
use crate::format::FormatDescription;
use crate::gtid_event::{AlterPhase, FL_STANDALONE, GtidDetail};
use crate::kind::{EventType, RowChange};
use crate::payload::Payload;
use crate::query::Query;
use crate::rows::Rows;
use crate::statement::{Action, Object, Statement, Verb};
use crate::tables::{TableCache, TableKey};

/// Most tables that one transaction may touch: a hundred times what `DROP DATABASE` of a
/// large application names, and 32 MiB of names at worst.
pub const TABLES_PER_TRANSACTION_MAX: usize = 1 << 17;

/// Bytes of a statement's text that are kept: more than any `CREATE TABLE` a person wrote.
pub const TEXT_MAX: usize = 64 << 10;

/// Statements of one transaction that are kept; DDL commits, so more than a few are noise.
pub const STATEMENTS_MAX: usize = 64;

/// Rows by kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// Rows that appeared.
    pub inserts: u64,
    /// Rows that changed.
    pub updates: u64,
    /// Rows that vanished.
    pub deletes: u64,
}

impl RowCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.inserts + self.updates + self.deletes
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.inserts += other.inserts;
        self.updates += other.updates;
        self.deletes += other.deletes;
    }
}

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Rows only.
    Rows,
    /// One DDL statement.
    Ddl,
    /// One statement about accounts.
    Acl,
    /// CREATE TABLE .. SELECT: a definition and its rows.
    Ctas,
    /// Statement-based changes.
    Statement,
    /// A step of an XA transaction.
    Xa,
    /// ANALYZE, FLUSH and the like.
    Maintenance,
    /// Nothing that changes data.
    Empty,
}

/// Something in a transaction that needs care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oddity {
    /// XA START, PREPARE, COMMIT, ROLLBACK.
    Xa,
    /// LOAD DATA: a part of its file, or the statement.
    Load,
    /// Statement-based change of data.
    StatementDml,
    /// Differences of JSON columns.
    PartialJson,
    /// A temporary table.
    TemporaryTable,
    /// INTVAR, RAND, USER_VAR: belongs to a statement.
    Variable,
    /// The source says that something is missing.
    Incident,
    /// The rest of the file is encrypted.
    Encryption,
    /// A statement of no known kind.
    UnknownStatement,
    /// A statement that failed on the source.
    FailedStatement,
}

/// Where an oddity was met first in events of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddityAt {
    /// What it is.
    pub oddity: Oddity,
    /// Type of the event.
    pub event: EventType,
    /// Position of the event (inside a compressed transaction: the transaction's).
    pub position: u64,
    /// The table, where the event names one; else the start of the statement.
    pub subject: Option<String>,
}

/// A statement other than transaction control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementNote {
    /// Position of its event.
    pub position: u64,
    /// What it does.
    pub verb: Verb,
    /// First word.
    pub action: Action,
    /// What it is about.
    pub object: Object,
    /// Default database; empty: none.
    pub database: String,
    /// Tables that it names, with the default database filled in.
    pub tables: Vec<TableKey>,
    /// The connection that ran it.
    pub thread: u32,
    /// It depends on that connection: its temporary tables, most often.
    pub thread_specific: bool,
    /// CREATE TEMPORARY, DROP TEMPORARY.
    pub temporary: bool,
    /// Its text, at most [`TEXT_MAX`] bytes, as UTF-8 with replacements.
    pub text: String,
}

/// A whole transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its name, where the source gave one.
    pub gtid: Option<Gtid>,
    /// What it is.
    pub kind: Kind,
    /// Position of its first event.
    pub start: u64,
    /// Position behind its last event.
    pub end: u64,
    /// Number of events (a payload counts as what is in it).
    pub events: u64,
    /// Commit time in microseconds of Unix time: the GTID event's, or the second of the last event.
    pub commit_micros: u64,
    /// Does the commit time come from the GTID event? Else it is the statement's start, in seconds.
    pub commit_is_exact: bool,
    /// Rows by table.
    pub tables: BTreeMap<Arc<TableKey>, RowCounts>,
    /// Statements other than transaction control.
    pub statements: Vec<StatementNote>,
    /// The first place of each oddity in events of each type.
    pub oddities: Vec<OddityAt>,
    /// MariaDB's two-phase ALTER, if it is a part of one.
    pub alter: Option<AlterPhase>,
    /// It ended with ROLLBACK: what is in it took effect in non-transactional tables only.
    pub rolled_back: bool,
}

impl Transaction {
    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> RowCounts {
        let mut sum = RowCounts::default();
        for counts in self.tables.values() {
            sum.add(counts);
        }
        sum
    }
}

/// What became of an event.
#[derive(Debug)]
pub enum Pushed {
    /// It belongs to no transaction.
    Outside,
    /// It belongs to a transaction that goes on.
    Inside,
    /// It ends a transaction.
    End(Box<Transaction>),
}

#[derive(Debug)]
struct Open {
    transaction: Transaction,
    /// MariaDB: one statement and no COMMIT.
    standalone: bool,
    /// A BEGIN or its like was seen (MariaDB: said by the GTID event).
    begun: bool,
    ctas: bool,
    last_timestamp: u32,
}

/// Groups events into transactions.
#[derive(Debug, Default)]
pub struct Assembler {
    open: Option<Open>,
    tables: TableCache,
    scratch: Vec<u8>,
}

impl Assembler {
    /// A new one, outside any transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Is a transaction open?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Where the open transaction starts.
    #[must_use]
    pub fn open_since(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.transaction.start)
    }

    /// Drops an open transaction and all table ids: the stream starts anew at a transaction's border.
    pub fn reset(&mut self) {
        self.open = None;
        self.tables.clear();
    }

    /// Takes the next event. `format` is the one in force behind the event.
    ///
    /// # Errors
    /// Fails on events that don't parse or stand where none of their kind can.
    pub fn push(&mut self, event: &Event<'_>, format: &FormatDescription) -> Result<Pushed, Error> {
        self.take(event, &event.parse(format)?, format, None)
    }

    /// The same for an event whose body the caller has read already.
    ///
    /// # Errors
    /// As [`Assembler::push`].
    pub fn push_body(
        &mut self,
        event: &Event<'_>,
        body: &Body<'_>,
        format: &FormatDescription,
    ) -> Result<Pushed, Error> {
        self.take(event, body, format, None)
    }

    fn take(
        &mut self,
        event: &Event<'_>,
        body: &Body<'_>,
        format: &FormatDescription,
        payload_at: Option<u64>,
    ) -> Result<Pushed, Error> {
        let order = |why| Error::Order { position: event.position, kind: event.kind(), why };
        let start = payload_at.unwrap_or(event.position);
        match body {
            Body::FormatDescription(_) | Body::Rotate { .. } | Body::Stop => {
                if self.is_open() && !event.is_artificial() {
                    return Err(order("a log ends or starts in the middle of a transaction"));
                }
                if !self.is_open() {
                    self.tables.clear();
                }
                return Ok(Pushed::Outside);
            }
            Body::PreviousGtids(_) | Body::GtidList(_) | Body::Checkpoint { .. } | Body::Heartbeat { .. } => {
                return Ok(Pushed::Outside);
            }
            Body::Ignorable if !self.is_open() => return Ok(Pushed::Outside),
            Body::Gtid(gtid) => {
                if self.is_open() {
                    return Err(order("a transaction starts before the last one ended"));
                }
                let mut open = Open::new(start);
                open.transaction.gtid = gtid.gtid.clone();
                if let Some(micros) = gtid.commit_micros() {
                    open.transaction.commit_micros = micros;
                    open.transaction.commit_is_exact = true;
                }
                if let GtidDetail::MariaDb { flags, alter, .. } = gtid.detail {
                    open.standalone = flags & FL_STANDALONE != 0;
                    open.begun = !open.standalone;
                    open.transaction.alter = alter;
                }
                open.transaction.events = 1;
                self.open = Some(open);
                return Ok(Pushed::Inside);
            }
            _ => {}
        }
        // MySQL 5.6 without GTIDs starts a transaction with BEGIN or a statement.
        let open = self.open.get_or_insert_with(|| Open::new(start));
        if payload_at.is_none() || !matches!(body, Body::Payload(_)) {
            open.transaction.events += 1;
        }
        open.last_timestamp = event.header.timestamp;
        if let Body::Payload(payload) = body {
            self.payload_events(event, payload, format)?;
            return self.finish(event).ok_or_else(|| order("an empty payload"));
        }
        if self.body(event, body, payload_at)? && payload_at.is_none() {
            return self.finish(event).ok_or_else(|| order("the end of no transaction"));
        }
        Ok(Pushed::Inside)
    }

    fn payload_events(
        &mut self,
        event: &Event<'_>,
        payload: &Payload<'_>,
        format: &FormatDescription,
    ) -> Result<(), Error> {
        let mut events = payload.events(event, format)?;
        while let Some(inner) = events.next_event()? {
            if inner.kind() == EventType::TRANSACTION_PAYLOAD {
                return Err(Error::Order {
                    position: event.position,
                    kind: inner.kind(),
                    why: "a payload inside a payload",
                });
            }
            let body = inner.parse(format)?;
            self.take(&inner, &body, format, Some(event.position))?;
        }
        Ok(())
    }

    /// Takes an event of the open transaction; true: it ends it.
    fn body(&mut self, event: &Event<'_>, body: &Body<'_>, payload_at: Option<u64>) -> Result<bool, Error> {
        let position = payload_at.unwrap_or(event.position);
        let Some(open) = self.open.as_mut() else { return Ok(false) };
        let note = |open: &mut Open, oddity, subject| open.odd(oddity, event.kind(), position, subject);
        match body {
            Body::Query(query) => {
                let text = query.text(&mut self.scratch).map_err(|flaw| event.malformed(flaw))?;
                return Ok(open.query(event, position, query, text));
            }
            Body::Xid { .. } => return Ok(true),
            Body::XaPrepare { .. } => {
                note(open, Oddity::Xa, None);
                return Ok(true);
            }
            Body::TableMap(map) => self.tables.insert(map).map_err(|flaw| event.malformed(flaw))?,
            Body::Rows(rows) if rows.is_dummy() => {}
            Body::Rows(rows) => self.rows(event, rows, position)?,
            Body::IntVar { .. } | Body::Rand { .. } | Body::UserVar { .. } => {
                note(open, Oddity::Variable, None);
            }
            Body::BeginLoad(_) | Body::AppendBlock(_) | Body::DeleteFile { .. } | Body::OldLoad => {
                note(open, Oddity::Load, None);
            }
            Body::ExecuteLoad { query, .. } => {
                let text = query.text(&mut self.scratch).map_err(|flaw| event.malformed(flaw))?;
                note(open, Oddity::Load, Some(start_of(text)));
                if query.error_code != 0 {
                    note(open, Oddity::FailedStatement, Some(start_of(text)));
                }
                let thread_specific = event.header.flags & FLAG_THREAD_SPECIFIC != 0;
                if thread_specific {
                    note(open, Oddity::TemporaryTable, Some(start_of(text)));
                }
                // It changes rows as any other statement does.
                let statement = Statement::classify(text, query.vars.sql_mode.unwrap_or(0));
                let statement = Statement { verb: Verb::Dml, ..statement };
                open.note(position, query, text, statement, thread_specific);
                return Ok(!open.begun);
            }
            Body::Incident { message, .. } => {
                note(open, Oddity::Incident, Some(String::from_utf8_lossy(message).into_owned()));
                return Ok(true);
            }
            Body::StartEncryption { .. } => {
                note(open, Oddity::Encryption, None);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    fn rows(&mut self, event: &Event<'_>, rows: &Rows<'_>, position: u64) -> Result<(), Error> {
        let malformed = |flaw| event.malformed(flaw);
        let (key, plan) = self.tables.plan(rows).map_err(malformed)?;
        let rows = rows.inflated(&mut self.scratch).map_err(malformed)?;
        let (mut count, mut partial) = (0u64, false);
        for row in plan.rows(rows.data) {
            partial |= row.map_err(malformed)?.partial;
            count += 1;
        }
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        if partial {
            open.odd(Oddity::PartialJson, event.kind(), position, Some(key.to_string()));
        }
        let tables = &mut open.transaction.tables;
        if tables.len() >= TABLES_PER_TRANSACTION_MAX && !tables.contains_key(&key) {
            return Err(Error::Limit {
                position: event.position,
                kind: event.kind(),
                what: "the number of tables in a transaction",
                got: tables.len() as u64 + 1,
                limit: TABLES_PER_TRANSACTION_MAX as u64,
            });
        }
        let counts = tables.entry(key).or_default();
        match rows.kind.change {
            RowChange::Insert => counts.inserts += count,
            RowChange::Update => counts.updates += count,
            RowChange::Delete => counts.deletes += count,
        }
        Ok(())
    }

    fn finish(&mut self, event: &Event<'_>) -> Option<Pushed> {
        let mut open = self.open.take()?;
        open.transaction.end = event.position + event.raw.len() as u64;
        open.transaction.kind = open.kind();
        if !open.transaction.commit_is_exact {
            open.transaction.commit_micros = u64::from(open.last_timestamp) * 1_000_000;
        }
        Some(Pushed::End(Box::new(open.transaction)))
    }
}

impl Open {
    fn new(start: u64) -> Self {
        let transaction = Transaction {
            gtid: None,
            kind: Kind::Empty,
            start,
            end: start,
            events: 0,
            commit_micros: 0,
            commit_is_exact: false,
            tables: BTreeMap::new(),
            statements: Vec::new(),
            oddities: Vec::new(),
            alter: None,
            rolled_back: false,
        };
        Self { transaction, standalone: false, begun: false, ctas: false, last_timestamp: 0 }
    }

    fn odd(&mut self, oddity: Oddity, event: EventType, position: u64, subject: Option<String>) {
        // The type counts: an event that is replayed must not hide one that is not.
        let known = |known: &OddityAt| known.oddity == oddity && known.event == event;
        if !self.transaction.oddities.iter().any(known) {
            self.transaction.oddities.push(OddityAt { oddity, event, position, subject });
        }
    }

    /// Takes a statement; true: it ends the transaction.
    fn query(&mut self, event: &Event<'_>, position: u64, query: &Query<'_>, text: &[u8]) -> bool {
        let statement = Statement::classify(text, query.vars.sql_mode.unwrap_or(0));
        let subject = || Some(start_of(text));
        match statement.verb {
            Verb::Begin if !self.standalone => {
                self.begun = true;
                return false;
            }
            Verb::Commit => return true,
            Verb::Rollback => {
                self.transaction.rolled_back = true;
                return true;
            }
            Verb::Savepoint | Verb::Release | Verb::RollbackTo => return false,
            Verb::Xa => {
                self.odd(Oddity::Xa, event.kind(), position, subject());
                let begins = text.get(..8).is_some_and(|head| head.eq_ignore_ascii_case(b"XA START"));
                let ends = text.get(..6).is_some_and(|head| head.eq_ignore_ascii_case(b"XA END"));
                self.begun |= begins;
                return !begins && !ends;
            }
            Verb::Dml => self.odd(Oddity::StatementDml, event.kind(), position, subject()),
            Verb::Load => self.odd(Oddity::Load, event.kind(), position, subject()),
            Verb::Other | Verb::Begin | Verb::Set => {
                self.odd(Oddity::UnknownStatement, event.kind(), position, subject());
            }
            Verb::CtasStart => self.ctas = true,
            Verb::Ddl | Verb::Acl | Verb::Maintenance => {}
        }
        // MariaDB: a definition inside a transaction that rows follow.
        let creates = statement.action == Action::Create && statement.object == Object::Table;
        self.ctas |= self.begun && creates;
        // A DROP TEMPORARY TABLE that the server makes up when a session ends carries the flag too.
        if statement.temporary
            || event.header.flags & FLAG_THREAD_SPECIFIC != 0 && statement.verb == Verb::Dml
        {
            self.odd(Oddity::TemporaryTable, event.kind(), position, subject());
        }
        let two_phase = matches!(self.transaction.alter, Some(AlterPhase::Rollback { .. }));
        if query.error_code != 0 && !two_phase {
            self.odd(Oddity::FailedStatement, event.kind(), position, subject());
        }
        let thread_specific = event.header.flags & FLAG_THREAD_SPECIFIC != 0;
        self.note(position, query, text, statement, thread_specific);
        !self.begun
    }

    fn note(
        &mut self,
        position: u64,
        query: &Query<'_>,
        text: &[u8],
        statement: Statement,
        thread_specific: bool,
    ) {
        if self.transaction.statements.len() >= STATEMENTS_MAX {
            return;
        }
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let database = lossy(query.database);
        let tables = statement.tables.iter().map(|name| TableKey {
            database: name.database.as_deref().map_or_else(|| database.clone(), lossy),
            table: lossy(&name.table),
        });
        let tables = tables.collect();
        self.transaction.statements.push(StatementNote {
            position,
            verb: statement.verb,
            action: statement.action,
            object: statement.object,
            database,
            tables,
            thread: query.thread_id,
            thread_specific,
            temporary: statement.temporary,
            text: lossy(text.get(..text.len().min(TEXT_MAX)).unwrap_or_default()),
        });
    }

    fn kind(&self) -> Kind {
        let odd = |oddity| self.transaction.oddities.iter().any(|o| o.oddity == oddity);
        if odd(Oddity::Xa) {
            return Kind::Xa;
        }
        if self.ctas {
            return Kind::Ctas;
        }
        if odd(Oddity::StatementDml) || odd(Oddity::Load) {
            return Kind::Statement;
        }
        match self.transaction.statements.first().map(|s| s.verb) {
            Some(Verb::Acl) => Kind::Acl,
            Some(Verb::Maintenance) => Kind::Maintenance,
            Some(Verb::Ddl | Verb::CtasStart) => Kind::Ddl,
            _ if !self.transaction.tables.is_empty() => Kind::Rows,
            _ => Kind::Empty,
        }
    }
}

/// The start of a statement, for messages.
fn start_of(text: &[u8]) -> String {
    let cut = text.get(..text.len().min(120)).unwrap_or_default();
    String::from_utf8_lossy(cut).into_owned()
}
