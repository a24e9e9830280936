//! The look at the whole range before the first write: what is in it, and whether all of it
//! can be replayed exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_binlog::Walker;
use holdfast_binlog::kind::EventType;
use holdfast_binlog::statement::{Action, Object, Verb, unsafe_part};
use holdfast_binlog::tables::TableKey;
use holdfast_binlog::transaction::{Assembler, Oddity, Pushed, RowCounts, StatementNote, Transaction};
use holdfast_format::gtid::Gtid;

use crate::ahead::{self, Events};
use crate::error::Error;
use crate::log::{EventPlace, Log};
use crate::survey::{LongRow, RowShape, Survey};

mod numbers;
pub use numbers::Numbers;

/// Files of one transaction's LOAD DATA that are replayed: they are held in memory, which an engine has 512 MiB of.
const LOADED_MAX: u64 = 256 << 20;

/// The longest packet that a server takes, however it is set: the ceiling of `max_allowed_packet` in both families.
const PACKET_MAX: u64 = 1 << 30;

/// Refusals that are listed; the rest is counted.
const LISTED: usize = 20;

/// What happened to a table in the range, as far as its number of rows goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableChanges {
    /// Rows since the base, or since `emptied`.
    pub rows: RowCounts,
    /// The table was created or emptied in the range: it counts from zero.
    pub emptied: bool,
    /// Its rows can't be counted from the log from here on (partitions dropped or exchanged).
    pub uncounted_from: Option<EventPlace>,
    /// It was dropped or renamed away.
    pub gone: bool,
    /// Rows were deleted or updated while the source left foreign keys to its engine: cascades
    /// from here to other tables are not in the log.
    pub unlogged_cascades: bool,
}

/// What is in the range.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Transactions, those that the base holds already included.
    pub transactions: u64,
    /// Row changes of all of them.
    pub rows: u64,
    /// Bytes of log.
    pub bytes: u64,
    /// Commit time of the last one, microseconds of Unix time.
    pub last_commit_micros: u64,
    /// The last one's GTID.
    pub last_gtid: Option<Gtid>,
    /// Each table that rows or definitions of the range name.
    pub tables: BTreeMap<TableKey, TableChanges>,
    /// What can't be replayed: a sentence each, at most 20.
    pub refused: Vec<String>,
    /// All of them, the listed ones included.
    pub refused_count: u64,
    /// Definitions that name each table.
    pub fences: BTreeMap<TableKey, u64>,
    /// DDL statements.
    pub ddl: u64,
    /// Statements about accounts.
    pub acl: u64,
    /// What the row events of each table are like.
    pub shapes: BTreeMap<TableKey, RowShape>,
    /// Transactions, counted from 0, that must be replayed statement by statement: a part of them
    /// was rolled back, they are XA transactions, or statements changed their rows.
    pub one_by_one: Numbers,
    /// Statements that are replayed as text and may do something else than they did on the
    /// source, as on any replica: a sentence each, at most 20.
    pub unsafe_statements: Vec<String>,
    /// All of them, the listed ones included.
    pub unsafe_count: u64,
    /// Connections of the source that made temporary tables in the range.
    temporaries: BTreeSet<u32>,
}

impl Summary {
    /// An error when something in the range can't be replayed.
    ///
    /// # Errors
    /// See there.
    pub fn check(&self) -> Result<(), Error> {
        if self.refused_count == 0 {
            return Ok(());
        }
        let mut text = format!(
            "{} transaction(s) of the range can't be replayed exactly; nothing was written:",
            self.refused_count
        );
        for line in &self.refused {
            text.push_str("\n  ");
            text.push_str(line);
        }
        let more = self.refused_count.saturating_sub(self.refused.len() as u64);
        if more > 0 {
            text.push_str(&format!("\n  and {more} more"));
        }
        Err(Error::Refused(text))
    }

    pub(crate) fn add(&mut self, transaction: &Transaction, file: &Arc<str>) {
        let place = |position| EventPlace { file: Arc::clone(file), position };
        self.last_commit_micros = transaction.commit_micros;
        self.last_gtid.clone_from(&transaction.gtid);
        self.statements(transaction, file);
        // Servers log DROP TEMPORARY of tables that they never logged, too: it does nothing.
        let by_statement = transaction.oddities.iter().any(|odd| match odd.oddity {
            Oddity::Xa | Oddity::Load | Oddity::StatementDml => true,
            Oddity::TemporaryTable => !self.temporaries.is_empty(),
            _ => false,
        });
        if by_statement {
            self.one_by_one.insert(self.transactions);
        }
        self.transactions += 1;
        for refusal in refusals(transaction, &self.temporaries) {
            self.refuse(refusal.sentence(file));
        }
        // MariaDB's START ALTER has no effect, ROLLBACK ALTER neither.
        use holdfast_binlog::gtid_event::AlterPhase;
        if matches!(transaction.alter, Some(AlterPhase::Start | AlterPhase::Rollback { .. })) {
            return;
        }
        for note in &transaction.statements {
            match note.verb {
                Verb::Ddl if note.temporary => {}
                Verb::Ddl | Verb::CtasStart => {
                    self.ddl += 1;
                    for key in &note.tables {
                        *self.fences.entry(key.clone()).or_default() += 1;
                    }
                    self.definition(note, &place(note.position));
                }
                Verb::Acl => self.acl += 1,
                _ => {}
            }
        }
        for (key, counts) in &transaction.tables {
            self.rows += counts.total();
            match self.tables.get_mut(&**key) {
                Some(table) => table.rows.add(counts),
                None => self.table(key).rows.add(counts),
            }
        }
    }

