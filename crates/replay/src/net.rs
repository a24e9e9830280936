//! Replay of the net change: nobody reads the server meanwhile, so only the end state has to be right.
//!
//! A window takes in a stretch of the log, row by row, and holds for each primary key what came
//! of it (`merge.rs`), on a thread of its own beside the one that goes through the log (`beside.rs`);
//! tables for which that is not exact go into lanes, in order (`class.rs` has the rules, `lane.rs`). A full window becomes a plan (`plan.rs`), which the appliers (`appliers.rs`) carry out on
//! many connections. What is no change of rows (definitions, accounts, tables without
//! transactions) is a fence: the window is applied, then the serial applier does it.
//!
//! A table that turns out not to fit steps down to a lane, and the window is built anew, as long
//! as nothing of it was committed. If something was, the replay ends with [`Error::Surprise`]: a restore lays the
//! base out again, and lets the table step down before the replay begins ([`step_down`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use holdfast_binlog::event::{Event, Header};
use holdfast_binlog::rows::Rows;
use holdfast_binlog::tables::{Table, TableCache, TableKey};
use holdfast_mysql::Conn;

use crate::appliers::{Applier, Running};
use crate::checkpoint::{self, Checkpoint, WindowNote};
use crate::error::Error;
use crate::history::History;
use crate::log::{BoxError, EventPlace, Log};
use crate::scan::Summary;
use crate::serial::{self, Lead, Outcome, Progress};
use crate::session::Session;

pub(crate) mod bag;
pub(crate) mod beside;
pub(crate) mod catalogue;
pub(crate) mod class;
mod image;
pub(crate) mod key;
pub(crate) mod lane;
pub(crate) mod merge;
pub(crate) mod plan;
pub(crate) mod window;

pub use class::Class;

use beside::Halt;
use catalogue::Catalogue;
use merge::{Merge, Stop};
use plan::{ChunkSize, Plan};
use window::{Way, Window};

/// How a range is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// One by one, in order, on one connection.
    Serial,
    /// In order within each table, tables side by side.
    Ordered,
    /// Net change where the rules allow it, in order elsewhere.
    Net,
    /// `Net`, but `Serial` for a range so short that connections are not worth opening.
    #[default]
    Auto,
}

/// Row changes below which `Auto` is `Serial`: opening connections and reading definitions
/// takes longer than these.
const AUTO_ROWS: u64 = 200;

/// Options of a replay on several connections.
#[derive(Debug, Clone)]
pub struct Options {
    /// The way.
    pub mode: Mode,
    /// Number of appliers; 0: as many as processors.
    pub connections: usize,
    /// Row data of one transaction, at most. 4 MiB was the fastest that was measured: some ten thousand rows. Short
    /// windows have smaller ones, so that all connections have work to the end.
    pub chunk_bytes: usize,
    /// Memory for a window, by an estimate that is low where rows are narrow. One is applied while the next is filled and
    /// one becomes a plan: the whole engine has taken four times as much where it took most (docs/campaigns.md).
    pub memory_bytes: usize,
    /// A window of so many bytes is applied although more would fit, if the server has nothing to do and
    /// little would be merged. With 4 MiB it was no faster: more rows are written twice than reading costs.
    pub early_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            connections: 0,
            chunk_bytes: 4 << 20,
            memory_bytes: 80 << 20,
            early_bytes: 24 << 20,
        }
    }
}

/// Opens a further connection to the private server.
pub type Connect<'a> = dyn Fn() -> Result<Conn, BoxError> + 'a;

