//! The events of a log that tables of a restore need, and no others.
//!
//! A transaction of which nothing is needed is left out as a whole, its GTID included; of others, rows and definitions of
//! other tables are. What such a transaction begins with waits until the first event that is needed. Whoever replays
//! sees a log in which nothing but these tables was ever changed.
//!
//! A definition that ties a table that is restored to one that is not (RENAME, LIKE, EXCHANGE PARTITION, a foreign key
//! to it, a query) is an error, as are statements that change rows of such a table and may read others.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use holdfast_binlog::event::{Body, Event};
use holdfast_binlog::format::FormatDescription;
use holdfast_binlog::gtid_event::{FL_PREPARED_XA, GtidDetail};
use holdfast_binlog::misc::XaId;
use holdfast_binlog::query::Query;
use holdfast_binlog::rows::FLAG_STMT_END;
use holdfast_binlog::statement::{self, Action, Object, Statement, TableName, Verb};
use holdfast_binlog::tables::TableKey;
use holdfast_binlog::{Walker, encode};
use holdfast_format::gtid::{Gtid, GtidSet, MariaDbBinlogState};
use holdfast_replay::{EventPlace, LogReader};

use crate::error::{Error, Foreign, Result};
use crate::plan::LogRange;
use crate::scope::Scope;
use crate::seam::{self, time};

/// Bytes of a transaction's beginning that wait for an event that is needed; more go at once.
const WAITING_MAX: usize = 1 << 20;

/// Letters of a statement that an error shows.
const SHOWN: usize = 120;

/// A statement that can't be replayed for some tables alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why} (`{statement}` at {place}). {next}")]
pub struct Refused {
    why: String,
    statement: String,
    place: String,
    next: String,
}

/// The whole log of a plan.
pub(crate) struct Whole<'l> {
    pub(crate) log: &'l dyn seam::Log,
    pub(crate) range: LogRange,
}

impl holdfast_replay::Log for Whole<'_> {
    fn read(&self) -> Result<Box<dyn LogReader + '_>, Foreign> {
        self.log.read(self.range.from, self.range.until)
    }
}

/// GTIDs of everything that was read, whether it was needed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// As a set.
    pub(crate) gtids: GtidSet,
    /// MariaDB: by domain and server.
    pub(crate) state: MariaDbBinlogState,
}

impl Seen {
    /// What a base holds.
    pub(crate) fn of_base(held: GtidSet) -> Self {
        let state = match &held {
            GtidSet::MariaDb(pos) => pos.iter().collect(),
            GtidSet::MySql(_) => MariaDbBinlogState::default(),
        };
        Self { gtids: held, state }
    }

    fn add(&mut self, gtid: &Gtid) -> Result<(), Foreign> {
        self.gtids.add(gtid)?;
        if let Gtid::MariaDb(gtid) = gtid {
            self.state.update(*gtid);
        }
        Ok(())
    }
}

/// What a range holds for the tables of a restore.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    /// Transactions that are needed.
    pub(crate) transactions: u64,
    /// Bytes of their events that are needed.
    pub(crate) bytes: u64,
    /// The last statement that made or dropped each table that is restored: was it made, and the words for where.
    last: BTreeMap<TableKey, (bool, String)>,
    /// Databases, in the same way.
    databases: BTreeMap<String, (bool, String)>,
    /// Tables that got another name.
    moved: BTreeSet<TableKey>,
    /// A statement that changed rows and was left out because it names no table that is restored: right only where
    /// nothing but names tells what a statement changes.
    by_name: Option<String>,
    /// Triggers, views or functions are made.
    programs: bool,
    /// Tables that get triggers.
    triggered: BTreeSet<TableKey>,
}

impl Survey {
    /// An error if the log says that the table is gone at the target.
    pub(crate) fn refuse_gone(&self, table: &TableKey, target: &str) -> Result<()> {
        match self.last.get(table) {
            Some((false, at)) => Err(Error::Tables(format!(
                "the table {table} does not exist at {target}: it was dropped by {at}. Restore to a moment before that"
            ))),
            _ => Ok(()),
        }
    }

