//! A script of SQL, as mysqldump writes them, of a server as of any moment.
//!
//! The moment is restored and proved in a folder to work in; a private server on it is read in one snapshot, table by table,
//! row by row, so that memory is bounded by the longest row. The last line, `-- Dump completed`, is there only if
//! everything before it is.

mod accounts;
pub(crate) mod dump;
pub(crate) mod json;
mod script;
mod stored;
pub(crate) mod values;

use super::Destination;
use super::part_file::PartFile;
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::moment;
use crate::progress::Watcher;
use crate::restore::{Options, RestoredView};
use crate::scratch::Scratch;
use crate::time::{now, show_time};
use dump::{Dump, Trouble};
use holdfast_engine::PrivateServer;
use holdfast_restore::run::SHUTDOWN_LIMIT;
use script::Script;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Which part of it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Definitions and rows.
    #[default]
    All,
    /// Definitions.
    Schema,
    /// Rows.
    Data,
}

/// What the script is to hold.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These databases; all but the server's own if neither these nor tables are named.
    pub databases: Vec<String>,
    /// These tables or views: database and name.
    pub tables: Vec<(String, String)>,
    /// Definitions, rows, or both.
    pub part: Part,
    /// Accounts, roles and grants too.
    pub users: bool,
    /// The GTIDs as a statement that is carried out, not as a comment.
    pub set_gtids: bool,
    /// Compressed with zstd.
    pub zstd: bool,
}

impl Wanted {
    /// All rows of all databases? Of a part of a server, its GTIDs would say too much.
    fn is_whole(&self) -> bool {
        self.databases.is_empty() && self.tables.is_empty() && self.part == Part::All
    }
}

/// An exported script.
#[derive(Clone, Debug, Serialize)]
pub struct SqlView {
    /// The file; none for a script that went to standard output.
    pub into: Option<String>,
    /// Tables, views and sequences.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// Bytes of the script, before it was compressed.
    pub bytes: u64,
    /// Bytes of its longest statement: the server that reads it needs a `max_allowed_packet` above this.
    pub longest_statement: u64,
    /// The server's GTIDs at that moment.
    pub gtids: Option<String>,
    /// The server's version.
    pub version: String,
    /// What the script does not have.
    pub warnings: Vec<String>,
    /// The restore that it was read from, with its proof.
    pub restored: RestoredView,
}

/// Restores into a folder below `scratch`, proves it, writes the script, and removes the folder. `options.into` is not used.
///
/// # Errors
/// As [`crate::restore::restore`]; `Usage` when the file exists or a name is not there, `Locked` when another export writes it.
pub fn sql(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    scratch: &Path,
    wanted: &Wanted,
    to: Destination<'_>,
    watcher: &dyn Watcher,
) -> Result<SqlView> {
    // A restore takes its time: what would stop the script is said before it.
    let file = match &to {
        Destination::File(path) => Some(PartFile::take(path)?),
        Destination::Stream(_) => None,
    };
    let scratch = Scratch::take(scratch)?;
    let (scratch, options, restored) = moment::restore(catalogue, name, options, scratch, watcher)?;
    let read = read(catalogue, name, &options, wanted, (to, file), restored, watcher);
    // Of a script that failed nothing is worth keeping; why it failed matters more than that.
    let cleared = scratch.clear();
    let view = read?;
    cleared?;
    Ok(view)
}

fn told(error: &dyn std::error::Error) -> Error {
    Error::failed(sentence(&error.to_string()))
}

