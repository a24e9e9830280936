//! The session that a statement ran in, as SET statements for ours.
//!
//! What each status variable means is in `holdfast_binlog::query`; which session variable
//! takes it was observed on MySQL 9.7.4 and MariaDB 10.11.

use std::fmt::Write as _;
use std::sync::Arc;

use holdfast_binlog::query::{
    OPTION_AUTO_IS_NULL, OPTION_NO_FOREIGN_KEY_CHECKS, OPTION_RELAXED_UNIQUE_CHECKS, StatusVars,
};
use holdfast_mysql::Conn;

use crate::error::Error;
use crate::sql;

/// MariaDB: `check_constraint_checks=0`.
const MARIADB_NO_CHECK_CONSTRAINTS: u32 = 1 << 15;
/// MariaDB: `explicit_defaults_for_timestamp=1`.
const MARIADB_EXPLICIT_DEFAULTS: u32 = 1 << 24;
/// MariaDB: `sql_if_exists=1`.
const MARIADB_IF_EXISTS: u32 = 1 << 28;
/// MariaDB: `system_versioning_insert_history=1`.
const MARIADB_INSERT_HISTORY: u32 = 1 << 30;

/// What our session is set to at present.
#[derive(Debug, Default)]
pub struct Session {
    mariadb: bool,
    current: String,
    database: Vec<u8>,
    thread: Option<u32>,
}

impl Session {
    /// The state of a session that was opened just now.
    #[must_use]
    pub fn new(mariadb: bool) -> Self {
        Self { mariadb, current: String::new(), database: Vec::new(), thread: None }
    }

    /// Would [`Session::apply`] change anything?
    #[must_use]
    pub fn differs(&self, vars: &StatusVars<'_>) -> bool {
        !vars.character_set_collations.is_empty() || statement(vars, self.mariadb) != self.current
    }

    /// Makes our session the one that a statement ran in, the time apart.
    ///
    /// # Errors
    /// Fails when the server does not take a value.
    pub fn apply(&mut self, conn: &mut Conn, vars: &StatusVars<'_>) -> Result<(), Error> {
        let mut set = statement(vars, self.mariadb);
        if !vars.character_set_collations.is_empty() {
            let list = collations(conn, &vars.character_set_collations)?;
            let _ = write!(set, ", @@session.character_set_collations={}", sql::hex(list.as_bytes()));
        }
        if set != self.current {
            conn.execute(&set).map_err(Error::server("setting the session of a statement"))?;
            self.current = set;
        }
        Ok(())
    }

    /// Makes our session one that [`RowSessions`] described.
    pub(crate) fn apply_text(&mut self, conn: &mut Conn, set: &str) -> Result<(), Error> {
        if set != self.current {
            conn.execute(set).map_err(Error::server("setting the session of a statement"))?;
            set.clone_into(&mut self.current);
        }
        Ok(())
    }

    /// Takes text in UTF-8 next.
    pub(crate) fn in_utf8(&mut self, conn: &mut Conn) -> Result<(), Error> {
        conn.execute("SET NAMES utf8mb4").map_err(Error::server("setting the character set"))?;
        self.current.clear();
        Ok(())
    }

    /// Takes the number of a connection of the source, which is what tells temporary tables apart.
    pub(crate) fn number(&mut self, conn: &mut Conn, thread: u32) -> Result<(), Error> {
        if self.thread != Some(thread) {
            conn.execute(format!("SET @@session.pseudo_thread_id={thread}"))
                .map_err(Error::server("setting the connection of a statement"))?;
            self.thread = Some(thread);
        }
        Ok(())
    }

    /// Sets the clock of the session.
    ///
    /// # Errors
    /// Fails when the server does.
    pub fn at(&mut self, conn: &mut Conn, seconds: u32, microseconds: u32) -> Result<(), Error> {
        conn.execute(format!("SET TIMESTAMP={seconds}.{microseconds:06}"))
            .map_err(Error::server("setting the time of a statement"))?;
        Ok(())
    }

    /// Changes the default database.
    ///
    /// # Errors
    /// Fails when there is no such database.
    pub fn use_database(&mut self, conn: &mut Conn, database: &[u8]) -> Result<(), Error> {
        if database.is_empty() || self.database == database {
            return Ok(());
        }
        // The name is UTF-8; the session's character set may be any other.
        let name = sql::identifier(&String::from_utf8_lossy(database));
        if !name.is_ascii() {
            conn.execute("SET NAMES utf8mb4").map_err(Error::server("setting the character set"))?;
        }
        // USE sets `collation_database`, in whose character set LOAD DATA reads a file.
        self.current.clear();
        conn.execute(format!("USE {name}")).map_err(Error::server("changing the default database"))?;
        self.database = database.to_vec();
        Ok(())
    }

