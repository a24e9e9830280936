//! Where a dump stands in its server's log, by its own words: statements or comments that a replica would be set up with.

use super::words::{Token, Tokens};

/// The global variables that hold GTIDs: read, and not set as the dump says.
pub(super) const TAKEN: [&str; 2] = ["GTID_PURGED", "GTID_SLAVE_POS"];

/// By which the dump programs say that a position is of the log of the source of the replica that was dumped.
const OF_A_SOURCE: [&str; 7] = [
    "the master of this slave",
    "the source of this replica",
    "the source for this replica",
    "for this replica",
    "show slave status",
    "show replica status",
    "dump-slave",
];

/// What a dump tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Binlog file and offset.
    pub file: Option<(String, u64)>,
    /// A set (MySQL) or a position (MariaDB).
    pub gtids: Option<String>,
    /// The position is of another server's log: the dump is of a replica, and names its source.
    pub another: bool,
    /// Two places that differ, or two sets.
    pub differing: bool,
    /// It was made of a server that replicates from this one: the position may be in the replica's log.
    pub source: Option<String>,
}

/// Is it a statement for a replica that the private server must not carry out?
pub(super) fn is_for_a_replica(statement: &[u8], escapes: bool) -> bool {
    let mut tokens = Tokens::of(statement, escapes);
    let Some(Token::Word(first)) = tokens.next() else { return false };
    match first.as_str() {
        "SET" => global_sets(statement, escapes).names.iter().any(|name| TAKEN.contains(&name.as_str())),
        "CHANGE" => tokens.next().is_some_and(|second| second.is("MASTER") || second.is("REPLICATION")),
        "START" | "STOP" => tokens.next().is_some_and(|second| {
            ["SLAVE", "REPLICA", "ALL", "GROUP_REPLICATION"].iter().any(|word| second.is(word))
        }),
        "RESET" => true,
        _ => false,
    }
}

impl Told {
    /// Takes what a comment says in place of a statement.
    pub(super) fn comment(&mut self, text: &str) {
        let lower = text.to_ascii_lowercase();
        self.another |= OF_A_SOURCE.iter().any(|words| lower.contains(words));
        let inside = text.trim_start_matches(['-', '#', '/', '*', ' ']);
        self.statement(inside.strip_suffix("*/").unwrap_or(inside).as_bytes(), true);
    }

