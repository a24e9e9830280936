//! Tells which statements of a dump reach outside of its databases: into the server's settings, its programs, or its files.

use super::position::{TAKEN, global_sets};
use super::words::{Token, Tokens};

/// Global variables that mysqldump and mariadb-dump set for as long as a dump is loaded.
const OF_THE_DUMP_PROGRAMS: [&str; 2] = ["INNODB_STATS_AUTO_RECALC", "LOG_OUTPUT"];

/// What the statement would do outside; `None` if that is nothing.
///
/// Bodies of routines, triggers and events are not looked at: they do nothing until they are called.
pub(super) fn outside(statement: &[u8], escapes: bool) -> Option<&'static str> {
    let mut tokens = Tokens::of(statement, escapes);
    let first = tokens.next()?;
    let Token::Word(verb) = &first else { return into_a_file(tokens) };
    match verb.as_str() {
        // The bulk of a dump: rows are not read twice.
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" => None,
        "INSTALL" | "UNINSTALL" => Some("changes the server's plugins or components"),
        "LOAD" => Some("reads a file"),
        "SET" => {
            let sets = global_sets(statement, escapes);
            let other = |name: &String| {
                !TAKEN.contains(&name.as_str()) && !OF_THE_DUMP_PROGRAMS.contains(&name.as_str())
            };
            let taken = |name: &String| TAKEN.contains(&name.as_str());
            if tokens.next().is_some_and(|second| second.is("STATEMENT")) {
                Some("hides another statement behind SET STATEMENT")
            } else if sets.names.iter().any(other) {
                Some("sets a global variable")
            } else if sets.names.iter().any(taken) && sets.assignments > 1 {
                Some("sets GTIDs and something else at once")
            } else {
                None
            }
        }
        "CREATE" | "ALTER" => defined(tokens),
        _ => into_a_file(tokens),
    }
}

fn into_a_file(tokens: Tokens<'_>) -> Option<&'static str> {
    let found = follows(tokens, |a, b| a.is("INTO") && (b.is("OUTFILE") || b.is("DUMPFILE")));
    found.then_some("writes a file")
}

fn follows(mut tokens: Tokens<'_>, pair: impl Fn(&Token, &Token) -> bool) -> bool {
    let Some(mut last) = tokens.next() else { return false };
    tokens.any(|token| {
        let found = pair(&last, &token);
        last = token;
        found
    })
}

/// What follows CREATE or ALTER.
fn defined(tokens: Tokens<'_>) -> Option<&'static str> {
    const KINDS: [&str; 10] = [
        "TABLE",
        "TABLESPACE",
        "LOGFILE",
        "FUNCTION",
        "PROCEDURE",
        "TRIGGER",
        "EVENT",
        "PACKAGE",
        "VIEW",
        "DATABASE",
    ];
    let mut behind = tokens.clone();
    let kind = behind.find(|token| KINDS.iter().any(|kind| token.is(kind)));
    match kind.as_ref().and_then(Token::name) {
        Some("TABLE") => {
            let elsewhere = |a: &Token, b: &Token| (a.is("DATA") || a.is("INDEX")) && b.is("DIRECTORY");
            follows(behind, elsewhere).then_some("puts a table's files into another folder")
        }
        Some("TABLESPACE" | "LOGFILE") => follows(behind, |a, b| {
            (a.is("DATAFILE") || a.is("UNDOFILE") || a.is("REDOFILE"))
                && matches!(b, Token::Text(path) if path.contains(['/', '\\']))
        })
        .then_some("puts a tablespace's file into another folder"),
        Some("FUNCTION") => {
            // RETURNS STRING SONAME 'x.so': three words in a row, none of which is a body's.
            let words: Vec<Token> = behind.take(64).collect();
            let loads = words.windows(3).any(|w| matches!(w, [a, _, c] if a.is("RETURNS") && c.is("SONAME")));
            loads.then_some("loads a program into the server")
        }
        Some("VIEW") | None => into_a_file(behind),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_outside_is_told() {
        for sql in [
            "SET GLOBAL max_connections = 5",
            "set @@global.general_log_file='/etc/x'",
            "SET @a = 1, PERSIST x = 2",
            "SET @@PERSIST_ONLY . x = 2",
            "SET GLOBAL log_output = 'NONE', general_log_file = 'x'",
            "/*!50003 SET GLOBAL `event_scheduler` = ON */",
            "SET @@GLOBAL.GTID_PURGED='a', sql_mode=''",
            "SET STATEMENT max_statement_time=1 FOR SET GLOBAL x = 1",
            "INSTALL PLUGIN a SONAME 'a.so'",
            "/*M!100200 INSTALL SONAME 'a' */",
            "INSTALL COMPONENT 'file://x'",
            "CREATE AGGREGATE FUNCTION IF NOT EXISTS f RETURNS STRING SONAME 'f.so'",
            "CREATE TABLE t (a INT) DATA DIRECTORY='/tmp'",
            "CREATE TABLE t (a INT) /*!50100 PARTITION BY HASH (a) (PARTITION p INDEX DIRECTORY = '/x') */",
            "CREATE UNDO TABLESPACE u ADD DATAFILE '/tmp/u.ibu'",
            "SELECT 1 INTO OUTFILE '/tmp/x'",
            "(SELECT 1) INTO /* x */ DUMPFILE 'x'",
            "LOAD DATA INFILE '/etc/passwd' INTO TABLE t",
        ] {
            assert!(outside(sql.as_bytes(), true).is_some(), "{sql}");
        }
    }

    #[test]
    fn what_dumps_hold_does_not() {
        for sql in [
            "INSERT INTO t VALUES ('SET GLOBAL x=1; SELECT 1 INTO OUTFILE')",
            "CREATE TABLE t (a INT COMMENT 'x DATA DIRECTORY=y', `data` INT, `directory` INT)",
            "CREATE DEFINER=`root`@`%` PROCEDURE p() BEGIN SET GLOBAL x = 1; SELECT 1 INTO OUTFILE 'a'; END",
            "CREATE FUNCTION f() RETURNS INT RETURN 'RETURNS x SONAME'",
            "CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd'",
            "/*!50606 SET GLOBAL INNODB_STATS_AUTO_RECALC=OFF */",
            "/*!50106 SET GLOBAL LOG_OUTPUT=@save_log_output*/",
            "/*M!100203 EXECUTE IMMEDIATE IF(@@LOG_OUTPUT='TABLE',\"SET GLOBAL LOG_OUTPUT='NONE'\", \"DO 0\") */",
            "SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'a:1'",
            "SET @save = @@GLOBAL.max_connections, @b = IF(1, 2, @@GLOBAL.x)",
            "SET LOCAL SQL_LOG_OFF=0, LOCAL LOG_SLOW_QUERY=0",
            "/*!50001 VIEW `v` AS SELECT 'INTO OUTFILE' AS a */",
            "LOCK TABLES t WRITE",
        ] {
            assert_eq!(outside(sql.as_bytes(), true), None, "{sql}");
        }
    }
}