/// Applies the log to the server behind `conn`, as `options` say. `summary` is what
/// [`crate::scan::scan`] found in the same log. May be killed at any moment; the same call on a
/// new connection goes on.
///
/// # Errors
/// As [`serial::replay`].
pub fn run(
    conn: &mut Conn,
    connect: &Connect<'_>,
    log: &dyn Log,
    plan: &serial::Options,
    options: &Options,
    summary: &Summary,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let short = options.mode == Mode::Auto && summary.rows < AUTO_ROWS;
    let mut steps = Steps::default();
    let mut resumed_after = None;
    loop {
        let mut lead = Lead::open(conn, plan, progress)?;
        let checkpoint = lead.checkpoint().clone();
        let resumed_after = *resumed_after.get_or_insert(checkpoint.done);
        // A window under way is finished, whatever the mode of this call.
        if !(options.mode == Mode::Serial || short) || checkpoint.window.is_some() {
            steps.read(&checkpoint);
            let net = Net::new(options, connect, summary, &checkpoint, &mut steps, lead.conn())?;
            lead.use_net(net);
        }
        match lead.run(log) {
            Err(Error::Surprise { .. }) if steps.fresh => {
                steps.fresh = false;
                conn.execute("ROLLBACK").map_err(Error::server("rolling back"))?;
                // Temporary tables made behind the checkpoint must go, too.
                *conn = connect().map_err(Error::Connect)?;
                checkpoint::step_down(conn, &steps.write())?;
            }
            Ok(outcome) => {
                let applied = (outcome.applied + outcome.resumed_after).saturating_sub(resumed_after);
                return Ok(Outcome { applied, resumed_after, ..outcome });
            }
            Err(error) => return Err(error),
        }
    }
}

/// Tables that net change did not fit, and why: what [`Error::Surprise`] says of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SteppedDown {
    /// The tables.
    pub tables: Vec<TableKey>,
    /// Why.
    pub why: String,
    /// All that foreign keys join them with goes with them.
    pub together: bool,
}

/// Lets tables be replayed in order from the start, on a fresh copy of a base. For one that is laid out anew because
/// a replay ended with [`Error::Surprise`]: the same would happen again. Goes before [`run`], on the same connection.
///
/// # Errors
/// As [`checkpoint::open`].
pub fn step_down(conn: &mut Conn, plan: &serial::Options, all: &[SteppedDown]) -> Result<(), Error> {
    serial::prepare(conn)?;
    let checkpoint = checkpoint::open(conn, &plan.plan, &plan.boot_id, plan.done)?;
    let mut steps = Steps::default();
    steps.read(&checkpoint);
    for SteppedDown { tables, why, together } in all {
        steps.tables.extend(tables.iter().map(|key| (key.clone(), (*together, why.clone()))));
    }
    checkpoint::step_down(conn, &steps.write())
}

/// Tables that stepped down.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// With all that foreign keys join them with (true), or alone; and why.
    tables: BTreeMap<TableKey, (bool, String)>,
    /// One was added since the last note, and the window can be built anew.
    fresh: bool,
}

impl Steps {
    fn read(&mut self, checkpoint: &Checkpoint) {
        let text = String::from_utf8_lossy(&checkpoint.ordered).into_owned();
        for line in text.lines() {
            let mut fields = line.split('\t');
            let mut field = || fields.next().unwrap_or_default().replace("\\t", "\t").replace("\\n", "\n");
            let (together, database, table, why) = (field() == "1", field(), field(), field());
            self.tables.insert(TableKey { database, table }, (together, why));
        }
    }

    fn write(&self) -> Vec<u8> {
        let clean = |text: &str| text.replace('\t', "\\t").replace('\n', "\\n");
        let line = |(key, (together, why)): (&TableKey, &(bool, String))| {
            format!(
                "{}\t{}\t{}\t{}\n",
                u8::from(*together),
                clean(&key.database),
                clean(&key.table),
                clean(why)
            )
        };
        self.tables.iter().map(line).collect::<String>().into_bytes()
    }
}

/// What was decided about a table.
#[derive(Debug, Clone)]
struct Decision {
    class: Class,
    /// Its lane, if it has one.
    lane: TableKey,
    /// The session of its changes may count.
    computed: bool,
    /// Its rows are found by scanning, in an order that unique keys may not bear.
    apart: bool,
    /// Columns that children follow when they change.
    followed: Vec<u16>,
}