    /// Forgets the default database: a DDL statement may have dropped it, or changed its collation, which is the session's
    /// too.
    pub fn forget_database(&mut self) {
        self.current.clear();
        self.database.clear();
    }
}

/// The sessions of changes of rows, as far as they can matter to what is computed or checked when the rows are applied:
/// keys are the flags' business, counters nobody's. Most transactions have the one before's.
#[derive(Debug)]
pub(crate) struct RowSessions {
    mariadb: bool,
    last: Option<(Kept, Arc<str>)>,
}

/// What matters of the variables, the time zone apart.
type Numbers = (Option<u64>, Option<(u16, u16, u16)>, Option<u16>, Option<u16>, Option<u16>);

#[derive(Debug)]
struct Kept {
    numbers: Numbers,
    time_zone: Option<Vec<u8>>,
}

impl RowSessions {
    pub(crate) fn new(mariadb: bool) -> Self {
        Self { mariadb, last: None }
    }

    /// As a SET statement.
    pub(crate) fn text(&mut self, vars: &StatusVars<'_>) -> Arc<str> {
        let kept = StatusVars {
            sql_mode: vars.sql_mode,
            charset: vars.charset,
            time_zone: vars.time_zone,
            lc_time_names: vars.lc_time_names,
            collation_database: vars.collation_database,
            default_collation_for_utf8mb4: vars.default_collation_for_utf8mb4,
            ..StatusVars::default()
        };
        let numbers = (
            kept.sql_mode,
            kept.charset,
            kept.lc_time_names,
            kept.collation_database,
            kept.default_collation_for_utf8mb4,
        );
        match &self.last {
            Some((last, text)) if last.numbers == numbers && last.time_zone.as_deref() == kept.time_zone => {
                Arc::clone(text)
            }
            _ => {
                let text: Arc<str> = statement(&kept, self.mariadb).into();
                let last = Kept { numbers, time_zone: kept.time_zone.map(<[u8]>::to_vec) };
                self.last = Some((last, Arc::clone(&text)));
                text
            }
        }
    }
}

/// The session of rows of which nothing says in which one they were changed.
pub(crate) fn rows_default(mariadb: bool) -> String {
    statement(&StatusVars::default(), mariadb)
}

/// One SET for all variables, so that nothing of an earlier statement stays behind.
fn statement(vars: &StatusVars<'_>, mariadb: bool) -> String {
    let mut set = String::with_capacity(512);
    let flags = vars.flags2.unwrap_or(if mariadb { MARIADB_EXPLICIT_DEFAULTS } else { 0 });
    let on = |bit: u32| u8::from(flags & bit != 0);
    let off = |bit: u32| u8::from(flags & bit == 0);
    let _ = write!(
        set,
        "SET @@session.foreign_key_checks={}, @@session.unique_checks={}, @@session.sql_auto_is_null={}",
        off(OPTION_NO_FOREIGN_KEY_CHECKS),
        off(OPTION_RELAXED_UNIQUE_CHECKS),
        on(OPTION_AUTO_IS_NULL)
    );
    let _ = write!(set, ", @@session.sql_mode={}", vars.sql_mode.unwrap_or(0));
    let (increment, offset) = vars.auto_increment.unwrap_or((1, 1));
    let _ = write!(
        set,
        ", @@session.auto_increment_increment={increment}, @@session.auto_increment_offset={offset}"
    );
    if let Some((client, connection, server)) = vars.charset {
        let _ = write!(
            set,
            ", @@session.character_set_client={client}, @@session.collation_connection={connection}, \
             @@session.collation_server={server}"
        );
    }
    match vars.time_zone {
        Some(zone) => {
            let _ = write!(set, ", @@session.time_zone={}", ascii(zone));
        }
        None => set.push_str(", @@session.time_zone='SYSTEM'"),
    }
    let _ = write!(set, ", @@session.lc_time_names={}", vars.lc_time_names.unwrap_or(0));
    match vars.collation_database {
        Some(id) => {
            let _ = write!(set, ", @@session.collation_database={id}");
        }
        None => set.push_str(", @@session.collation_database=DEFAULT"),
    }
    if mariadb {
        let _ = write!(
            set,
            ", @@session.check_constraint_checks={}, @@session.explicit_defaults_for_timestamp={}, \
             @@session.sql_if_exists={}, @@session.system_versioning_insert_history={}",
            off(MARIADB_NO_CHECK_CONSTRAINTS),
            on(MARIADB_EXPLICIT_DEFAULTS),
            on(MARIADB_IF_EXISTS),
            on(MARIADB_INSERT_HISTORY)
        );
        return set;
    }
    let mut optional = |name: &str, value: Option<bool>| {
        if let Some(value) = value {
            let _ = write!(set, ", @@session.{name}={}", u8::from(value));
        }
    };
    optional("explicit_defaults_for_timestamp", vars.explicit_defaults_for_timestamp);
    optional("sql_require_primary_key", vars.sql_require_primary_key);
    optional("default_table_encryption", vars.default_table_encryption);
    optional("enable_cascade_triggers", vars.enable_cascade_triggers);
    if let Some(id) = vars.default_collation_for_utf8mb4 {
        let _ = write!(set, ", @@session.default_collation_for_utf8mb4={id}");
    }
    set
}