    /// Takes what a statement says.
    pub(super) fn statement(&mut self, text: &[u8], escapes: bool) {
        let mut tokens = Tokens::of(text, escapes);
        let Some(Token::Word(first)) = tokens.next() else { return };
        match first.as_str() {
            "CHANGE" => {
                let tokens: Vec<Token> = tokens.collect();
                if tokens.first().is_some_and(|second| second.is("MASTER") || second.is("REPLICATION")) {
                    self.change(&tokens);
                }
            }
            "SET" => {
                let sets = global_sets(text, escapes);
                if sets.names.iter().any(|name| TAKEN.contains(&name.as_str())) {
                    let last = tokens.filter_map(|token| match token {
                        Token::Text(text) => Some(text),
                        _ => None,
                    });
                    let set: String =
                        last.last().unwrap_or_default().trim_start_matches('+').split_whitespace().collect();
                    if !set.is_empty() {
                        self.differing |= self.gtids.as_ref().is_some_and(|before| *before != set);
                        self.gtids = Some(set);
                    }
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, tokens: &[Token]) {
        let (mut file, mut offset) = (None, None);
        for three in tokens.windows(3) {
            let [Token::Word(name), Token::Sign(b'='), value] = three else { continue };
            match (name.as_str(), value) {
                ("MASTER_HOST" | "SOURCE_HOST", _) => self.another = true,
                ("MASTER_LOG_FILE" | "SOURCE_LOG_FILE", Token::Text(name)) if !name.is_empty() => {
                    file = Some(name.clone());
                }
                ("MASTER_LOG_POS" | "SOURCE_LOG_POS", Token::Word(digits)) => offset = digits.parse().ok(),
                _ => {}
            }
        }
        if let (Some(file), Some(offset)) = (file, offset) {
            let place = (file, offset);
            self.differing |= self.file.as_ref().is_some_and(|before| *before != place);
            self.file = Some(place);
        }
    }
}

/// What a SET statement sets.
#[derive(Debug, Default)]
pub(super) struct GlobalSets {
    /// Its global variables, in capitals.
    pub names: Vec<String>,
    /// All that it sets.
    pub assignments: usize,
}

/// The global variables that a statement sets, if it begins with SET.
pub(super) fn global_sets(statement: &[u8], escapes: bool) -> GlobalSets {
    let mut tokens = Tokens::of(statement, escapes);
    let mut found = GlobalSets::default();
    if !tokens.next().is_some_and(|first| first.is("SET")) {
        return found;
    }
    let tokens: Vec<Token> = tokens.collect();
    let (mut depth, mut begin) = (0_usize, 0);
    // A scope without @@ holds for what follows it, too.
    let mut global = false;
    for at in 0..=tokens.len() {
        match tokens.get(at) {
            Some(Token::Sign(b'(')) => depth += 1,
            Some(Token::Sign(b')')) => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = tokens.get(at).is_none_or(|token| depth == 0 && *token == Token::Sign(b','));
        if !ends {
            continue;
        }
        let assignment = tokens.get(begin..at).unwrap_or_default();
        begin = at + 1;
        found.assignments += 1;
        let scope = |name: &str| matches!(name, "GLOBAL" | "PERSIST" | "PERSIST_ONLY");
        let named = match assignment {
            [Token::Sign(b'@'), Token::Sign(b'@'), s, Token::Sign(b'.'), name, ..] => {
                s.name().is_some_and(scope).then_some(name)
            }
            [Token::Sign(b'@'), ..] => None,
            [Token::Word(word), name, ..] if scope(word) => {
                global = true;
                Some(name)
            }
            [Token::Word(word), Token::Word(_) | Token::Name(_), ..]
                if matches!(word.as_str(), "SESSION" | "LOCAL") =>
            {
                global = false;
                None
            }
            [name, ..] if global => Some(name),
            _ => None,
        };
        found.names.extend(named.map(|token| match token {
            Token::Word(name) | Token::Name(name) => name.clone(),
            Token::Text(name) => name.to_ascii_uppercase(),
            Token::Sign(sign) => char::from(*sign).to_string(),
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(texts: &[&str]) -> Told {
        let mut told = Told::default();
        for text in texts {
            if text.starts_with("--") || text.starts_with("/* ") {
                told.comment(text);
            } else {
                told.statement(text.as_bytes(), true);
            }
        }
        told
    }

    #[test]
    fn what_the_dump_programs_write_is_read() {
        let at = |file: &str, offset, gtids: &str| Told {
            file: Some((file.to_owned(), offset)).filter(|_| !file.is_empty()),
            gtids: Some(gtids.to_owned()).filter(|_| !gtids.is_empty()),
            ..Told::default()
        };
        assert_eq!(
            told(&["-- CHANGE MASTER TO MASTER_LOG_FILE='binlog.000003', MASTER_LOG_POS=157;"]),
            at("binlog.000003", 157, "")
        );
        assert_eq!(
            told(&[
                "CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='it''s.9', SOURCE_LOG_POS=4",
                "SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ '3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n\
                 3e11fa47-71ca-11e1-9e33-c80aa9429563:7'",
            ]),
            at(
                "it's.9",
                4,
                "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,3e11fa47-71ca-11e1-9e33-c80aa9429563:7"
            )
        );
        assert_eq!(told(&["/* SET @@GLOBAL.GTID_PURGED='+a:1-2';*/"]), at("", 0, "a:1-2"));
        assert_eq!(told(&["-- SET GLOBAL gtid_slave_pos='0-1-2,7-3-4';"]), at("", 0, "0-1-2,7-3-4"));
        assert_eq!(
            told(&[
                "-- CHANGE MASTER TO MASTER_USE_GTID=slave_pos;",
                "-- Position to start replication or point-in-time recovery from",
                "-- Alternately, following is the position of the binary logging from SHOW MASTER STATUS at point of backup.",
            ]),
            Told::default()
        );
        assert_eq!(told(&["INSERT INTO t VALUES ('SET GLOBAL x GTID_PURGED=', 'a')"]), Told::default());
        assert_eq!(
            told(&["-- x CHANGE MASTER TO MASTER_LOG_FILE='b.3', MASTER_LOG_POS=157;"]),
            Told::default()
        );
    }

    #[test]
    fn a_dump_of_a_replica_names_anothers_log() {
        // mysqldump --dump-replica=2, with --include-source-host-port, and mariadb-dump --dump-slave.
        for text in [
            "-- Position to start replication or point-in-time recovery from (the source for this replica)",
            "-- CHANGE REPLICATION SOURCE TO SOURCE_HOST='db1', SOURCE_PORT=3306, SOURCE_LOG_FILE='b.1', SOURCE_LOG_POS=4;",
            "CHANGE MASTER '' TO MASTER_HOST='db1', MASTER_PORT=3306, MASTER_LOG_FILE='b.1', MASTER_LOG_POS=4",
            "-- The following is the SQL position of the replication taken from SHOW SLAVE STATUS at the time of backup.",
            "-- A corresponding to the below dump-slave CHANGE-MASTER settings to the slave gtid state is printed later in the file.",
            "-- The deferred gtid setting for slave corresponding to the dump-slave CHANGE-MASTER follows",
        ] {
            assert!(told(&[text]).another, "{text}");
        }
        let two = [
            "CHANGE MASTER TO MASTER_LOG_FILE='b.1', MASTER_LOG_POS=4",
            "-- CHANGE MASTER TO MASTER_LOG_FILE='b.1', MASTER_LOG_POS=5;",
        ];
        assert!(told(&two).differing && !told(&[two[0], two[0]]).differing);
    }

    #[test]
    fn statements_for_a_replica_are_told_from_others() {
        for sql in [
            "CHANGE MASTER TO MASTER_LOG_POS=1",
            "set @@global.gtid_purged='x'",
            "/* a */ /*!50700 SET GLOBAL gtid_slave_pos = '0-1-2' */",
            "START  REPLICA",
            "STOP ALL SLAVES",
            "RESET MASTER",
        ] {
            assert!(is_for_a_replica(sql.as_bytes(), true), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES ('CHANGE MASTER')",
            "INSERT INTO notes VALUES (1,'SET GLOBAL gtid_slave_pos=\\'0-1-2\\''),(2,'SET @@GLOBAL.GTID_PURGED=\"x\"')",
            "CREATE PROCEDURE p() BEGIN SET GLOBAL gtid_slave_pos = '0-1-2'; SET @@GLOBAL.GTID_PURGED='a:1'; END",
            "SET @@SESSION.SQL_LOG_BIN= 0",
            "SET @x = 'SET GLOBAL gtid_purged', @y = @@GLOBAL.gtid_purged",
            "RESETS",
            "START TRANSACTION",
            "CREATE TABLE t (a INT)",
        ] {
            assert!(!is_for_a_replica(sql.as_bytes(), true), "{sql}");
        }
    }
}