/// The state of a replay of net change, beside that of the serial applier.
pub(crate) struct Net<'a> {
    pub(crate) options: Options,
    connect: &'a Connect<'a>,
    summary: &'a Summary,
    catalogue: Catalogue,
    /// For questions: the first connection is in the session of some statement.
    asking: Conn,
    history: History,
    decisions: foldhash::HashMap<Arc<TableKey>, Arc<Decision>>,
    steps: &'a mut Steps,
    pub(crate) window: Window,
    /// Those that have nothing to do.
    pub(crate) appliers: Vec<Applier>,
    /// The window before, which the others apply.
    pub(crate) running: Option<Running>,
    /// The window that was under way when an earlier call was killed.
    pub(crate) note: Option<WindowNote>,
    pub(crate) committed: HashSet<u32>,
    /// What each table was replayed as.
    pub(crate) classes: BTreeMap<TableKey, Class>,
    /// What nobody was told yet: tables that are replayed in order and why, and what the replay goes on without.
    pub(crate) news: Vec<String>,
    /// Something that it goes on without was told of.
    short: bool,
    /// The log's format as a statement, and its number.
    pub(crate) format: (u64, String),
}

impl<'a> Net<'a> {
    fn new(
        options: &Options,
        connect: &'a Connect<'a>,
        summary: &'a Summary,
        checkpoint: &Checkpoint,
        steps: &'a mut Steps,
        conn: &mut Conn,
    ) -> Result<Self, Error> {
        let mut options = options.clone();
        if options.connections == 0 {
            options.connections = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        }
        options.connections = options.connections.min(checkpoint::APPLIERS_MAX);
        let allowed = options.mode != Mode::Ordered;
        let committed = match &checkpoint.window {
            Some(_) => checkpoint::chunks(conn)?,
            None => HashSet::new(),
        };
        Ok(Self {
            options,
            connect,
            summary,
            catalogue: Catalogue::default(),
            asking: connect().map_err(Error::Connect)?,
            history: History::new(allowed),
            decisions: foldhash::HashMap::default(),
            steps,
            window: Window::default(),
            appliers: Vec::new(),
            running: None,
            note: checkpoint.window,
            committed,
            classes: BTreeMap::new(),
            news: Vec::new(),
            short: false,
            format: (0, String::new()),
        })
    }

    /// Must this transaction be replayed statement by statement?
    pub(crate) fn one_by_one(&self, number: u64) -> bool {
        self.summary.one_by_one.contains(number)
    }

    /// A definition ran that may concern these tables; any, if there are none.
    pub(crate) fn forget(&mut self, tables: &[TableKey]) {
        self.catalogue.forget(tables);
        self.decisions.clear();
    }

