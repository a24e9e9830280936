//! A folder that mydumper wrote: which files it has, in which order they are loaded, and what its `metadata` says.
//!
//! Names are those of mydumper's documentation: `DB-schema-create.sql`, `DB.T-schema.sql`, `DB.T.sql` or `DB.T.00000.sql`,
//! `DB.V-schema-view.sql`, `DB.T-schema-triggers.sql`, `DB-schema-post.sql`, each plain, `.gz` or `.zst`. Its loader ends a
//! statement where a line ends with `;`, and mydumper writes no such line inside of one: so do we.

use super::load::{Input, Loaded, carry_out};
use super::position::Told;
use crate::error::{Error, Result};
use crate::progress::{Reading, Watcher};
use holdfast_mysql::Conn;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

/// Databases of the server itself: every server has its own.
const OF_THE_SERVER: [&str; 4] = ["mysql", "sys", "information_schema", "performance_schema"];

/// What a file of the folder holds, in the order in which they are loaded.
///
/// Routines come before views, which may call them; views before triggers. A view's own table (`DB.V-schema.sql`) stands
/// in for it where another view is made earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tablespaces,
    Database,
    Sequence,
    Table,
    Rows,
    Post,
    View,
    Triggers,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Part {
    kind: Kind,
    /// The database as the file's name has it; empty for tablespaces.
    database: String,
    /// What follows it in the name.
    rest: String,
    path: PathBuf,
}

/// A folder of mydumper's.
pub(super) struct Folder {
    path: PathBuf,
    parts: Vec<Part>,
    told: Told,
    /// Rows of tables, by the names in the metadata: database and table.
    rows: BTreeMap<(String, String), u64>,
    /// Databases that are left out.
    left_out: bool,
    bytes: u64,
}

