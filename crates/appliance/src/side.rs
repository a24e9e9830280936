//! `restore --into-server`: tables as of a moment, in a schema of their own beside the running server's tables.
//!
//! The moment is restored and proved in a folder to work in, as any restore of some tables is, and read from there through
//! SQL into a schema that nobody has yet (`schema.rs`, `then.rs`, `copy.rs`). Then the running server compares each table
//! with its copy (`compare.rs`), and a script is made that puts rows back (`back.rs`). No table that was there is written to.

mod back;
mod compare;
mod copy;
mod schema;
mod script;
mod session;
mod then;

use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::export::sql::dump;
use crate::moment;
use crate::progress::Watcher;
use crate::restore::{Options, Plan, RestoredView, Tables, Target};
use crate::scratch::Scratch;
use crate::settings::Login;
use crate::time::{Micros, parse_time};
use crate::undo::connection;
use back::{Deed, Line};
use compare::{Looked, Pair};
use copy::{Progress, Sum, Trouble};
use holdfast_binlog::tables::TableKey;
use holdfast_engine::PrivateServer;
use holdfast_format::gtid::Flavor;
use holdfast_format::record::{ServerKind, ServerRecord};
use holdfast_mysql::Conn;
use holdfast_restore::catalog::quoted_table;
use holdfast_restore::run::SHUTDOWN_LIMIT;
use jiff::Timestamp;
use schema::Purpose;
pub use script::plain;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use then::Then;

/// What a server says.
type Refused<T> = holdfast_mysql::Result<T>;

/// Letters of a schema's name.
const NAME_LETTERS_MAX: usize = 64;

/// Longest wait for one statement: the comparison of two tables is one.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(86_400);

/// What is copied where, beside the moment and the tables.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The running server; the protected one without it.
    pub on: Option<(ServerKind, Login)>,
    /// The schema's name, in place of one of database and moment.
    pub schema: Option<String>,
    /// Folder to work in; one of our own in the spool without it.
    pub scratch: Option<PathBuf>,
    /// Keep the copy out of the server's binary log.
    pub no_binlog: bool,
    /// New file for the script that puts rows back.
    pub copy_back: Option<PathBuf>,
    /// The script deletes rows that are new, too.
    pub deletes: bool,
}

/// A table that was copied.
#[derive(Clone, Debug, Serialize)]
pub struct TableView {
    /// The table.
    pub table: String,
    /// Its copy.
    pub copy: String,
    /// Rows of the copy.
    pub rows: u64,
    /// Rows that are gone since; none where they can't be compared.
    pub only_then: Option<u64>,
    /// Rows that are new since.
    pub only_now: Option<u64>,
    /// Rows that have other values since.
    pub changed: Option<u64>,
    /// Why the table was not compared.
    pub not_compared: Option<String>,
    /// What else is not the same.
    pub notes: Vec<String>,
}

/// Tables beside those of a running server.
#[derive(Clone, Debug, Serialize)]
pub struct SideView {
    /// The running server's address.
    pub at: String,
    /// The schemas that were made.
    pub schemas: Vec<String>,
    /// The tables.
    pub tables: Vec<TableView>,
    /// What to know of the copy.
    pub notes: Vec<String>,
    /// What would stop the script, or leave rows without their parents.
    pub conflicts: Vec<String>,
    /// What to know before the script is run.
    pub warnings: Vec<String>,
    /// The file of the script.
    pub copy_back: Option<String>,
    /// The script that puts rows back, line by line.
    pub script: Vec<String>,
    /// The restore that the rows were read from, with its proof.
    pub restored: RestoredView,
}

/// Where tables go.
struct Places {
    /// The schema of all of them.
    schema: Option<String>,
    /// As names of schemas have it.
    moment: String,
    /// Tables with another name.
    renamed: Vec<(TableKey, TableKey)>,
}