    /// An error if statements were left out by their names, and `programs` (triggers, views and functions in the base) or
    /// some that the log makes may change rows that no statement names.
    pub(crate) fn refuse_unclear(&self, programs: u64) -> Result<()> {
        match &self.by_name {
            Some(statement) if self.programs || programs > 0 => Err(Error::Tables(format!(
                "what {statement} changes can't be told: the server has triggers, views or functions, and the statement is \
                 logged as text. Restore the whole server"
            ))),
            _ => Ok(()),
        }
    }

    /// An error if a database that was asked for is gone at the target, or was never there.
    pub(crate) fn refuse_no_database(&self, name: &str, in_base: bool, target: &str) -> Result<()> {
        match self.databases.get(name) {
            Some((false, at)) => Err(Error::Tables(format!(
                "the database {name} does not exist at {target}: it was dropped by {at}. Restore to a moment before that"
            ))),
            None if !in_base => Err(Error::Tables(format!(
                "the database {name} does not exist at {target}: it is not in the backup, and nothing up to there makes it"
            ))),
            _ => Ok(()),
        }
    }

    /// Tables that have another name at the end.
    pub(crate) fn moved(&self) -> impl Iterator<Item = TableKey> + '_ {
        self.moved.iter().cloned()
    }

    /// Does the log make triggers of this table? The name as the source compares it.
    pub(crate) fn triggers(&self, table: &TableKey) -> bool {
        self.triggered.contains(table)
    }

    /// Does the log make this table?
    pub(crate) fn makes(&self, table: &TableKey) -> bool {
        self.last.get(table).is_some_and(|(made, _)| *made)
    }
}

/// Reads a range as the restore will.
pub(crate) fn survey(log: &dyn holdfast_replay::Log, scope: &Scope) -> Result<Survey> {
    let found = Mutex::new(None);
    let inner = log.read().map_err(Error::Log)?;
    let mut reader = Reader::new(inner, scope, &found, None);
    let (mut event, mut bytes) = (Vec::new(), 0_u64);
    let mut walk = || -> Result<(), Foreign> {
        while reader.next(&mut event)?.is_some() {
            bytes = bytes.saturating_add(event.len() as u64);
        }
        Ok(())
    };
    walk().map_err(Error::of_log)?;
    let mut survey = reader.survey;
    survey.bytes = bytes;
    Ok(survey)
}

/// What becomes of an event.
enum Fate {
    /// It and what waits before it is given.
    Needed,
    /// This is given in its place.
    Instead(Vec<u8>),
    /// It is given if something of its transaction was.
    Follows,
    /// It waits for an event of its transaction that is needed.
    Waits,
    /// It waits for an event of its statement that is needed.
    WaitsForItsStatement,
    /// It is left out.
    LeftOut,
    /// It is given and belongs to no transaction.
    Between,
}

/// A reader of the events that are needed.
pub(crate) struct Reader<'r> {
    inner: Box<dyn LogReader + 'r>,
    scope: &'r Scope,
    /// Filled when the log was read to its end.
    seen_in_all: &'r Mutex<Option<Seen>>,
    seen: Option<Seen>,
    walker: Walker,
    bytes: Vec<u8>,
    filter: Filter,
    pub(crate) survey: Survey,
    ready: VecDeque<(EventPlace, Vec<u8>)>,
}

/// What is known of the transaction under way; of one in a payload, of the events in there.
#[derive(Default)]
struct Filter {
    /// What it begins with.
    waiting: Vec<(EventPlace, Vec<u8>)>,
    /// What the statement under way begins with.
    of_statement: Vec<(EventPlace, Vec<u8>)>,
    /// A row event that was given but for its flags: whether it ends its statement is not known yet.
    held: Option<(EventPlace, Vec<u8>)>,
    /// Something of the transaction was given.
    given: bool,
    /// Tables by their numbers: is it needed?
    tables: HashMap<u64, bool>,
    /// The XA transaction under way.
    xa: Option<String>,
    /// XA transactions of which nothing was given.
    xa_left_out: HashSet<String>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(
        inner: Box<dyn LogReader + 'r>,
        scope: &'r Scope,
        seen_in_all: &'r Mutex<Option<Seen>>,
        seen: Option<Seen>,
    ) -> Self {
        Self {
            inner,
            scope,
            seen_in_all,
            seen,
            walker: Walker::default(),
            bytes: Vec::new(),
            filter: Filter::default(),
            survey: Survey::default(),
            ready: VecDeque::new(),
        }
    }

