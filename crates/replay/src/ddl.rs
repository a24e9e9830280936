//! Statements that commit by themselves: definitions and accounts.
//!
//! Before one runs, its number and what it is about are noted; behind it the checkpoint moves on. A call after a kill in between finds the note and has
//! to know whether the statement took effect. The servers make single statements atomic
//! (MySQL 8.0, MariaDB 10.6), so there are two cases, told apart by what it is:
//!
//! - What a second time would change something again, or fail in many ways (ALTER and RENAME of a
//!   table, indexes, names and second passwords of accounts): if what it is about is not as noted,
//!   it took effect. If all is as noted, it runs. `before` says what is noted.
//! - everything else runs again. CREATE that finds its object, DROP that misses it and REVOKE
//!   that misses its grant had taken effect.

use std::borrow::Cow;

use holdfast_binlog::query::StatusVars;
use holdfast_binlog::statement::{Action, Object, Statement};
use holdfast_mysql::Conn;

use crate::error::Error;
use crate::sql;

/// `sql_mode`: DATA DIRECTORY and INDEX DIRECTORY of a definition are ignored, as replicas are told to.
const NO_DIR_IN_CREATE: u64 = 1 << 7;

/// STRICT_TRANS_TABLES and STRICT_ALL_TABLES: MariaDB calls an ignored option an error then. What the source took in a
/// strict mode means the same without it.
const STRICT: u64 = 1 << 21 | 1 << 22;

/// The session of a statement that defines a table: the restored server keeps all its files in its own folder. The place
/// that the statement names is the source's, which may run on this very host.
pub(crate) fn within_the_folder<'v, 'd>(
    vars: &'v StatusVars<'d>,
    statement: &Statement,
    text: &[u8],
) -> Cow<'v, StatusVars<'d>> {
    let names_a_place = || text.windows(9).any(|word| word.eq_ignore_ascii_case(b"DIRECTORY"));
    if statement.object != Object::Table || !names_a_place() {
        return Cow::Borrowed(vars);
    }
    let sql_mode = vars.sql_mode.unwrap_or(0) & !STRICT | NO_DIR_IN_CREATE;
    Cow::Owned(StatusVars { sql_mode: Some(sql_mode), ..vars.clone() })
}

/// Does this statement make a tablespace whose file lies outside of the server's folder?
pub(crate) fn makes_a_file_elsewhere(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    let Some((_, rest)) = upper.split_once("DATAFILE") else { return false };
    let file = rest.trim_start().trim_start_matches(['\'', '"']);
    upper.contains("TABLESPACE")
        && (file.starts_with('/') || file.starts_with("../") || file.contains("/../"))
}

/// Error numbers with which a statement that had taken effect fails when it runs again.
pub(crate) fn had_taken_effect(statement: &Statement, code: u16) -> bool {
    let create: &[u16] = match statement.object {
        Object::Table | Object::View | Object::Sequence => &[1050],
        Object::Database => &[1007],
        Object::Trigger => &[1359],
        Object::Routine => &[1304, 1125],
        Object::Event => &[1537],
        Object::Account => &[1396],
        Object::Tablespace => &[1813, 3121],
        Object::Other => &[1476, 1125, 3712],
        Object::Index => &[],
    };
    let drop: &[u16] = match statement.object {
        Object::Table => &[1051],
        Object::View => &[1051, 4092],
        Object::Sequence => &[1051, 4091],
        Object::Database => &[1008],
        Object::Trigger => &[1360],
        Object::Routine => &[1305, 1128],
        Object::Event => &[1539],
        Object::Account => &[1396],
        Object::Tablespace => &[3510],
        Object::Other => &[1477, 3548],
        Object::Index => &[],
    };
    match statement.action {
        Action::Create => create.contains(&code),
        Action::Drop => drop.contains(&code),
        // No such grant; none on the table; none on the routine; no such user; no such role granted (MariaDB).
        Action::Revoke => [1141, 1147, 1403, 1269, 3523, 1962].contains(&code),
        // The password is in the account's history.
        Action::Alter | Action::Other if statement.object == Object::Account => code == 1062,
        // A new name, which it has.
        Action::Alter if statement.object == Object::Event => code == 1537,
        Action::Alter if statement.object == Object::Tablespace => code == 3510,
        _ => false,
    }
}

/// Makes our account an administrator of every role of a MariaDB, without which it may not
/// grant them, whatever else it may do. It vanishes with the account. A call that was cut off
/// between the two statements has left rows that the server does not know of yet: `anew` says
/// that an earlier call may have been, so that the server reads them whether we add any or not.
pub(crate) fn become_admin(conn: &mut Conn, anew: bool) -> Result<(), Error> {
    let doing = || Error::server("taking the administration of roles");
    let added = conn
        .execute(
            "INSERT IGNORE INTO mysql.roles_mapping (Host, User, Role, Admin_option) \
             SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', -1), SUBSTRING_INDEX(CURRENT_USER(), '@', 1), User, 'Y' \
             FROM mysql.user WHERE is_role = 'Y'",
        )
        .map_err(doing())?;
    if anew || added.affected > 0 {
        conn.execute("FLUSH PRIVILEGES").map_err(doing())?;
    }
    Ok(())
}