impl Places {
    fn of(&self, table: &TableKey) -> TableKey {
        let own = || self.schema.clone().unwrap_or_else(|| format!("{}__at_{}", table.database, self.moment));
        match self.renamed.iter().find(|(from, _)| from == table) {
            Some((_, to)) if to.database != table.database => to.clone(),
            Some((_, to)) => TableKey { database: own(), table: to.table.clone() },
            None => TableKey { database: own(), table: table.table.clone() },
        }
    }
}

/// The moment that a name of a schema tells: that of the target, or of the last transaction that is in.
fn moment_of(target: &Target, plan: &Plan) -> Micros {
    let last = plan.last_kept.as_ref().and_then(|facts| facts.committed_us);
    let at = match target.0 {
        holdfast_restore::Target::Time(at) => Some(at),
        _ => last.or_else(|| parse_time(&plan.base_finished).ok()),
    };
    at.unwrap_or_default()
}

fn words_of(at: Micros) -> String {
    Timestamp::from_microsecond(at)
        .map_or_else(|_| "unknown".to_owned(), |at| at.strftime("%Y%m%d_%H%M%S").to_string())
}

fn told(error: &dyn std::error::Error) -> Error {
    Error::failed(sentence(&error.to_string()))
}

fn interrupted() -> Error {
    Error::new(Code::Interrupted, "The copy was interrupted; what there is of it is marked as unfinished.")
        .with_next("run the same command again: it clears that and begins anew")
}

/// What the running server said, with what the account may lack.
fn refused(conn: &Conn, error: &holdfast_mysql::Error) -> Error {
    const DENIED: [u16; 5] = [1044, 1045, 1142, 1143, 1227];
    let said = crate::undo::said(conn, error);
    match error.code() {
        Some(code) if DENIED.contains(&code) => said.with_next(
            "name an account (--user) that may CREATE, ALTER, DROP, INDEX, INSERT, DELETE and SELECT in the new schema, \
             REFERENCES for foreign keys, SELECT on the tables that it is compared with; and, for --no-binlog, set sql_log_bin, or else binlog_format where that is not ROW",
        ),
        _ => said.with_next("the same command clears what there is of the copy, and begins anew"),
    }
}

/// Restores the tables, copies them into a schema of their own, compares them with what is there, and writes the script.
/// `options.into` is not used; `options.tables` must be there.
///
/// # Errors
/// As [`crate::restore::restore`]; `Usage` where the schema exists, `Locked` where another command fills it, `ProofFailed` where
/// the copy does not read as what was copied.
pub fn side(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    wanted: &Wanted,
    watcher: &dyn Watcher,
) -> Result<SideView> {
    let server = catalogue.server(name)?;
    let Some(Tables(tables)) = options.tables.clone() else {
        return Err(Error::usage("Which tables are to be copied into the running server?")
            .with_next("name them with --table DB.T, or --database DB"));
    };
    let databases: BTreeSet<&String> =
        tables.tables.iter().map(|table| &table.database).chain(&tables.databases).collect();
    if wanted.schema.is_some() && databases.len() > 1 {
        return Err(Error::usage("--schema takes the tables of one database.")
            .with_next("leave --schema away, or give one command for each database"));
    }
    let mut schema_words = wanted.schema.as_ref().map_or_else(String::new, |schema| format!(" in {schema}"));
    if wanted.no_binlog {
        // What one that is logged would drop is not on the replicas.
        schema_words.push_str(", not in the binary log");
    }
    let mut conn = connection(catalogue, &server, wanted.on.as_ref())?;
    let id: String = server.id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let purpose = Purpose::new(
        &format!("'{name}' at {}: {}{schema_words}", options.target.0, tables.words()),
        &format!("{id} {}", conn.endpoint()),
    );
    if let Some(file) = &wanted.copy_back {
        script::refuse_file(file, &purpose)?;
    }
    refuse_other_family(&server, &conn)?;
    // A restore takes its time: what would stop the copy is said before it, as far as it is known by now.
    let known = match options.target.0 {
        holdfast_restore::Target::Time(at) => Some(words_of(at)),
        _ => None,
    };
    if let Some(moment) = known.or_else(|| wanted.schema.as_ref().map(|_| String::new())) {
        let places = Places { schema: wanted.schema.clone(), moment, renamed: Vec::new() };
        for database in databases {
            let schema = places.of(&TableKey { database: database.clone(), table: String::new() }).database;
            refuse_long(&schema)?;
            schema::refuse_taken(&mut conn, &schema, &purpose)?;
        }
    }
    drop(conn);

    let place = wanted.scratch.clone().unwrap_or_else(|| catalogue.environment.spool.join(purpose.folder()));
    let scratch = Scratch::take(&place)?;
    // Names are given on the way out.
    let plain = holdfast_restore::Wanted { renamed: Vec::new(), ..tables.clone() };
    let within = Options { tables: Some(Tables(plain)), going_on: false, delta: None, ..options.clone() };
    let (scratch, within, restored) = moment::restore(catalogue, name, &within, scratch, watcher)?;
    let job = Job { catalogue, server: &server, wanted, tables: &tables, purpose: &purpose, watcher };
    let done = job.run(&options.target, &within, restored);
    // Why it failed matters more than that its folder stays.
    let cleared = scratch.clear();
    let view = done?;
    cleared?;
    Ok(view)
}