    fn decide(&mut self, key: &Arc<TableKey>) -> Result<Arc<Decision>, Error> {
        if let Some(known) = self.decisions.get(key) {
            return Ok(Arc::clone(known));
        }
        let keys = self.catalogue.foreign_keys(&mut self.asking)?.to_vec();
        let joined = class::joined(key, &keys);
        let mut against = BTreeMap::new();
        let mut facts_of = HashMap::new();
        for table in &joined {
            let facts = self.catalogue.table(&mut self.asking, table)?;
            let shape = self.summary.shapes.get(table).copied().unwrap_or_default();
            let why = if self.options.mode == Mode::Ordered {
                Some("the mode is ordered".to_owned())
            } else {
                let stepped = self.steps.tables.get(table).filter(|(together, _)| !together);
                stepped.map(|(_, why)| why.clone()).or_else(|| class::against_net(facts, shape))
            };
            if let Some(facts) = facts {
                facts_of.insert(table.clone(), facts.clone());
            }
            if let Some(why) = why {
                against.insert(table.clone(), why);
            }
        }
        let stepped =
            joined.iter().find_map(|table| self.steps.tables.get(table).filter(|(together, _)| *together));
        let unlogged = stepped.map(|(_, why)| why.clone()).or_else(|| {
            class::unlogged_cascade(&joined, &keys, &self.summary.shapes, &|table| {
                against.contains_key(table)
            })
        });
        let first = joined.first().cloned().unwrap_or_else(|| TableKey::clone(key));
        let (class, lane) = match (unlogged, against.remove(&**key)) {
            (Some(why), _) => (Class::Together { why }, first),
            (None, Some(why)) => (Class::Ordered { why }, TableKey::clone(key)),
            (None, None) => (Class::Net, TableKey::clone(key)),
        };
        let facts = facts_of.remove(&**key).unwrap_or_default();
        let position = |name: &String| {
            facts.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name)).map(|at| at as u16)
        };
        let following = keys.iter().filter(|found| found.on_update && found.parent == **key);
        let mut followed: Vec<u16> =
            following.flat_map(|found| found.parent_columns.iter().filter_map(position)).collect();
        followed.sort_unstable();
        followed.dedup();
        let apart = facts.primary.is_empty() && !facts.uniques.is_empty();
        let decision = Arc::new(Decision { class, lane, computed: facts.computed, apart, followed });
        let worst = self.classes.entry(TableKey::clone(key)).or_insert(Class::Net);
        if decision.class != Class::Net && *worst != decision.class {
            self.news.push(format!("{key} is replayed {}", decision.class));
            worst.clone_from(&decision.class);
        }
        self.decisions.insert(Arc::clone(key), Arc::clone(&decision));
        Ok(decision)
    }

    /// Takes note of a TABLE_MAP event. `false`: the window must be applied first, since values
    /// are computed in another session.
    pub(crate) fn table_map(
        &mut self,
        event: &Event<'_>,
        key: &Arc<TableKey>,
        session: impl FnOnce() -> String,
        place: &EventPlace,
    ) -> Result<bool, Error> {
        let decision = self.decide(key)?;
        if decision.computed {
            let session = session();
            match &self.window.session {
                Some(other) if *other != session => return Ok(false),
                Some(_) => {}
                None => self.window.session = Some(session),
            }
        }
        let encode = |flaw| Error::Encode { place: place.clone(), flaw };
        self.window.table_map(event, key).map_err(encode)?;
        self.lanes_of_statement()?;
        Ok(true)
    }

    /// Gives each table of the statement under way its lane. Those in one lane go to the server
    /// with the first rows of any of them, which opens them all: rows of one that it did not
    /// open are dropped without a word.
    fn lanes_of_statement(&mut self) -> Result<(), Error> {
        for key in self.window.undecided() {
            let decision = self.decide(&key)?;
            let together = matches!(decision.class, Class::Together { .. });
            if together || matches!(decision.class, Class::Ordered { .. }) {
                self.window.add_to_lane(&key, &decision.lane, together, decision.apart);
            }
        }
        Ok(())
    }

    /// Takes a row event. `false`: the window must be applied first.
    pub(crate) fn rows(
        &mut self,
        header: &Header,
        rows: &Rows<'_>,
        tables: &mut TableCache,
        place: &EventPlace,
    ) -> Result<bool, Error> {
        let flaw = |flaw| Error::Encode { place: place.clone(), flaw };
        if rows.is_dummy() {
            self.window.end_of(rows.flags, place).map_err(flaw)?;
            return Ok(true);
        }
        let Some(table) = tables.get(rows.table_id) else {
            let got = format!("none for table id {}", rows.table_id);
            return Err(flaw(holdfast_binlog::Flaw { offset: 0, expected: "a TABLE_MAP event before", got }));
        };
        let key = Arc::clone(&table.key);
        let found = self.window.way(&key);
        let (goes_on, mut fresh) = match found {
            Some(Way::Merge(at)) => (self.window.merges.goes_on(at, &table.definition, rows), None),
            Some(Way::Lane(..)) => (true, None),
            None => (true, self.new_merge(table, header, rows)?),
        };
        if !goes_on {
            return Ok(false);
        }
        let fits = match (found, &mut fresh) {
            (Some(Way::Merge(at)), _) => {
                self.window.merges.fits(at, rows, |merge| fits(merge, rows, tables), place)
            }
            (None, Some(merge)) => fits(merge, rows, tables).map_err(|stop| Halt {
                stop,
                tables: vec![Arc::clone(&key)],
                place: place.clone(),
            }),
            _ => Ok(true),
        };
        let fits = match fits {
            Ok(fits) => fits,
            Err(halt) => return Err(self.stopped(halt)),
        };
        let way = match (found, fresh) {
            (Some(Way::Merge(_)), _) if !fits => return Ok(false),
            (Some(way), _) => way,
            (None, Some(merge)) if fits => self.window.add_merge(merge),
            (None, Some(_)) => self.lane_for_now(&key, place)?,
            (None, None) => {
                self.lanes_of_statement()?;
                match self.window.way(&key) {
                    Some(way) => way,
                    None => {
                        let decision = self.decide(&key)?;
                        self.window.add_to_lane(&key, &decision.lane, false, decision.apart)
                    }
                }
            }
        };
        match self.window.rows((&key, way), header, rows, tables, place) {
            Ok(()) => {}
            Err(halt) => return Err(self.stopped(halt)),
        }
        self.window.end_of(rows.flags, place).map_err(flaw)?;
        Ok(true)
    }

    /// Where the rows of a table go that has no way yet, if it goes by net change.
    fn new_merge(&mut self, table: &Table, header: &Header, rows: &Rows<'_>) -> Result<Option<Merge>, Error> {
        let key = Arc::clone(&table.key);
        let decision = self.decide(&key)?;
        if decision.class != Class::Net {
            return Ok(None);
        }
        let facts = self.catalogue.table(&mut self.asking, &key)?;
        match facts.and_then(|facts| Merge::new(table, *header, rows, facts, decision.followed.clone())) {
            Some(merge) => Ok(Some(merge)),
            None => {
                let why = "its rows carry other columns than the table has";
                Err(self.surprise(&[key], why.to_owned(), false))
            }
        }
    }

    /// Lets the rows of a table go in order for as long as the window lasts: what the log holds of the rows to come is
    /// not enough for net change.
    fn lane_for_now(&mut self, key: &Arc<TableKey>, place: &EventPlace) -> Result<Way, Error> {
        let decision = self.decide(key)?;
        let why = "a key changes in rows of which the log holds only some columns (binlog_row_image)";
        if !decision.followed.is_empty() {
            // Nobody would look whether a key changes that other tables follow.
            return Err(self.surprise(std::slice::from_ref(key), why.to_owned(), false));
        }
        if self.classes.insert(TableKey::clone(key), Class::Ordered { why: format!("{why}, for a stretch") })
            == Some(Class::Net)
        {
            self.news.push(format!("{key} is replayed in order for a stretch from {place} on, since {why}"));
        }
        Ok(self.window.add_to_lane(key, &decision.lane, false, decision.apart))
    }

    /// Rows could not be taken.
    pub(crate) fn stopped(&mut self, halt: Halt) -> Error {
        let Halt { stop, tables, place } = halt;
        match stop {
            Stop::Flaw(flaw) => Error::Encode { place, flaw },
            Stop::Surprise(why) => self.surprise(&tables, format!("{why} (at {place})"), false),
            Stop::Cascade(why) => self.surprise(&tables, why, true),
        }
    }

    /// Net change does not fit a table (or one of these): it steps down, if nothing of the window is committed.
    pub(crate) fn surprise(&mut self, keys: &[Arc<TableKey>], why: String, together: bool) -> Error {
        let tables: Vec<TableKey> = keys.iter().map(|key| TableKey::clone(key)).collect();
        if self.committed.is_empty() {
            let steps = tables.iter().map(|key| (key.clone(), (together, why.clone())));
            self.steps.tables.extend(steps);
            self.steps.fresh = true;
        }
        Error::Surprise { tables, why, together }
    }

    /// Must the window be applied at this place?
    pub(crate) fn is_due(&self, done: u64, inside: u64) -> bool {
        match &self.note {
            Some(note) => (note.until, note.inside) == (done, inside),
            None => self.window.bytes() >= self.options.memory_bytes,
        }
    }

    /// Is it worth while to apply the window now, between transactions, although more would fit?
    pub(crate) fn can_begin(&self) -> bool {
        self.note.is_none()
            && self.window.bytes() >= self.options.early_bytes
            && self.window.grows()
            && self.running.as_ref().is_none_or(Running::is_over)
    }

    /// The size of the next plan's chunks: that on record, where a part of it may be applied.
    pub(crate) fn chunk_size(&self) -> ChunkSize {
        let Options { chunk_bytes: bytes, connections, .. } = self.options;
        match &self.note {
            Some(note) => ChunkSize::Noted(note.chunk_bytes as usize),
            None => ChunkSize::AtMost { bytes, connections },
        }
    }

    /// What becomes of a surprise behind a window that is not applied yet: nothing can step down in front of that one's end.
    pub(crate) fn hold_steps(&mut self) -> bool {
        self.running.is_some() && std::mem::take(&mut self.steps.fresh)
    }

    /// That window is applied, and nothing behind it is.
    pub(crate) fn let_steps_go(&mut self) {
        self.steps.fresh = true;
    }

    /// Makes the appliers ready for the log's format and the window's session.
    pub(crate) fn ready(&mut self, count: usize, session: &str) -> Result<(), Error> {
        while self.appliers.len() < count.min(self.options.connections) {
            match self.further() {
                Ok(applier) => self.appliers.push(applier),
                // One that is refused is one of many: those that are there do all of the work.
                Err(error @ Error::Connect(_)) if !self.appliers.is_empty() => {
                    let there = self.appliers.len();
                    self.options.connections = there;
                    self.short_of(format!(
                        "it goes on with {there} connection(s) to the server, since {error}"
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        for applier in &mut self.appliers {
            if applier.format != self.format.0 {
                serial::give_format(&mut applier.conn, &self.format.1)?;
                applier.format = self.format.0;
            }
            applier.session.apply_text(&mut applier.conn, session)?;
        }
        Ok(())
    }

    fn further(&self) -> Result<Applier, Error> {
        let mut conn = (self.connect)().map_err(Error::Connect)?;
        let mariadb = serial::prepare(&mut conn)?;
        checkpoint::take_lock(&mut conn, &checkpoint::applier_lock(self.appliers.len()))?;
        Ok(Applier { conn, session: Session::new(mariadb), format: 0 })
    }

    /// This plan is about to be applied, and nothing else is: keeps what rows were, or not.
    pub(crate) fn keep_history(&mut self, plan: &Plan) {
        let connect = || (self.connect)().map_err(Error::Connect);
        self.news.extend(self.history.applies(plan.all_bytes(), !plan.has_lanes(), connect));
    }

    /// Something is about to run in the order of the log: what rows were is kept no longer.
    pub(crate) fn let_history_go(&mut self) {
        self.news.extend(self.history.let_go());
    }

    /// Tells once of something that the replay goes on without.
    pub(crate) fn short_of(&mut self, what: String) {
        if !std::mem::replace(&mut self.short, true) {
            self.news.push(what);
        }
    }

    /// The counters of tables in which the highest number came and went: rows that are there
    /// raise it themselves. Runs before the rows are applied, so a kill loses nothing.
    pub(crate) fn raise_counters(&mut self, counters: &[(Arc<TableKey>, u64)]) -> Result<(), Error> {
        for (table, highest) in counters {
            if catalogue::counter(&mut self.asking, table)? <= *highest {
                let name = crate::sql::table(&table.database, &table.table);
                let next = highest.saturating_add(1);
                self.asking
                    .execute(format!("ALTER TABLE {name} AUTO_INCREMENT = {next}"))
                    .map_err(Error::server("raising a counter"))?;
            }
        }
        Ok(())
    }
}

/// Is what the log holds of these rows enough for net change?
fn fits(merge: &mut Merge, rows: &Rows<'_>, tables: &mut TableCache) -> Result<bool, Stop> {
    if merge.is_full_of_sets() {
        return Ok(false);
    }
    if rows.is_whole(rows.present_after.unwrap_or(rows.present)) {
        return Ok(true);
    }
    let (_, plan) = tables.plan(rows)?;
    let mut scratch = Vec::new();
    merge.fits(&rows.inflated(&mut scratch)?, &plan)
}

#[cfg(test)]
mod tests;