    /// Takes the next event of the log in. False at its end.
    fn advance(&mut self) -> Result<bool, Foreign> {
        let Some(place) = self.inner.next(&mut self.bytes)? else {
            self.filter.release(&mut self.ready);
            *self.seen_in_all.lock().unwrap_or_else(PoisonError::into_inner) = self.seen.clone();
            return Ok(false);
        };
        self.walker.set_position(place.position);
        let bytes = std::mem::take(&mut self.bytes);
        let event = self.walker.whole(&bytes)?;
        if let Some(format) = self.walker.format().cloned() {
            self.event(&event, &format, &place)?;
        } else {
            self.ready.push_back((place, bytes.clone()));
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        format: &FormatDescription,
        place: &EventPlace,
    ) -> Result<(), Foreign> {
        let body = event.parse(format)?;
        if let Body::Gtid(gtid) = &body
            && let (Some(seen), Some(gtid)) = (&mut self.seen, &gtid.gtid)
        {
            seen.add(gtid)?;
        }
        if let Body::Payload(payload) = &body {
            return self.payload(event, payload, format, place);
        }
        let given = self.filter.given;
        let ends = event_ends(&body);
        let fate = self.filter.fate(event, &body, place, self.scope, &mut self.survey)?;
        self.filter.carry_out(fate, event, place, ends_statement(&body), &mut self.ready)?;
        if self.filter.given && !given {
            self.survey.transactions += 1;
        }
        if ends {
            self.filter.release(&mut self.ready);
        }
        Ok(())
    }

    /// The events of a compressed transaction, one by one.
    fn payload(
        &mut self,
        event: &Event<'_>,
        payload: &holdfast_binlog::payload::Payload<'_>,
        format: &FormatDescription,
        place: &EventPlace,
    ) -> Result<(), Foreign> {
        let malformed = |flaw| event.malformed(flaw);
        let mut inside = Filter { xa: self.filter.xa.clone(), ..Filter::default() };
        let mut kept = VecDeque::new();
        let mut whole = true;
        let mut events = payload.events(event, format)?;
        while let Some(inner) = events.next_event()? {
            let body = inner.parse(format)?;
            let fate = inside.fate(&inner, &body, place, self.scope, &mut self.survey)?;
            whole &= !matches!(fate, Fate::LeftOut | Fate::Instead(_));
            inside.carry_out(fate, &inner, place, ends_statement(&body), &mut kept)?;
        }
        inside.release(&mut kept);
        self.filter.xa_left_out.extend(std::mem::take(&mut inside.xa_left_out));
        if !inside.given {
            return Ok(());
        }
        self.survey.transactions += u64::from(!self.filter.given);
        let fate = if whole {
            Fate::Needed
        } else {
            let mut events = Vec::new();
            kept.iter().for_each(|(_, bytes)| events.extend_from_slice(bytes));
            let mut out = Vec::new();
            encode::payload(event, &events, &mut out).map_err(malformed)?;
            Fate::Instead(out)
        };
        self.filter.carry_out(fate, event, place, false, &mut self.ready)
    }
}

impl LogReader for Reader<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, Foreign> {
        let mut more = true;
        loop {
            if let Some((place, bytes)) = self.ready.pop_front() {
                *event = bytes;
                return Ok(Some(place));
            }
            if !more {
                return Ok(None);
            }
            more = self.advance()?;
        }
    }
}

/// Does the transaction end with this event, so that nothing is held back behind it?
fn event_ends(body: &Body<'_>) -> bool {
    matches!(body, Body::Xid { .. } | Body::XaPrepare { .. } | Body::Query(_))
}