fn refuse_other_family(server: &ServerRecord, conn: &Conn) -> Result<()> {
    let mariadb = conn.server().is_mariadb();
    match server.flavor {
        Some(flavor) if (flavor == Flavor::MariaDb) != mariadb => Err(Error::usage(format!(
            "'{}' is a server of {}, and the one at {} is not: its definitions mean something else there.",
            server.name,
            if mariadb { "MySQL" } else { "MariaDB" },
            conn.endpoint()
        ))
        .with_next(
            "name a server of the same family; `holdfast export --sql` writes a script to adapt by hand",
        )),
        _ => Ok(()),
    }
}

fn refuse_long(schema: &str) -> Result<()> {
    if schema.chars().count() > NAME_LETTERS_MAX {
        return Err(Error::usage(format!("The name {schema} is longer than a server takes."))
            .with_next("give the schema a name with --schema"));
    }
    Ok(())
}

/// One copy.
struct Job<'a> {
    catalogue: &'a Catalogue,
    server: &'a ServerRecord,
    wanted: &'a Wanted,
    tables: &'a holdfast_restore::Wanted,
    purpose: &'a Purpose,
    watcher: &'a dyn Watcher,
}

impl Job<'_> {
    fn run(&self, target: &Target, within: &Options, restored: RestoredView) -> Result<SideView> {
        let purpose = "the server that tables are copied from";
        let name = &self.server.name;
        let private = moment::start(self.catalogue, name, within, &restored, purpose, self.watcher)?;
        let private = private.ok_or_else(interrupted)?;
        let mut conn = connection(self.catalogue, self.server, self.wanted.on.as_ref())?;
        conn.set_read_timeout(STATEMENT_TIME_MAX);
        let places = Places {
            schema: self.wanted.schema.clone(),
            moment: words_of(moment_of(target, &restored.report.plan)),
            renamed: self.tables.renamed.clone(),
        };
        let mut view = SideView {
            at: conn.endpoint().to_owned(),
            schemas: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            conflicts: Vec::new(),
            warnings: Vec::new(),
            copy_back: None,
            script: Vec::new(),
            restored,
        };
        let copied = self.copy(&private, &mut conn, &places, &mut view)?;
        if self.wanted.no_binlog {
            view.notes.push(
                "the copy is not in the binary log: SET SESSION sql_log_bin = 0 before you drop it, or its replicas stop at \
                 a schema that they do not have"
                    .to_owned(),
            );
        }
        private.stop(SHUTDOWN_LIMIT).map_err(|e| told(&e))?;
        let said = |conn: &Conn, e: holdfast_mysql::Error| refused(conn, &e);
        self.watcher.reading(crate::progress::Reading { phase: "compare", ..Default::default() });
        let lines = self.compare(&mut conn, &copied, &mut view).map_err(|e| said(&conn, e))?;
        view.script = script::text(&lines, &view, self.purpose);
        if let Some(file) = &self.wanted.copy_back {
            script::write_whole(file, &view.script, self.purpose)?;
            view.copy_back = Some(file.display().to_string());
        }
        // The last step: before it, all of this is done again by the same command.
        schema::finish(&mut conn, &view.schemas).map_err(|e| said(&conn, e))?;
        Ok(view)
    }

    /// Copies all tables and proves the copies. Gives each with its copy's name.
    fn copy(
        &self,
        private: &PrivateServer,
        conn: &mut Conn,
        places: &Places,
        view: &mut SideView,
    ) -> Result<Vec<(Then, TableKey, String)>> {
        let mut from = private.connect().map_err(|e| told(&e))?;
        from.set_read_timeout(Duration::from_secs(3600));
        let private_said = |e: holdfast_mysql::Error| {
            Error::failed(format!("The restored server said: {}", sentence(&e.to_string())))
        };
        let wanted = then::Wanted { tables: &self.tables.tables, databases: &self.tables.databases };
        let tables = then::read(&mut from, &wanted, &mut view.warnings).map_err(private_said)?;
        let mut copies: Vec<(Then, TableKey, String)> = Vec::new();
        for table in tables {
            let into = places.of(&table.key);
            refuse_long(&into.database)?;
            if into.table.eq_ignore_ascii_case(schema::MARK) {
                return Err(Error::usage(format!("{} has the name of our own mark.", table.key))
                    .with_next(format!("give it another one: --table {}:NEW", table.key)));
            }
            if let Some((other, ..)) = copies.iter().find(|(_, there, _)| *there == into) {
                return Err(Error::usage(format!(
                    "{} and {} would both be called {into}.",
                    other.key, table.key
                ))
                .with_next("give one of them another name: --table DB.T:NEW"));
            }
            let defaults = then::defaults(&mut from, &table.key.database).map_err(private_said)?;
            copies.push((table, into, defaults));
        }
        let said = |conn: &Conn, e: holdfast_mysql::Error| refused(conn, &e);
        session::set_up(conn, self.wanted.no_binlog).map_err(|e| said(conn, e))?;
        let schemas: BTreeMap<&str, &str> =
            copies.iter().map(|(_, into, defaults)| (into.database.as_str(), defaults.as_str())).collect();
        view.schemas = schemas.keys().map(|schema| (*schema).to_owned()).collect();
        let left = schema::drop_left(conn, &view.schemas, self.purpose).map_err(|e| said(conn, e))?;
        view.warnings
            .extend(left.into_iter().map(|schema| format!("the unfinished copy {schema} was dropped")));
        for (schema, defaults) in schemas {
            schema::take(conn, schema, defaults, self.purpose)?;
        }
        dump::session(&mut from).map_err(private_said)?;
        let copied = self.rows(&mut from, conn, &copies);
        let sums = copied.map_err(|trouble| match trouble {
            Trouble::Then(error) => private_said(error),
            Trouble::Now(error) => said(conn, error),
            Trouble::Cancelled => interrupted(),
            Trouble::Said(error) => error,
        })?;
        self.foreign_keys(conn, &copies, view).map_err(|e| said(conn, e))?;
        for ((table, into, _), sum) in copies.iter().zip(&sums) {
            let mut notes = Vec::new();
            if table.triggers {
                notes.push("its triggers are not in the copy".to_owned());
            }
            if table.versioned {
                notes.push("the rows that it had in the past are not in the copy".to_owned());
            }
            view.tables.push(TableView {
                table: table.key.to_string(),
                copy: into.to_string(),
                rows: sum.rows,
                only_then: None,
                only_now: None,
                changed: None,
                not_compared: None,
                notes,
            });
        }
        Ok(copies)
    }

    fn rows(
        &self,
        from: &mut Conn,
        conn: &mut Conn,
        copies: &[(Then, TableKey, String)],
    ) -> std::result::Result<Vec<Sum>, Trouble> {
        let packet = conn.query_text("SELECT @@max_allowed_packet").map_err(Trouble::Now)?;
        let packet_max = packet.and_then(|text| text.parse().ok()).unwrap_or(1 << 20);
        let total = 2 * copies.iter().map(|(table, ..)| table.bytes).sum::<u64>();
        let mut progress = Progress { watcher: self.watcher, total, finished: 0 };
        let mut sums = Vec::new();
        for (table, into, _) in copies {
            let mut run = |sql: &[u8]| conn.execute(sql).map(drop).map_err(Trouble::Now);
            // The definition may name things of its schema.
            run(format!("USE {}", holdfast_restore::catalog::quoted_name(&into.database)).as_bytes())?;
            schema::note(conn, &into.database, &into.table).map_err(Trouble::Now)?;
            let made = [format!("CREATE TABLE {}", quoted_table(into)).as_bytes(), &table.alone].concat();
            conn.execute(made).map_err(Trouble::Now)?;
            let copied = copy::rows(from, conn, table, into, packet_max, &mut progress)?;
            let there = copy::read_back(conn, table, into, &mut progress)?;
            if there != copied {
                let message = format!(
                    "The copy {into} does not read as what was copied from {}: {} rows there, {} here, and their values \
                     are compared.",
                    table.key, there.rows, copied.rows
                );
                return Err(Trouble::Said(Error::new(Code::ProofFailed, message).with_next(
                    "the schema is marked as unfinished; was anything written into it meanwhile? Give the same command again",
                )));
            }
            sums.push(copied);
        }
        Ok(sums)
    }

    /// Foreign keys between tables that were copied; others are said.
    fn foreign_keys(
        &self,
        conn: &mut Conn,
        copies: &[(Then, TableKey, String)],
        view: &mut SideView,
    ) -> Refused<()> {
        let mariadb = conn.server().is_mariadb();
        for (table, into, _) in copies {
            for foreign in &table.foreign {
                match copies.iter().find(|(other, ..)| other.key == foreign.parent) {
                    Some((_, parent, _)) => match conn.execute(foreign.added(into, parent, mariadb)) {
                        // A newer server may want more of the parent's key than the source did.
                        Err(error @ holdfast_mysql::Error::Server(_)) => view
                            .warnings
                            .push(format!("{into} is without its foreign key {}: {error}", foreign.name)),
                        other => other.map(drop)?,
                    },
                    None => view.warnings.push(format!(
                        "{into} is without its foreign key {}: {} was not copied",
                        foreign.name, foreign.parent
                    )),
                }
            }
        }
        Ok(())
    }

    /// Compares each table with its copy, and makes the script.
    fn compare(
        &self,
        conn: &mut Conn,
        copies: &[(Then, TableKey, String)],
        view: &mut SideView,
    ) -> Refused<Vec<Line>> {
        // All of it at one moment.
        conn.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")?;
        let mut pairs: Vec<Option<Pair>> = Vec::new();
        for (at, (table, into, _)) in copies.iter().enumerate() {
            let Some(shown) = view.tables.get_mut(at) else { continue };
            let looked = compare::look(conn, table, into, &table.key, &mut shown.notes)?;
            let looked = match looked {
                Looked::Pair(mut pair) => match pair.count(conn) {
                    Err(error @ holdfast_mysql::Error::Server(_)) => {
                        Looked::Not(format!("the server can't compare it: {error}"))
                    }
                    other => other.map(|()| Looked::Pair(pair))?,
                },
                other => other,
            };
            pairs.push(match looked {
                Looked::Pair(pair) => {
                    shown.only_then = Some(pair.counts.only_then);
                    shown.only_now = Some(pair.counts.only_now);
                    shown.changed = Some(pair.counts.changed);
                    Some(*pair)
                }
                Looked::Gone => {
                    shown.notes.push("the table is gone: the script makes it again".to_owned());
                    (shown.only_then, shown.only_now, shown.changed) = (Some(shown.rows), Some(0), Some(0));
                    None
                }
                Looked::Not(why) => {
                    shown.not_compared = Some(why);
                    None
                }
            });
        }
        let named: Vec<(TableKey, TableKey)> =
            copies.iter().map(|(table, into, _)| (table.key.clone(), into.clone())).collect();
        let mut deeds = Vec::new();
        for (at, (table, into, defaults)) in copies.iter().enumerate() {
            match pairs.get(at) {
                Some(Some(pair)) => {
                    self.look_ahead(conn, pair, &named, view)?;
                    deeds.push(Deed::Rows(pair));
                }
                _ if view.tables.get(at).is_some_and(|shown| shown.not_compared.is_none()) => {
                    view.conflicts.extend(compare::lost_parents(conn, table, &table.key, &named)?);
                    if table.triggers {
                        view.warnings.push(format!(
                            "{} had triggers, which the script does not make again (`holdfast export --sql --table` has them)",
                            table.key
                        ));
                    }
                    let (now, then) = (table.key.clone(), into.clone());
                    deeds.push(Deed::Again { table, now, then, defaults: defaults.clone() });
                }
                _ => {}
            }
        }
        let lines = back::script(&deeds, self.wanted.deletes);
        conn.execute("COMMIT")?;
        Ok(lines)
    }

    /// What would be in the way of the script.
    fn look_ahead(
        &self,
        conn: &mut Conn,
        pair: &Pair,
        named: &[(TableKey, TableKey)],
        view: &mut SideView,
    ) -> Refused<()> {
        let writes = pair.counts.only_then + pair.counts.changed;
        let deletes = if self.wanted.deletes { pair.counts.only_now } else { 0 };
        if writes > 0 {
            let looks = [
                ("unique keys", pair.doubles(conn, self.wanted.deletes)),
                ("foreign keys", pair.orphans(conn, named)),
            ];
            for (of, found) in looks {
                match found {
                    Err(error @ holdfast_mysql::Error::Server(_)) => view.conflicts.push(format!(
                        "{}: whether rows that come back fit its {of} was not looked at: {error}",
                        pair.now
                    )),
                    other => view.conflicts.extend(other?),
                }
            }
        }
        if writes + deletes == 0 {
            return Ok(());
        }
        if !pair.is.triggers.is_empty() {
            view.warnings.push(format!(
                "{} has triggers ({}), which run for each row that the script writes",
                pair.now,
                pair.is.triggers.join(", ")
            ));
        }
        if !pair.is.transactional {
            view.warnings.push(format!(
                "{} is of an engine without transactions: a script that breaks off stays half done there",
                pair.now
            ));
        }
        let referred: BTreeSet<&str> = pair.is.referred.iter().map(|(_, name)| name.as_str()).collect();
        if !referred.is_empty() && pair.counts.changed + deletes > 0 {
            let names: Vec<&str> = referred.into_iter().collect();
            view.warnings.push(format!(
                "what the script does to rows of {} may change rows of other tables, by {}",
                pair.now,
                names.join(", ")
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schemas_name_tells_database_and_moment() {
        let key =
            |database: &str, table: &str| TableKey { database: database.to_owned(), table: table.to_owned() };
        let mut places = Places {
            schema: None,
            moment: words_of(1_795_269_787_400_000),
            renamed: vec![(key("shop", "a"), key("shop", "b")), (key("shop", "c"), key("old", "d"))],
        };
        assert_eq!(places.of(&key("shop", "orders")), key("shop__at_20261121_140307", "orders"));
        assert_eq!(places.of(&key("shop", "a")), key("shop__at_20261121_140307", "b"));
        assert_eq!(places.of(&key("shop", "c")), key("old", "d"));
        places.schema = Some("mine".to_owned());
        assert_eq!(places.of(&key("shop", "a")), key("mine", "b"));
        assert_eq!(places.of(&key("shop", "c")), key("old", "d"));
    }
}