impl Folder {
    /// Looks at what is there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let cant = |e: std::io::Error| Error::usage(format!("{} can't be read: {e}.", path.display()));
        let metadata = path.join("metadata");
        if !metadata.is_file() {
            let partial = path.join("metadata.partial").exists();
            let why = if partial { "mydumper did not finish it" } else { "it has no file `metadata`" };
            return Err(Error::usage(format!("{} is no dump of mydumper's: {why}.", path.display()))
                .with_next("name a script of SQL, or the folder of a finished mydumper"));
        }
        let text = std::fs::read_to_string(&metadata).map_err(cant)?;
        let (told, rows) = metadata_of(&text);
        if !text.contains("Finished dump at") {
            return Err(Error::usage(format!(
                "{} does not say that the dump was finished.",
                metadata.display()
            ))
            .with_next("make the dump again, or copy it whole"));
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(cant)? {
            let entry = entry.map_err(cant)?;
            if let Ok(name) = entry.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        let (parts, left_out) = parts_of(path, &names)?;
        let mut bytes = 0;
        for part in &parts {
            bytes += std::fs::metadata(&part.path).map_err(cant)?.len();
        }
        Ok(Self { path: path.to_path_buf(), parts, told, rows, left_out, bytes })
    }

    /// Carries everything out on a private server.
    pub(super) fn load(self, conn: &mut Conn, watcher: &dyn Watcher) -> Result<Loaded> {
        let head = "mydumper: a folder with metadata".to_owned();
        let mut loaded = Loaded { told: self.told, head: Some(head), ..Loaded::default() };
        let mut databases: BTreeMap<&str, String> = BTreeMap::new();
        let mut done = 0;
        for part in &self.parts {
            ready(conn, part.kind)?;
            if !matches!(part.kind, Kind::Tablespaces | Kind::Database) {
                let Some(name) = databases.get(part.database.as_str()) else { continue };
                let name = name.replace('`', "``");
                let using = conn.execute(format!("USE `{name}`"));
                using.map_err(|error| {
                    Error::failed(format!(
                        "The database `{name}` can't be used for {}: {error}.",
                        part.path.display()
                    ))
                })?;
            }
            let before = conn.query_text(SCHEMAS).ok().flatten();
            load_part(conn, part, &mut loaded, watcher)?;
            if part.kind == Kind::Database {
                databases.insert(&part.database, made(conn, part, before.as_deref())?);
            }
            done += std::fs::metadata(&part.path).map_or(0, |facts| facts.len());
            watcher.reading(Reading {
                phase: "load",
                done,
                total: Some(self.bytes),
                bytes: true,
                limit: None,
            });
        }
        ready(conn, Kind::Table)?;
        for ((database, table), rows) in &self.rows {
            if OF_THE_SERVER.contains(&database.as_str()) {
                continue;
            }
            let quoted = |name: &str| format!("`{}`", name.replace('`', "``"));
            let counted = conn
                .query_text(format!("SELECT COUNT(*) FROM {}.{}", quoted(database), quoted(table)))
                .map_err(|error| missing(&self.path, database, table, &error.to_string()))?;
            if counted.as_deref() != Some(rows.to_string().as_str()) {
                let found = counted.unwrap_or_default();
                return Err(missing(
                    &self.path,
                    database,
                    table,
                    &format!("it has {found} rows, and the metadata says {rows}"),
                ));
            }
        }
        if self.left_out {
            loaded.notes.push(
                "the server's own databases in it (mysql, sys) were left out, and with them its accounts"
                    .to_owned(),
            );
        }
        if self.rows.is_empty() {
            loaded.notes.push(
                "its metadata does not say how many rows its tables have, so whether all files are there is not known"
                    .to_owned(),
            );
        }
        loaded.completed = true;
        Ok(loaded)
    }
}

/// The databases that a server has, as one text.
const SCHEMAS: &str =
    "SELECT GROUP_CONCAT(HEX(schema_name) ORDER BY schema_name) FROM information_schema.schemata";

fn missing(path: &Path, database: &str, table: &str, why: &str) -> Error {
    Error::failed(format!("{}: the table {database}.{table} is not what was dumped: {why}.", path.display()))
        .with_next("nothing is listed of it; make the dump again, or copy it whole")
}

/// The session as each file expects it: those of rows set the rest themselves.
fn ready(conn: &mut Conn, kind: Kind) -> Result<()> {
    // What a routine, a view or a trigger was made with is not in a dump of mydumper's; the server's default stands in.
    let mode = match kind {
        Kind::Post | Kind::View | Kind::Triggers => "@@GLOBAL.sql_mode",
        _ => "'NO_AUTO_VALUE_ON_ZERO'",
    };
    let statements = [
        "SET NAMES utf8mb4".to_owned(),
        format!("SET SESSION sql_mode = {mode}"),
        "SET SESSION time_zone = @@GLOBAL.time_zone".to_owned(),
        "SET SESSION foreign_key_checks = 0, unique_checks = 0, group_concat_max_len = 1048576".to_owned(),
    ];
    for statement in statements {
        conn.execute(&statement).map_err(|error| {
            Error::failed(format!("The private server refuses \"{statement}\": {error}."))
        })?;
    }
    Ok(())
}

/// The name of the database that this file has made: the file's own name may be a code for it.
fn made(conn: &mut Conn, part: &Part, before: Option<&str>) -> Result<String> {
    let text = |hex: &str| -> Option<String> {
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
        String::from_utf8(bytes.collect::<Option<Vec<u8>>>()?).ok()
    };
    let told = |error| Error::failed(format!("The private server does not name its databases: {error}."));
    let after = conn.query_text(SCHEMAS).map_err(told)?.unwrap_or_default();
    let before: Vec<&str> = before.unwrap_or_default().split(',').collect();
    let names: Vec<String> =
        after.split(',').filter(|name| !before.contains(name)).filter_map(text).collect();
    // One that is there already is the one that the file is named after.
    let known = || after.split(',').filter_map(text).find(|name| *name == part.database);
    names.into_iter().next().or_else(known).ok_or_else(|| {
        Error::failed(format!("{} makes no database.", part.path.display()))
            .with_next("nothing is listed of it; make the dump again, or copy it whole")
    })
}

fn load_part(conn: &mut Conn, part: &Part, loaded: &mut Loaded, watcher: &dyn Watcher) -> Result<()> {
    let mut input = Input::open(&part.path)?;
    let path = part.path.display().to_string();
    let (mut statement, mut line, mut begun) = (Vec::new(), 0, 0);
    loop {
        let before = statement.len();
        let read = input.reader.read_until(b'\n', &mut statement).map_err(|error| {
            Error::failed(format!("{path} can't be read on: {error}."))
                .with_next("nothing is listed of it; check that the dump is whole")
        })?;
        line += 1;
        loaded.bytes += read as u64;
        if before == 0 {
            begun = line;
            let first = statement.trim_ascii();
            if read > 0 && (first.is_empty() || first.starts_with(b"--") || first.starts_with(b"#")) {
                statement.clear();
                continue;
            }
        }
        if statement.len() > super::STATEMENT_BYTES_MAX {
            return Err(Error::failed(format!(
                "{path}, line {begun}: the statement is longer than a server takes."
            )));
        }
        let ended = statement.ends_with(b";\n") || statement.ends_with(b";\r\n");
        if ended || (read == 0 && statement.ends_with(b";")) {
            carry_out(conn, &path, begun, statement.trim_ascii().trim_suffix_semicolon(), loaded)?;
            statement.clear();
        } else if read == 0 {
            if statement.is_empty() {
                return Ok(());
            }
            return Err(Error::failed(format!("{path} ends before its end: its last statement is cut off."))
                .with_next("nothing is listed of it; make the dump again, or copy it whole"));
        }
        if watcher.cancelled() {
            return Err(super::interrupted());
        }
    }
}

/// Bytes of a statement.
trait Trimmed {
    /// Without the `;` that ends it.
    fn trim_suffix_semicolon(&self) -> &[u8];
}

impl Trimmed for [u8] {
    fn trim_suffix_semicolon(&self) -> &[u8] {
        self.strip_suffix(b";").unwrap_or(self)
    }
}

/// The files of a dump in the order in which they are loaded, and whether some of the server's own are left out.
fn parts_of(folder: &Path, names: &[String]) -> Result<(Vec<Part>, bool)> {
    let bare = |name: &str| -> Option<String> {
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
        name.strip_suffix(".sql").map(str::to_owned)
    };
    let databases: Vec<String> = names
        .iter()
        .filter_map(|name| bare(name)?.strip_suffix("-schema-create").map(str::to_owned))
        .collect();
    let (mut parts, mut left_out) = (Vec::new(), false);
    for name in names {
        let path = folder.join(name);
        let refuse = |why: &str| {
            Err(Error::failed(format!("{} {why}.", path.display()))
                .with_next("make the dump anew with INSERT statements, one database and all its files; or take the file out"))
        };
        let Some(stem) = bare(name) else {
            if name.starts_with("metadata") || path.is_dir() {
                continue;
            }
            return refuse("is no file of SQL, and what else mydumper writes is not read");
        };
        let part = |kind, database: &str, rest: &str| Part {
            kind,
            database: database.to_owned(),
            rest: rest.to_owned(),
            path: path.clone(),
        };
        if stem == "all-schema-create-tablespace" {
            parts.push(part(Kind::Tablespaces, "", ""));
            continue;
        }
        // The longest name counts: one may begin with another one and a dot.
        let of = |database: &&String| {
            let rest = stem.strip_prefix(database.as_str());
            rest.is_some_and(|rest| rest.starts_with('.') || rest.starts_with("-schema-"))
        };
        let Some(database) = databases.iter().filter(of).max_by_key(|database| database.len()) else {
            return refuse("is of a database for which there is no file -schema-create");
        };
        if OF_THE_SERVER.contains(&database.as_str()) {
            left_out = true;
            continue;
        }
        let rest = stem.strip_prefix(database.as_str()).unwrap_or_default();
        let kind = match rest {
            "-schema-create" => Kind::Database,
            "-schema-post" => Kind::Post,
            "-schema-triggers" => Kind::Triggers,
            _ if rest.ends_with("-schema-view") => Kind::View,
            _ if rest.ends_with("-schema-triggers") => Kind::Triggers,
            _ if rest.ends_with("-schema-sequence") => Kind::Sequence,
            _ if rest.ends_with("-schema") => Kind::Table,
            _ if rest.starts_with('.') => Kind::Rows,
            _ => return refuse("has a name that mydumper is not known to give"),
        };
        parts.push(part(kind, database, rest));
    }
    if parts.is_empty() {
        return Err(Error::usage(format!("{} holds no database.", folder.display()))
            .with_next("name a dump that mydumper made of a server"));
    }
    parts.sort();
    Ok((parts, left_out))
}

/// Is it the section of the metadata that tells of the dumped server's own source?
fn replicates(section: &str) -> bool {
    let section = section.to_ascii_lowercase();
    section.starts_with("replication") || section == "show slave status" || section == "show replica status"
}

/// What the file `metadata` says, as it is written since mydumper 0.14 or as it was before.
fn metadata_of(text: &str) -> (Told, BTreeMap<(String, String), u64>) {
    let (mut told, mut rows) = (Told::default(), BTreeMap::new());
    let (mut section, mut file, mut offset) = (String::new(), None, None);
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
            continue;
        }
        // The old form: SHOW MASTER STATUS:, then lines with Log:, Pos:, GTID:, up to an empty one.
        if let Some(name) = line.strip_suffix(':').filter(|name| name.starts_with("SHOW ")) {
            section = name.to_owned();
            continue;
        }
        let own =
            matches!(section.as_str(), "master" | "source" | "SHOW MASTER STATUS" | "SHOW BINARY LOG STATUS");
        let old = section.starts_with("SHOW ");
        // With auto_position, the place stands in comments.
        let line = if own { line.trim_start_matches('#').trim_start() } else { line };
        let pair = if old { line.split_once(':') } else { line.split_once('=') };
        let Some((key, value)) = pair else { continue };
        let value = value.trim().trim_matches('"').to_owned();
        match (key.trim().to_ascii_lowercase().as_str(), own) {
            ("log" | "file" | "source_log_file", true) if !value.is_empty() => file = Some(value),
            ("pos" | "position" | "source_log_pos", true) => offset = value.parse::<u64>().ok().or(offset),
            ("gtid" | "executed_gtid_set", true) if !value.is_empty() => {
                told.gtids = Some(value.split_whitespace().collect());
            }
            // What the dumped server replicates from.
            ("host" | "source_host" | "master_host", false) if replicates(&section) && !value.is_empty() => {
                told.source = Some(value);
            }
            ("rows", false) => {
                let named = section.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
                if let (Some((database, table)), Ok(count)) =
                    (named.and_then(|named| named.split_once("`.`")), value.parse())
                {
                    rows.insert((database.to_owned(), table.to_owned()), count);
                }
            }
            _ => {}
        }
    }
    told.file = file.zip(offset);
    (told, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_metadata_say_where_the_dump_stands() {
        let old = "Started dump at: 2026-11-22 14:41:42\nSHOW MASTER STATUS:\n\tLog: binlog.000001\n\tPos: 4345\n\tGTID:0-7-20\n\n\
                   SHOW SLAVE STATUS:\n\tHost: db1\n\tLog: other.000009\n\tPos: 7\n\tGTID:\n\nFinished dump at: 2026-11-22 14:41:42\n";
        let (told, rows) = metadata_of(old);
        assert_eq!(told.file, Some(("binlog.000001".to_owned(), 4345)));
        assert_eq!((told.gtids.as_deref(), rows.len()), (Some("0-7-20"), 0));
        assert_eq!(told.source.as_deref(), Some("db1"));
        let new = "# Started dump at: 2023-06-09 11:47:18\n[master]\n# Channel_Name = '' # It can be use to setup replication FOR CHANNEL\n\
                   File = bin.000017\nPosition = 241149225\nExecuted_Gtid_Set = 7b166a41-65a2-11ed-9de3-0800275ff74d:1-147115\n\n\
                   [replication]\nSOURCE_HOST = \"db2\"\nFile = relayed.000001\nPosition = 9\n\n[`sakila`.`store`]\nRows = 2\ndata_checksum = 3119812626\n\n\
                   [`sakila`]\nschema_checksum = FDF2173B\n# Finished dump at: 2023-06-09 11:47:18\n";
        let (told, rows) = metadata_of(new);
        assert_eq!(told.file, Some(("bin.000017".to_owned(), 241_149_225)));
        assert_eq!(told.gtids.as_deref(), Some("7b166a41-65a2-11ed-9de3-0800275ff74d:1-147115"));
        assert_eq!(told.source.as_deref(), Some("db2"));
        assert_eq!(rows, BTreeMap::from([(("sakila".to_owned(), "store".to_owned()), 2)]));
        let auto = "[source]\n#SOURCE_HOST = \"h\"\nexecuted_gtid_set = \"a:1\"\nSOURCE_AUTO_POSITION = 1\n#SOURCE_LOG_FILE = \"b.3\"\n#SOURCE_LOG_POS = 157\n";
        assert_eq!(metadata_of(auto).0.file, Some(("b.3".to_owned(), 157)));
        assert_eq!(metadata_of("").0, Told::default());
    }

    #[test]
    fn files_are_told_by_their_names_and_loaded_in_an_order_in_which_each_has_what_it_needs() {
        let names: Vec<String> = [
            "metadata",
            "mysql-schema-create.sql",
            "mysql.user-schema.sql",
            "shop-schema-create.sql.gz",
            "shop-schema-post.sql",
            "shop.a.b-c-schema.sql",
            "shop.a.b-c.sql",
            "shop.eu-schema-create.sql",
            "shop.eu.t-schema.sql.zst",
            "shop.t-schema-triggers.sql",
            "shop.t-schema.sql",
            "shop.t.00000.sql",
            "shop.v-schema-view.sql",
            "shop.v-schema.sql",
        ]
        .map(str::to_owned)
        .to_vec();
        let (parts, left_out) = parts_of(Path::new("/d"), &names).unwrap();
        assert!(left_out);
        let of = |kind| -> Vec<(&str, &str)> {
            let parts = parts.iter().filter(|part| part.kind == kind);
            parts.map(|part| (part.database.as_str(), part.rest.as_str())).collect()
        };
        assert_eq!(of(Kind::Database), [("shop", "-schema-create"), ("shop.eu", "-schema-create")]);
        let tables = [
            ("shop", ".a.b-c-schema"),
            ("shop", ".t-schema"),
            ("shop", ".v-schema"),
            ("shop.eu", ".t-schema"),
        ];
        assert_eq!(of(Kind::Table), tables);
        assert_eq!(of(Kind::Rows), [("shop", ".a.b-c"), ("shop", ".t.00000")]);
        assert_eq!(of(Kind::View), [("shop", ".v-schema-view")]);
        assert!(parts.is_sorted());
        for wrong in ["shop.t.00000.dat", "other.t-schema.sql", "shop-schema-unknown.sql"] {
            let names = [names.as_slice(), &[wrong.to_owned()]].concat();
            let error = parts_of(Path::new("/d"), &names).unwrap_err();
            assert!(error.message.contains(wrong), "{}", error.message);
        }
    }
}
