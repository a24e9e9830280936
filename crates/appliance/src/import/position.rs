//! Where a dump stands in its server's log, by its own words: statements or comments that a replica would be set up with.

/// What a dump tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Binlog file and offset.
    pub file: Option<(String, u64)>,
    /// A set (MySQL) or a position (MariaDB).
    pub gtids: Option<String>,
}

/// Is it a statement for a replica that the private server must not carry out?
pub(super) fn is_for_a_replica(statement: &str) -> bool {
    let words = statement.split_whitespace().take(3).collect::<Vec<_>>().join(" ").to_ascii_uppercase();
    [
        "CHANGE MASTER",
        "CHANGE REPLICATION",
        "START SLAVE",
        "START REPLICA",
        "STOP SLAVE",
        "STOP REPLICA",
        "RESET ",
    ]
    .iter()
    .any(|head| words.starts_with(head))
        || sets(statement, "GTID_PURGED").is_some()
        || sets(statement, "GTID_SLAVE_POS").is_some()
}

impl Told {
    /// Takes what a statement, or a comment in place of one, tells.
    pub(super) fn read(&mut self, text: &str) {
        let upper = text.to_ascii_uppercase();
        if upper.contains("CHANGE MASTER") || upper.contains("CHANGE REPLICATION SOURCE") {
            let after = |words: [&str; 2]| {
                let at = words.iter().find_map(|word| upper.find(word).map(|at| at + word.len()))?;
                text.get(at..)
            };
            let file =
                after(["MASTER_LOG_FILE='", "SOURCE_LOG_FILE='"]).and_then(|rest| rest.split('\'').next());
            let offset = after(["MASTER_LOG_POS=", "SOURCE_LOG_POS="]).and_then(|rest| {
                rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
            });
            if let (Some(file), Some(offset)) = (file.filter(|file| !file.is_empty()), offset) {
                self.file = Some((file.to_owned(), offset));
            }
        }
        for name in ["GTID_PURGED", "GTID_SLAVE_POS"] {
            if let Some(set) = sets(text, name) {
                let set: String = set.trim_start_matches('+').split_whitespace().collect();
                if !set.is_empty() {
                    self.gtids = Some(set);
                }
            }
        }
    }
}

/// The text that a SET of the variable gives it: the last one between quotes, behind what only some versions read.
fn sets<'t>(text: &'t str, variable: &str) -> Option<&'t str> {
    let upper = text.to_ascii_uppercase();
    let set = upper.find("SET ")?;
    let at = upper.get(set..)?.find(variable)? + set + variable.len();
    // Only what stands between the statement's word and the variable's name makes it a SET of that variable.
    let between = upper.get(set + 4..at - variable.len())?.trim();
    matches!(between, "@@GLOBAL." | "GLOBAL" | "@@GLOBAL .").then_some(())?;
    let rest = text.get(at..)?.trim_start().strip_prefix('=')?;
    let end = rest.rfind('\'')?;
    let from = rest.get(..end)?.rfind('\'')? + 1;
    rest.get(from..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(texts: &[&str]) -> Told {
        let mut told = Told::default();
        texts.iter().for_each(|text| told.read(text));
        told
    }

    #[test]
    fn what_the_dump_programs_write_is_read() {
        let at = |file: &str, offset, gtids: &str| Told {
            file: Some((file.to_owned(), offset)).filter(|_| !file.is_empty()),
            gtids: Some(gtids.to_owned()).filter(|_| !gtids.is_empty()),
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
            at("it", 4, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,3e11fa47-71ca-11e1-9e33-c80aa9429563:7")
        );
        assert_eq!(told(&["/* SET @@GLOBAL.GTID_PURGED='+a:1-2';*/"]), at("", 0, "a:1-2"));
        assert_eq!(told(&["-- SET GLOBAL gtid_slave_pos='0-1-2,7-3-4';"]), at("", 0, "0-1-2,7-3-4"));
        assert_eq!(
            told(&["-- CHANGE MASTER TO MASTER_USE_GTID=slave_pos;", "-- Position to start from"]),
            Told::default()
        );
        assert_eq!(told(&["INSERT INTO t VALUES ('SET GLOBAL x GTID_PURGED=', 'a')"]), Told::default());
    }

    #[test]
    fn statements_for_a_replica_are_told_from_others() {
        for sql in [
            "CHANGE MASTER TO MASTER_LOG_POS=1",
            "set @@global.gtid_purged='x'",
            "START  REPLICA",
            "RESET MASTER",
        ] {
            assert!(is_for_a_replica(sql), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES ('CHANGE MASTER')",
            "SET @@SESSION.SQL_LOG_BIN= 0",
            "RESETS",
            "CREATE TABLE t (a INT)",
        ] {
            assert!(!is_for_a_replica(sql), "{sql}");
        }
    }
}