fn read(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    wanted: &Wanted,
    (to, file): (Destination<'_>, Option<PartFile>),
    restored: RestoredView,
    watcher: &dyn Watcher,
) -> Result<SqlView> {
    let Some(version) = restored.report.plan.version.clone() else {
        return Err(Error::usage(format!(
            "'{name}' is no server: there is nothing in it that SQL could say."
        ))
        .with_next("export it as it is, with --datadir or --tar"));
    };
    let purpose = "the server whose script is written";
    let server =
        moment::start(catalogue, name, options, &restored, purpose, watcher)?.ok_or_else(interrupted)?;
    let gtids = server.recovered().map_err(|e| told(&e))?.gtids;
    let mut view = SqlView {
        into: None,
        tables: 0,
        rows: 0,
        bytes: 0,
        longest_statement: 0,
        gtids,
        version,
        warnings: Vec::new(),
        restored,
    };
    match (to, file) {
        (Destination::File(path), Some(mut file)) => {
            written(&server, &mut view, wanted, &mut file, watcher)?;
            file.finish()?;
            view.into = Some(path.display().to_string());
        }
        (Destination::Stream(out), _) => written(&server, &mut view, wanted, out, watcher)?,
        (Destination::File(path), None) => {
            return Err(Error::failed(format!("{} was not opened.", path.display())));
        }
    }
    server.stop(SHUTDOWN_LIMIT).map_err(|e| told(&e))?;
    Ok(view)
}

/// Writes the whole script, compressed if that is wanted.
fn written(
    server: &PrivateServer,
    view: &mut SqlView,
    wanted: &Wanted,
    out: &mut dyn Write,
    watcher: &dyn Watcher,
) -> Result<()> {
    let cant = |error: io::Error| Error::failed(format!("The script can't be written: {error}."));
    let mut out = BufWriter::with_capacity(1 << 20, out);
    if wanted.zstd {
        let mut packed = zstd::Encoder::new(out, 3).map_err(cant)?;
        packed.include_checksum(true).map_err(cant)?;
        plain(server, view, wanted, &mut packed, watcher)?;
        out = packed.finish().map_err(cant)?;
    } else {
        plain(server, view, wanted, &mut out, watcher)?;
    }
    out.flush().map_err(cant)
}

fn plain(
    server: &PrivateServer,
    view: &mut SqlView,
    wanted: &Wanted,
    out: &mut dyn Write,
    watcher: &dyn Watcher,
) -> Result<()> {
    let mut out = Counted { out, bytes: 0 };
    let mut script = Script::new(&mut out);
    let done = whole(server, view, wanted, &mut script, watcher);
    view.longest_statement = script.longest as u64;
    view.bytes = out.bytes;
    done.map_err(|trouble| match trouble {
        Trouble::Said(error) => error,
        Trouble::Cancelled => interrupted(),
        Trouble::Out(error) => Error::failed(format!("The script can't be written: {error}.")),
        Trouble::Sql(error) => {
            Error::failed(format!("The restored server said: {}", sentence(&error.to_string())))
        }
    })
}

fn whole(
    server: &PrivateServer,
    view: &mut SqlView,
    wanted: &Wanted,
    script: &mut Script<'_>,
    watcher: &dyn Watcher,
) -> dump::Done<()> {
    let mut conn = server.connect().map_err(|e| Trouble::Said(told(&e)))?;
    // The first row of a large table with a sort, or of a slow disk, may take its time.
    conn.set_read_timeout(std::time::Duration::from_secs(3600));
    let mariadb = conn.server().is_mariadb();
    let restored = &view.restored;
    // A name may hold anything; a comment ends with its line.
    let line = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    script.put(format!(
        "-- {} dump in the form of {}, written by Holdfast {}\n--\n-- Host: {}\n-- As of: {}\n\
         -- ------------------------------------------------------\n-- Server version\t{}\n\n",
        if mariadb { "MariaDB" } else { "MySQL" },
        if mariadb { "mariadb-dump" } else { "mysqldump" },
        env!("CARGO_PKG_VERSION"),
        line(&restored.server),
        line(&restored.reached),
        view.version,
    ))?;
    script.head()?;
    if let Some(gtids) = view.gtids.as_ref().filter(|_| wanted.is_whole()) {
        script.put("\n--\n-- GTID state at this moment\n--\n\n")?;
        match (mariadb, wanted.set_gtids) {
            (true, true) => script.statement(format!("SET GLOBAL gtid_slave_pos='{gtids}'"))?,
            (true, false) => script.put(format!("-- SET GLOBAL gtid_slave_pos='{gtids}';\n"))?,
            (false, true) => {
                script.statement("SET @@SESSION.SQL_LOG_BIN = 0")?;
                script.statement(format!("SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '{gtids}'"))?;
            }
            (false, false) => script.put(format!("/* SET @@GLOBAL.GTID_PURGED='+{gtids}';*/\n"))?,
        }
    }
    let mut dump = Dump::new(&mut conn, script, wanted, watcher);
    dump.run()?;
    (view.tables, view.rows) = (dump.tables, dump.rows);
    view.warnings.append(&mut dump.warnings);
    script.end()?;
    script.put(format!("-- Dump completed on {}\n", show_time(now())))?;
    Ok(())
}

fn interrupted() -> Error {
    Error::new(Code::Interrupted, "The export was interrupted; no script is there.")
        .with_next("run the same command again")
}

/// A writer that counts.
struct Counted<'w> {
    out: &'w mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.out.write(buf)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// `DB.TABLE` as two names; each may stand between backticks.
///
/// # Errors
/// `Usage` for anything else.
pub fn table_name(text: &str) -> Result<(String, String)> {
    let part = |text: &str| -> Option<(String, usize)> {
        let Some(rest) = text.strip_prefix('`') else {
            let end = text.find('.').unwrap_or(text.len());
            return Some((text.get(..end)?.to_owned(), end)).filter(|(name, _)| !name.is_empty());
        };
        let (mut name, mut letters) = (String::new(), rest.char_indices().peekable());
        while let Some((at, c)) = letters.next() {
            if c != '`' {
                name.push(c);
            } else if letters.next_if(|(_, next)| *next == '`').is_some() {
                name.push('`');
            } else {
                return Some((name, at + 2));
            }
        }
        None
    };
    let names = || {
        let (database, end) = part(text)?;
        let rest = text.get(end..)?.strip_prefix('.')?;
        let (table, end) = match rest.starts_with('`') {
            true => part(rest)?,
            // A name with a dot in it is what is left.
            false => (rest.to_owned(), rest.len()),
        };
        (end == rest.len() && !table.is_empty()).then_some((database, table))
    };
    names().ok_or_else(|| {
        Error::usage(format!("'{text}' names no table."))
            .with_next("use --table DATABASE.TABLE; a name with a dot stands between backticks")
    })
}

/// The folder to work in for a script in this file.
#[must_use]
pub fn scratch_beside(file: &Path) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".d");
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_name_may_hold_dots_and_backticks() {
        let names = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(table_name("shop.orders").unwrap(), names("shop", "orders"));
        assert_eq!(table_name("shop.a.b").unwrap(), names("shop", "a.b"));
        assert_eq!(table_name("`my.shop`.`a``b`").unwrap(), names("my.shop", "a`b"));
        for wrong in ["shop", "shop.", ".t", "`shop.t", "`a`b.c", "`a`.`b`c", ""] {
            assert!(table_name(wrong).is_err(), "{wrong}");
        }
    }
}