/// Does a row event end its statement?
fn ends_statement(body: &Body<'_>) -> bool {
    matches!(body, Body::Rows(rows) if rows.flags & FLAG_STMT_END != 0)
}

impl Filter {
    /// Gives what was held back.
    fn release(&mut self, out: &mut VecDeque<(EventPlace, Vec<u8>)>) {
        out.extend(self.held.take());
    }

    fn carry_out(
        &mut self,
        fate: Fate,
        event: &Event<'_>,
        place: &EventPlace,
        ends_statement: bool,
        out: &mut VecDeque<(EventPlace, Vec<u8>)>,
    ) -> Result<(), Foreign> {
        let own = || (place.clone(), event.raw.to_vec());
        let open_rows = event.kind().rows().is_some() && !ends_statement;
        match fate {
            Fate::Needed | Fate::Instead(_) => {
                self.release(out);
                out.extend(self.waiting.drain(..));
                out.extend(self.of_statement.drain(..));
                self.given = true;
                match fate {
                    Fate::Instead(bytes) => out.push_back((place.clone(), bytes)),
                    _ if open_rows => self.held = Some(own()),
                    _ => out.push_back(own()),
                }
            }
            Fate::Follows if self.given => {
                self.release(out);
                out.push_back(own());
            }
            Fate::Follows => {
                self.waiting.clear();
                self.of_statement.clear();
            }
            Fate::Waits if self.given => {
                self.release(out);
                out.push_back(own());
            }
            Fate::Waits => {
                self.waiting.push(own());
                if self.waiting.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > WAITING_MAX {
                    out.extend(self.waiting.drain(..));
                    self.given = true;
                }
            }
            Fate::WaitsForItsStatement => self.of_statement.push(own()),
            Fate::LeftOut => {}
            Fate::Between => {
                self.release(out);
                out.push_back(own());
            }
        }
        if ends_statement {
            self.of_statement.clear();
            // The rows of a table that is left out ended the statement: those before them must.
            if let Some((place, bytes)) = self.held.take() {
                out.push_back((place, ending(event, bytes)?));
            }
        }
        Ok(())
    }