    fn refuse(&mut self, sentence: String) {
        self.refused_count += 1;
        if self.refused.len() < LISTED {
            self.refused.push(sentence);
        }
    }

    /// Statements that change rows, and temporary tables.
    fn statements(&mut self, transaction: &Transaction, file: &str) {
        for note in &transaction.statements {
            if note.verb == Verb::Ddl && note.temporary && note.action == Action::Create {
                self.temporaries.insert(note.thread);
            }
            if note.verb != Verb::Dml {
                continue;
            }
            if let Some(part) = unsafe_part(note.text.as_bytes(), 0) {
                self.unsafe_count += 1;
                if self.unsafe_statements.len() < LISTED {
                    let start: String = note.text.chars().take(80).collect();
                    let place = note.position;
                    self.unsafe_statements.push(format!("`{start}` at {file}:{place} ({part})"));
                }
            }
        }
    }

    fn table(&mut self, key: &TableKey) -> &mut TableChanges {
        self.tables.entry(key.clone()).or_default()
    }

    fn definition(&mut self, note: &StatementNote, place: &EventPlace) {
        if note.object == Object::Database && note.action == Action::Drop {
            for (_, changes) in self.tables.iter_mut() {
                // The statement's text names the database; what else it could be costs a count only.
                changes.uncounted_from.get_or_insert_with(|| place.clone());
            }
            return;
        }
        if !matches!(note.object, Object::Table | Object::Sequence) {
            return;
        }
        match note.action {
            Action::Create | Action::Truncate => {
                for key in &note.tables {
                    let fresh = TableChanges { emptied: true, ..TableChanges::default() };
                    *self.table(key) = fresh;
                }
            }
            Action::Drop => {
                for key in &note.tables {
                    let gone = TableChanges { gone: true, ..TableChanges::default() };
                    *self.table(key) = gone;
                }
            }
            Action::Rename => {
                for pair in note.tables.chunks_exact(2) {
                    if let [from, to] = pair {
                        self.rename(from, to, place);
                    }
                }
            }
            Action::Alter => {
                if let [table, to] = note.tables.as_slice() {
                    self.rename(table, to, place);
                }
                let upper = note.text.to_ascii_uppercase();
                let last = note.tables.last().cloned();
                if let Some(key) = last.filter(|_| upper.contains("PARTITION")) {
                    self.table(&key).uncounted_from.get_or_insert_with(|| place.clone());
                }
            }
            _ => {}
        }
    }

    fn rename(&mut self, from: &TableKey, to: &TableKey, place: &EventPlace) {
        let mut moved = self.tables.remove(from).unwrap_or_default();
        if !moved.emptied {
            // The base counted it under its old name.
            moved.uncounted_from.get_or_insert_with(|| place.clone());
        }
        let gone = TableChanges { gone: true, ..TableChanges::default() };
        self.tables.insert(from.clone(), gone);
        self.tables.insert(to.clone(), moved);
    }
}

/// Events of LOAD DATA that have the file and the statement.
const FILES: [EventType; 4] = [
    EventType::BEGIN_LOAD_QUERY,
    EventType::APPEND_BLOCK,
    EventType::EXECUTE_LOAD_QUERY,
    EventType::DELETE_FILE,
];

struct Refusal {
    what: &'static str,
    event: String,
    position: u64,
    subject: Option<String>,
}

impl Refusal {
    fn sentence(&self, file: &str) -> String {
        let subject = self.subject.as_ref().map_or_else(String::new, |s| format!(", `{s}`"));
        format!("{} ({} at {file}:{}{subject})", self.what, self.event, self.position)
    }
}