/// Makes our account one that may grant and revoke the right to stand for any other, which no
/// privilege includes. It vanishes with the account.
pub(crate) fn become_proxy(conn: &mut Conn) -> Result<(), Error> {
    let doing = || Error::server("taking the right to be a proxy");
    conn.execute(
        "INSERT IGNORE INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant, Grantor) \
         SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', -1), SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '', '', 1, ''",
    )
    .map_err(doing())?;
    // Each time: a call that was cut off may have left the row unread.
    conn.execute("FLUSH PRIVILEGES").map_err(doing())?;
    Ok(())
}

/// Does this statement grant or revoke the right to stand for another account?
pub(crate) fn concerns_proxies(statement: &Statement, text: &[u8]) -> bool {
    matches!(statement.action, Action::Grant | Action::Revoke)
        && text.windows(5).any(|word| word.eq_ignore_ascii_case(b"PROXY"))
}

/// What a server grants by itself to the creator of a routine who has no wider right to use
/// and alter it (`automatic_sp_privileges`); a replica does the same for the definer.
pub(crate) fn grant_routine(
    conn: &mut Conn,
    statement: &Statement,
    invoker: Option<(&[u8], &[u8])>,
    database: &[u8],
) -> Result<(), Error> {
    let (Some((function, name)), Some((user, host))) = (&statement.routine, invoker) else { return Ok(()) };
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let schema = name.database.as_deref().map_or_else(|| lossy(database), lossy);
    let doing = || Error::server("granting the use of a routine to its creator");
    // GRANTEE is written 'user'@'host', quotes inside doubled by no server: compared as such.
    let grantee = sql::hex(format!("'{}'@'{}'", lossy(user), lossy(host)).as_bytes());
    let wide = conn
        .query_text(format!(
            "SELECT COUNT(DISTINCT privilege_type) FROM (\
             SELECT privilege_type FROM information_schema.user_privileges \
             WHERE CONVERT(grantee USING utf8mb4) = CONVERT({grantee} USING utf8mb4) \
             UNION SELECT privilege_type FROM information_schema.schema_privileges \
             WHERE CONVERT(grantee USING utf8mb4) = CONVERT({grantee} USING utf8mb4) \
             AND CONVERT({} USING utf8mb4) LIKE CONVERT(table_schema USING utf8mb4)) AS p \
             WHERE privilege_type IN ('EXECUTE', 'ALTER ROUTINE')",
            sql::hex(schema.as_bytes())
        ))
        .map_err(doing())?;
    if wide.as_deref() == Some("2") {
        return Ok(());
    }
    let exists = conn
        .query_text(format!(
            "SELECT COUNT(*) FROM mysql.user WHERE user = CONVERT({} USING utf8mb4) AND host = CONVERT({} USING utf8mb4)",
            sql::hex(user),
            sql::hex(host)
        ))
        .map_err(doing())?;
    if exists.as_deref() == Some("0") {
        return Ok(());
    }
    let kind = if *function { "FUNCTION" } else { "PROCEDURE" };
    let routine = sql::table(&schema, &lossy(&name.table));
    let account = format!("{}@{}", sql::identifier(&lossy(user)), sql::identifier(&lossy(host)));
    conn.execute(format!("GRANT EXECUTE, ALTER ROUTINE ON {kind} {routine} TO {account}")).map_err(doing())?;
    Ok(())
}

/// MariaDB's CREATE ROLE makes the one who runs it the role's administrator, which in a
/// replay must be who ran it on the source: the text with that said, if it isn't said yet.
pub(crate) fn with_admin(
    text: &[u8],
    statement: &Statement,
    invoker: Option<(&[u8], &[u8])>,
) -> Option<Vec<u8>> {
    let (user, host) = invoker?;
    let upper = text.to_ascii_uppercase();
    let has = |word: &[u8]| upper.windows(word.len()).any(|w| w == word);
    if statement.action != Action::Create || statement.object != Object::Account {
        return None;
    }
    if !has(b"ROLE") || has(b"USER") && !has(b" ROLE ") || has(b"WITH ADMIN") {
        return None;
    }
    let quoted = |name: &[u8]| sql::identifier(&String::from_utf8_lossy(name));
    let mut out = text.trim_ascii_end().to_vec();
    while out.last() == Some(&b';') {
        out.pop();
    }
    out.extend_from_slice(b" WITH ADMIN ");
    out.extend_from_slice(quoted(user).as_bytes());
    // A role that created a role has no host.
    if !host.is_empty() {
        out.push(b'@');
        out.extend_from_slice(quoted(host).as_bytes());
    }
    Some(out)
}