    /// What becomes of an event.
    fn fate(
        &mut self,
        event: &Event<'_>,
        body: &Body<'_>,
        place: &EventPlace,
        scope: &Scope,
        survey: &mut Survey,
    ) -> Result<Fate, Foreign> {
        let malformed = |flaw| event.malformed(flaw);
        Ok(match body {
            Body::Gtid(gtid) => {
                self.waiting.clear();
                self.of_statement.clear();
                (self.given, self.xa) = (false, None);
                if let GtidDetail::MariaDb { flags, xa: Some(id), .. } = &gtid.detail
                    && flags & FL_PREPARED_XA != 0
                {
                    self.xa = Some(xa_name(id));
                }
                Fate::Waits
            }
            Body::FormatDescription(_) => {
                self.tables.clear();
                Fate::Between
            }
            Body::Query(query) => {
                let mut scratch = Vec::new();
                let text = query.text(&mut scratch).map_err(malformed)?;
                let fate = self.query(event, query, text, place, scope, survey)?;
                self.of_statement.retain(|_| matches!(fate, Fate::Needed | Fate::Instead(_)));
                fate
            }
            Body::TableMap(map) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let key = TableKey { database: text(map.database), table: text(map.table) };
                let needed = scope.contains(&key);
                self.tables.insert(map.table_id, needed);
                if needed { Fate::WaitsForItsStatement } else { Fate::LeftOut }
            }
            Body::Rows(rows) if rows.is_dummy() => Fate::LeftOut,
            Body::Rows(rows) => match self.tables.get(&rows.table_id) {
                Some(false) => Fate::LeftOut,
                _ => Fate::Needed,
            },
            Body::Xid { .. } => Fate::Follows,
            Body::XaPrepare { one_phase, .. } => {
                if let Some(name) = self.xa.take().filter(|_| !one_phase && !self.given) {
                    self.xa_left_out.insert(name);
                }
                Fate::Follows
            }
            Body::RowsQuery(_) | Body::IntVar { .. } | Body::Rand { .. } | Body::UserVar { .. } => {
                Fate::WaitsForItsStatement
            }
            Body::BeginLoad(_)
            | Body::AppendBlock(_)
            | Body::DeleteFile { .. }
            | Body::ExecuteLoad { .. }
            | Body::OldLoad => {
                let why = "which tables a LOAD DATA in the statement format changes can't be told";
                return Err(refused(why, b"LOAD DATA", place, "Restore the whole server"));
            }
            Body::Incident { .. } => Fate::Needed,
            _ => Fate::Between,
        })
    }

    fn query(
        &mut self,
        event: &Event<'_>,
        query: &Query<'_>,
        text: &[u8],
        place: &EventPlace,
        scope: &Scope,
        survey: &mut Survey,
    ) -> Result<Fate, Foreign> {
        let sql_mode = query.vars.sql_mode.unwrap_or(0);
        let statement = Statement::classify(text, sql_mode);
        Ok(match statement.verb {
            Verb::Begin | Verb::Savepoint | Verb::Release | Verb::RollbackTo | Verb::Set => Fate::Waits,
            Verb::Commit | Verb::Rollback => Fate::Follows,
            Verb::Xa => self.xa(text),
            Verb::Acl | Verb::Maintenance => Fate::LeftOut,
            Verb::Ddl | Verb::CtasStart => {
                let told = Told { event, query, text, sql_mode, place, statement: &statement };
                definition(&told, scope, survey)?
            }
            Verb::Dml | Verb::Load => {
                let named = |word: &Vec<u8>| scope.names_a_table(&String::from_utf8_lossy(word));
                let words = statement::words(text, sql_mode);
                if statement.verb == Verb::Dml && !words.iter().any(named) {
                    survey.by_name.get_or_insert_with(|| format!("`{}` at {place}", shown(text)));
                    return Ok(Fate::LeftOut);
                }
                let why = "a statement that changes rows of a table that is restored may read others";
                return Err(refused(why, text, place, "Restore the whole server"));
            }
            Verb::Other => Fate::Needed,
        })
    }

    fn xa(&mut self, text: &[u8]) -> Fate {
        let text = String::from_utf8_lossy(text);
        let mut words = text.trim_end_matches(';').split_whitespace();
        let (verb, rest) = (words.nth(1).unwrap_or_default().to_ascii_uppercase(), words);
        let name: String = rest.collect::<Vec<_>>().join("").to_lowercase();
        match verb.as_str() {
            "START" | "BEGIN" => {
                self.xa = Some(name);
                Fate::Waits
            }
            "COMMIT" | "ROLLBACK" => {
                if self.xa_left_out.remove(&name) {
                    Fate::LeftOut
                } else {
                    Fate::Needed
                }
            }
            _ => Fate::Waits,
        }
    }
}

/// A definition, with all that is known of it.
struct Told<'t> {
    event: &'t Event<'t>,
    query: &'t Query<'t>,
    text: &'t [u8],
    sql_mode: u64,
    place: &'t EventPlace,
    statement: &'t Statement,
}

impl Told<'_> {
    fn key(&self, name: &TableName) -> TableKey {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let database = name.database.as_deref().unwrap_or(self.query.database);
        TableKey { database: text(database), table: text(&name.table) }
    }

    /// Without a default database that the restored server does not have.
    fn needed(&self, scope: &Scope) -> Result<Fate, Foreign> {
        self.needed_as(self.text, scope)
    }

    fn needed_as(&self, text: &[u8], scope: &Scope) -> Result<Fate, Foreign> {
        let keep = scope.hosts(&String::from_utf8_lossy(self.query.database));
        if text == self.text && (keep || self.query.database.is_empty()) {
            return Ok(Fate::Needed);
        }
        let mut out = Vec::new();
        let malformed = |flaw| self.event.malformed(flaw);
        encode::query(self.event, text, keep, &mut out).map_err(malformed)?;
        Ok(Fate::Instead(out))
    }

    fn refused(&self, why: String, other: &TableKey) -> Foreign {
        let next = format!("Add --table {other}, or restore the whole server");
        refused(&why, self.text, self.place, &next)
    }

    /// Where it stands, for people.
    fn words(&self) -> String {
        let seconds = i64::from(self.event.header.timestamp);
        format!("`{}` at {} ({})", shown(self.text), self.place, time(seconds.saturating_mul(1_000_000)))
    }
}