/// A time zone's name as a string: ASCII letters, digits, `/_+-:` in every server's tables.
fn ascii(zone: &[u8]) -> String {
    let plain = zone.iter().all(|b| b.is_ascii_alphanumeric() || b"/_+-: .".contains(b));
    if plain { format!("'{}'", String::from_utf8_lossy(zone)) } else { sql::hex(zone) }
}

/// MariaDB 11: numbers of collations as the text that the variable takes.
fn collations(conn: &mut Conn, pairs: &[(u16, u16)]) -> Result<String, Error> {
    let mut out = String::new();
    for (_, collation) in pairs {
        let found = conn
            .query(format!(
                "SELECT character_set_name, full_collation_name FROM \
                 information_schema.collation_character_set_applicability WHERE id = {collation}"
            ))
            .map_err(Error::server("looking up a collation"))?;
        let (Some(charset), Some(name)) = (found.text(0, 0), found.text(0, 1)) else {
            return Err(Error::Refused(format!("the server has no collation number {collation}")));
        };
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{charset}={name}");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_set_each_time() {
        let vars = StatusVars {
            flags2: Some(OPTION_NO_FOREIGN_KEY_CHECKS),
            sql_mode: Some(4),
            auto_increment: Some((3, 2)),
            charset: Some((255, 255, 8)),
            time_zone: Some(b"+05:00"),
            lc_time_names: Some(4),
            collation_database: Some(8),
            default_collation_for_utf8mb4: Some(45),
            ..StatusVars::default()
        };
        assert_eq!(
            statement(&vars, false),
            "SET @@session.foreign_key_checks=0, @@session.unique_checks=1, @@session.sql_auto_is_null=0, \
             @@session.sql_mode=4, @@session.auto_increment_increment=3, @@session.auto_increment_offset=2, \
             @@session.character_set_client=255, @@session.collation_connection=255, @@session.collation_server=8, \
             @@session.time_zone='+05:00', @@session.lc_time_names=4, @@session.collation_database=8, \
             @@session.default_collation_for_utf8mb4=45"
        );
        let maria = statement(&StatusVars::default(), true);
        assert!(maria.contains("check_constraint_checks=1"), "{maria}");
        assert!(maria.contains("explicit_defaults_for_timestamp=1"), "{maria}");
    }

    #[test]
    fn the_session_of_rows_is_that_of_its_own_variables() {
        let mut sessions = RowSessions::new(false);
        let paris =
            StatusVars { time_zone: Some(b"Europe/Paris"), sql_mode: Some(4), ..StatusVars::default() };
        let changed: [StatusVars<'_>; 6] = [
            StatusVars { sql_mode: Some(5), ..paris.clone() },
            StatusVars { charset: Some((8, 8, 8)), ..paris.clone() },
            StatusVars { time_zone: Some(b"Asia/Tokyo"), ..paris.clone() },
            StatusVars { lc_time_names: Some(3), ..paris.clone() },
            StatusVars { collation_database: Some(9), ..paris.clone() },
            StatusVars { default_collation_for_utf8mb4: Some(45), ..paris.clone() },
        ];
        for other in &changed {
            let first = sessions.text(&paris);
            assert!(Arc::ptr_eq(&first, &sessions.text(&paris)));
            assert_eq!(*first, *statement(&paris, false));
            assert_eq!(*sessions.text(other), *statement(other, false));
        }
        // Flags are each event's own, and the counters' steps nobody's.
        let same = StatusVars { flags2: Some(1), auto_increment: Some((2, 1)), ..paris.clone() };
        assert_eq!(sessions.text(&same), sessions.text(&paris));
    }

    #[test]
    fn a_time_zone_can_not_end_its_string() {
        assert_eq!(ascii(b"Europe/Berlin"), "'Europe/Berlin'");
        assert_eq!(ascii(b"x'; DROP"), "X'78273b2044524f50'");
    }
}