/// MariaDB makes a database's folder, and then the file that holds its character set: a server that was killed between
/// the two has one without it. The text that makes such a database anew, which drops all that is in it: only for one
/// that [`holds_nothing`], since an earlier call may also have failed because there was one.
pub(crate) fn made_anew(text: &[u8], statement: &Statement) -> Option<Vec<u8>> {
    const CREATE: &[u8] = b"CREATE";
    let database = statement.action == Action::Create && statement.object == Object::Database;
    let (word, rest) = text.trim_ascii_start().split_at_checked(CREATE.len())?;
    let upper = text.to_ascii_uppercase();
    let has = |word: &[u8]| upper.windows(word.len()).any(|found| found == word);
    let plain = word.eq_ignore_ascii_case(CREATE) && !has(b"EXISTS") && !statement.or_replace;
    (database && plain && !has(b"OR REPLACE")).then(|| [b"CREATE OR REPLACE", rest].concat())
}

/// Is nothing in this database of a MariaDB, or no such database there?
pub(crate) fn holds_nothing(conn: &mut Conn, database: &[u8]) -> Result<bool, Error> {
    // Tables of MariaDB's information_schema are views and sequences, too.
    let lists = [
        ("tables", "table_schema"),
        ("routines", "routine_schema"),
        ("events", "event_schema"),
        ("triggers", "trigger_schema"),
    ];
    for (list, column) in lists {
        let found = conn
            .query_text(format!(
                "SELECT COUNT(*) FROM information_schema.{list} WHERE {column} = CONVERT({} USING utf8mb4)",
                sql::hex(database)
            ))
            .map_err(Error::server("looking for what is in a database"))?;
        if found.as_deref() != Some("0") {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Statement {
        Statement::classify(text.as_bytes(), 0)
    }

    #[test]
    fn only_the_error_of_a_second_run_is_taken_for_success() {
        assert!(had_taken_effect(&of("CREATE TABLE t (a INT)"), 1050));
        assert!(!had_taken_effect(&of("CREATE TABLE t (a INT)"), 1146));
        assert!(had_taken_effect(&of("DROP TABLE t"), 1051));
        assert!(!had_taken_effect(&of("ALTER TABLE t ADD a INT"), 1060));
        assert!(had_taken_effect(&of("CREATE USER a"), 1396));
        assert!(!had_taken_effect(&of("RENAME USER a TO b"), 1396));
        assert!(had_taken_effect(&of("REVOKE r FROM a"), 1962));
        assert!(had_taken_effect(&of("ALTER EVENT a RENAME TO b"), 1537));
        assert!(!had_taken_effect(&of("ALTER EVENT a DISABLE"), 1539));
        assert!(!had_taken_effect(&of("GRANT SELECT ON *.* TO a"), 1410));
    }

    #[test]
    fn only_a_database_that_was_not_there_is_made_anew() {
        let run =
            |text: &str| made_anew(text.as_bytes(), &of(text)).map(|out| String::from_utf8(out).unwrap());
        assert_eq!(
            run(" create database `a b` CHARACTER SET latin1").as_deref(),
            Some("CREATE OR REPLACE database `a b` CHARACTER SET latin1")
        );
        for text in [
            "CREATE DATABASE IF NOT EXISTS a",
            "CREATE OR REPLACE DATABASE a",
            "CREATE TABLE a (b INT)",
            "DROP DATABASE a",
        ] {
            assert_eq!(run(text), None, "{text}");
        }
    }

    #[test]
    fn a_role_gets_its_administrator() {
        let run = |text: &str| {
            with_admin(text.as_bytes(), &of(text), Some((b"root", b"localhost")))
                .map(|out| String::from_utf8(out).unwrap())
        };
        assert_eq!(run("CREATE ROLE r1").as_deref(), Some("CREATE ROLE r1 WITH ADMIN `root`@`localhost`"));
        assert_eq!(run("CREATE ROLE r1 WITH ADMIN x"), None);
        assert_eq!(run("CREATE USER 'role'@'%'"), None);
        assert_eq!(run("DROP ROLE r1"), None);
    }

    #[test]
    fn files_of_a_tablespace_stay_in_the_folder_or_are_refused() {
        for elsewhere in [
            "CREATE TABLESPACE far ADD DATAFILE '/data2/far.ibd' ENGINE=InnoDB",
            "create undo tablespace u add datafile \"/data2/u.ibu\"",
            "CREATE TABLESPACE far ADD DATAFILE '../far.ibd'",
        ] {
            assert!(makes_a_file_elsewhere(elsewhere), "{elsewhere}");
        }
        for here in ["CREATE TABLESPACE near ADD DATAFILE 'near.ibd'", "CREATE TABLE t (datafile INT)"] {
            assert!(!makes_a_file_elsewhere(here), "{here}");
        }
        let text = b"CREATE TABLE t (a INT) Data Directory '/data2'";
        let vars = StatusVars { sql_mode: Some(4), ..StatusVars::default() };
        let statement = of("CREATE TABLE t (a INT)");
        assert_eq!(within_the_folder(&vars, &statement, text).sql_mode, Some(4 | NO_DIR_IN_CREATE));
        assert_eq!(within_the_folder(&vars, &statement, b"CREATE TABLE t (a INT)").sql_mode, Some(4));
    }
}