/// What becomes of a definition.
fn definition(told: &Told<'_>, scope: &Scope, survey: &mut Survey) -> Result<Fate, Foreign> {
    let statement = told.statement;
    let keys: Vec<TableKey> = statement.tables.iter().map(|name| told.key(name)).collect();
    match statement.object {
        Object::View | Object::Routine | Object::Event => {
            survey.programs |= statement.action == Action::Create;
            return Ok(Fate::LeftOut);
        }
        Object::Database => {
            let named = statement::database(told.text, told.sql_mode);
            let name = named.as_deref().unwrap_or(told.query.database);
            let name = String::from_utf8_lossy(name).into_owned();
            if !scope.hosts(&name) {
                return Ok(Fate::LeftOut);
            }
            match statement.action {
                Action::Drop => survey.database_gone(&name, scope, &told.words()),
                Action::Create => drop(survey.databases.insert(scope.folded(&name), (true, told.words()))),
                _ => {}
            }
            return told.needed(scope);
        }
        // Of which table a trigger is does not stand in DROP TRIGGER, and the trigger may be of one that is not here.
        Object::Trigger if statement.action == Action::Drop => {
            let trigger = dropped_trigger(told);
            if !scope.hosts(&trigger.database) {
                return Ok(Fate::LeftOut);
            }
            let text = format!("DROP TRIGGER IF EXISTS {}", crate::catalog::quoted_table(&trigger));
            return told.needed_as(text.as_bytes(), scope);
        }
        Object::Tablespace | Object::Other | Object::Account => return told.needed(scope),
        Object::Table | Object::Index | Object::Trigger | Object::Sequence => {}
    }
    if statement.temporary {
        return Ok(Fate::LeftOut);
    }
    if statement.object == Object::Trigger {
        survey.programs = true;
        survey.triggered.extend(keys.iter().map(|key| scope.key(key)));
    }
    let needs = statement::needs(told.text, told.sql_mode);
    let takes: Vec<TableKey> = needs.takes.iter().map(|name| told.key(name)).collect();
    let needed: Vec<&TableKey> = keys.iter().filter(|key| scope.contains(key)).collect();
    let outside = |key: &&TableKey| !scope.contains(key);
    if needed.is_empty() {
        // Its rows go to a table that is not restored, or come from there.
        return match takes.iter().find(|key| scope.contains(key)) {
            Some(taken) if statement.action == Action::Alter => {
                let other = keys.first().cloned().unwrap_or_else(|| taken.clone());
                Err(told.refused(
                    format!("a statement exchanges rows of {taken} with {other}, which is not restored"),
                    &other,
                ))
            }
            _ => Ok(Fate::LeftOut),
        };
    }
    if let Some(other) = takes.iter().find(outside) {
        return Err(told.refused(format!("a statement needs {other}, which is not restored"), other));
    }
    let references: Vec<TableKey> = needs.references.iter().map(|name| told.key(name)).collect();
    if let Some(other) = references.iter().find(outside) {
        return Err(told.refused(format!("a foreign key to {other}, which is not restored"), other));
    }
    if needs.selects {
        let why = "a table that is restored is filled by a query, which may read others";
        return Err(refused(why, told.text, told.place, "Restore the whole server"));
    }
    let renames = statement.action == Action::Rename || statement.action == Action::Alter && keys.len() > 1;
    if renames {
        for pair in keys.chunks(2) {
            let [from, to] = pair else { continue };
            if scope.contains(from) != scope.contains(to) {
                let other = if scope.contains(from) { to } else { from };
                return Err(told.refused(
                    format!("the table {from} is renamed to {to}, and {other} is not restored"),
                    other,
                ));
            }
        }
        if let Some(other) = keys.iter().find(outside) {
            return Err(
                told.refused(format!("one statement renames {other} too, which is not restored"), other)
            );
        }
    }
    survey.note(told, &keys.iter().map(|key| scope.key(key)).collect::<Vec<_>>(), renames);
    if statement.action == Action::Drop && needed.len() < keys.len() {
        let kind = if statement.object == Object::Sequence { "SEQUENCE" } else { "TABLE" };
        let exists = if statement.conditional { "IF EXISTS " } else { "" };
        let names: Vec<String> = needed.iter().map(|key| crate::catalog::quoted_table(key)).collect();
        return told.needed_as(format!("DROP {kind} {exists}{}", names.join(", ")).as_bytes(), scope);
    }
    told.needed(scope)
}