/// Everything in a transaction that can't be replayed.
fn refusals(transaction: &Transaction, temporaries: &BTreeSet<u32>) -> Vec<Refusal> {
    let tables = || {
        let names: Vec<String> = transaction.tables.keys().take(5).map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let mut out: Vec<Refusal> = transaction
        .oddities
        .iter()
        .filter_map(|odd| {
            Some(Refusal {
                what: match odd.oddity {
                    // One whose file is in the log is replayed.
                    Oddity::Load if FILES.contains(&odd.event) => return None,
                    Oddity::Load => "LOAD DATA as an old server logs it",
                    Oddity::Xa
                    | Oddity::PartialJson
                    | Oddity::StatementDml
                    | Oddity::TemporaryTable
                    | Oddity::Variable => return None,
                    Oddity::Incident => "an incident: the source says that its log lacks something",
                    Oddity::Encryption => "an encrypted log: archive it from the server's stream",
                    Oddity::UnknownStatement => "a statement of an unknown kind",
                    Oddity::FailedStatement => {
                        "a statement that failed on the source after it took effect in part"
                    }
                },
                event: odd.event.to_string(),
                position: odd.position,
                subject: odd.subject.clone().or_else(tables),
            })
        })
        .collect();
    let mut refuse = |what, position, subject| {
        out.push(Refusal { what, event: "QUERY event".to_owned(), position, subject });
    };
    // Of statements, some are noted; what they are is told in any case.
    let changed = !transaction.tables.is_empty()
        || transaction.oddities.iter().any(|odd| match odd.oddity {
            Oddity::StatementDml => true,
            Oddity::Load => odd.event == EventType::EXECUTE_LOAD_QUERY,
            _ => false,
        });
    if transaction.rolled_back && changed {
        refuse(
            "a rolled-back transaction with changes of non-transactional tables",
            transaction.start,
            tables(),
        );
    }
    for note in &transaction.statements {
        let upper = note.text.to_ascii_uppercase();
        // CONNECTION_ID() is given again; a table that is not in the base can't be.
        let lost = note.verb == Verb::Dml && note.thread_specific && !temporaries.contains(&note.thread);
        if lost && !upper.contains("CONNECTION_ID") {
            let text = note.text.chars().take(80).collect();
            refuse("a statement on a temporary table made before the range", note.position, Some(text));
        }
        if note.verb == Verb::Ddl && crate::ddl::makes_a_file_elsewhere(&note.text) {
            let text = note.text.chars().take(80).collect();
            refuse("a tablespace whose file lies outside of the server's folder", note.position, Some(text));
        }
        let own_account = upper.contains("CURRENT_USER") || upper.contains("CURRENT_ROLE");
        if note.verb == Verb::Acl && own_account {
            let text = note.text.chars().take(80).collect();
            refuse("a statement about the account that ran it", note.position, Some(text));
        }
        if note.text.len() >= holdfast_binlog::transaction::TEXT_MAX && note.verb == Verb::Acl {
            refuse("a statement about accounts that is too long to be read", note.position, None);
        }
    }
    out
}

/// Rows of more than 768 MiB: a server logs what it would not take back.
fn too_long(row: &LongRow, transaction: &Transaction, file: &str, packet_max: u64) -> String {
    let id = match &transaction.gtid {
        Some(gtid) => format!("gtid:{gtid}"),
        None => format!("pos:{file}:{}", transaction.start),
    };
    format!(
        "a row of {} that needs a packet of {} bytes, of {packet_max} that a server takes (in the transaction at {file}:{}; \
         what came before it can be restored: --before {id})",
        row.table, row.needed, transaction.start
    )
}

/// Reads the whole range.
///
/// # Errors
/// Fails when the log can't be read. What can't be replayed is in the summary, see [`Summary::check`].
pub fn scan(log: &dyn Log) -> Result<Summary, Error> {
    ahead::read(log, |events| look_through(events, PACKET_MAX))
}

/// `packet_max`: bytes of the longest packet that the server takes.
fn look_through(events: &mut Events<'_>, packet_max: u64) -> Result<Summary, Error> {
    let (mut walker, mut assembler) = (Walker::behind_another(), Assembler::new());
    let mut summary = Summary::default();
    let mut survey = Survey::new(packet_max);
    let mut last = EventPlace::default();
    while let Some((place, event)) = events.next()? {
        walker.set_position(place.position);
        let found = walker.whole(event).map_err(Error::binlog(place))?;
        summary.bytes += event.len() as u64;
        let Some(format) = walker.format() else { continue };
        let body = found.parse(format).map_err(Error::binlog(place))?;
        survey.event(&found, &body, format).map_err(Error::binlog(place))?;
        let pushed = assembler.push_body(&found, &body, format).map_err(Error::binlog(place))?;
        if let Pushed::End(transaction) = pushed {
            if survey.end() || transaction.rolled_back {
                summary.one_by_one.insert(summary.transactions);
            }
            summary.add(&transaction, &place.file);
            if let Some(row) = survey.long_row() {
                summary.refuse(too_long(&row, &transaction, &place.file, packet_max));
            }
            let file = survey.file_bytes();
            if file > LOADED_MAX {
                summary.refuse(format!(
                    "LOAD DATA of {file} bytes, of {LOADED_MAX} that are held at once (at {place})"
                ));
            }
        }
        last.go_to(place);
    }
    if assembler.is_open() {
        return Err(Error::Refused(format!("the log ends at {last} in the middle of a transaction")));
    }
    summary.shapes = survey.shapes();
    for (table, shape) in &summary.shapes {
        if let Some(changes) = summary.tables.get_mut(table) {
            changes.unlogged_cascades = shape.unlogged_deletes || shape.unlogged_updates;
        }
    }
    Ok(summary)
}

#[cfg(test)]
mod tests;