/// The trigger that a DROP TRIGGER names.
fn dropped_trigger(told: &Told<'_>) -> TableKey {
    let words = statement::words(told.text, told.sql_mode);
    let mut names: Vec<String> =
        words.iter().skip(2).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if let [first, second, _, ..] = names.as_slice()
        && first.eq_ignore_ascii_case("IF")
        && second.eq_ignore_ascii_case("EXISTS")
    {
        names.drain(..2);
    }
    let default = String::from_utf8_lossy(told.query.database).into_owned();
    let mut names = names.into_iter();
    match (names.next().unwrap_or_default(), names.next()) {
        (database, Some(table)) => TableKey { database, table },
        (table, None) => TableKey { database: default, table },
    }
}

impl Survey {
    /// `keys`: as the source compares them.
    fn note(&mut self, told: &Told<'_>, keys: &[TableKey], renames: bool) {
        if !matches!(told.statement.object, Object::Table | Object::Sequence) {
            return;
        }
        let words = told.words();
        match told.statement.action {
            Action::Create => keys.iter().for_each(|key| {
                self.moved.remove(key);
                self.last.insert(key.clone(), (true, words.clone()));
            }),
            Action::Drop => keys.iter().for_each(|key| {
                self.moved.remove(key);
                self.last.insert(key.clone(), (false, words.clone()));
            }),
            _ if renames => {
                for pair in keys.chunks(2) {
                    if let [from, to] = pair {
                        // Both are restored: whoever asks for the old name gets it under the new one.
                        self.last.remove(from);
                        self.moved.remove(to);
                        self.moved.insert(from.clone());
                        self.last.insert(to.clone(), (true, words.clone()));
                    }
                }
            }
            _ => {}
        }
    }

    fn database_gone(&mut self, database: &str, scope: &Scope, words: &str) {
        self.databases.insert(scope.folded(database), (false, words.to_owned()));
        for table in scope.named().filter(|table| scope.folded(&table.database) == scope.folded(database)) {
            self.last.insert(table, (false, words.to_owned()));
        }
    }
}

impl Scope {
    /// Could this word be the name of a table that is restored, or of a database all of whose tables are?
    fn names_a_table(&self, word: &str) -> bool {
        let is = |name: &String| name.eq_ignore_ascii_case(word);
        self.databases.iter().any(is) || self.tables.iter().chain(&self.parents).any(|(_, table)| is(table))
    }
}

/// A row event that ends its statement.
fn ending(like: &Event<'_>, bytes: Vec<u8>) -> Result<Vec<u8>, Foreign> {
    let Some(header) = bytes.first_chunk::<{ holdfast_binlog::event::HEADER_LEN }>() else {
        return Ok(bytes);
    };
    let header = holdfast_binlog::event::Header::read(header);
    let event = Event { header, position: like.position, raw: &bytes, checksum: like.checksum };
    let mut out = Vec::with_capacity(bytes.len());
    encode::rows_ending_the_statement(&event, &mut out).map_err(|flaw| event.malformed(flaw))?;
    Ok(out)
}

/// The name of an XA transaction as statements of the log have it.
fn xa_name(id: &XaId) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("x'{}',x'{}',{}", hex(&id.global), hex(&id.branch), id.format)
}

fn refused(why: &str, text: &[u8], place: &EventPlace, next: &str) -> Foreign {
    Box::new(Refused {
        why: why.to_owned(),
        statement: shown(text),
        place: place.to_string(),
        next: next.to_owned(),
    })
}

fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{} ...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}
