//! The whole logical state of a server, and how two of them differ.
//!
//! Rows are compared as bytes, in the order of the primary key (of all columns where there is
//! none), definitions as `SHOW CREATE` gives them, accounts with their grants.

use std::collections::BTreeMap;

use holdfast_mysql::{Conn, Flavor};

/// Schemas that belong to the server itself.
const OWN_SCHEMAS: &str = "'mysql', 'sys', 'information_schema', 'performance_schema'";

/// Differences of one kind that are listed before the rest is only counted.
const LISTED: usize = 5;

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableState {
    /// Its definition, without the counter.
    pub definition: String,
    /// The `AUTO_INCREMENT` counter, which rolled-back transactions move as well: compared apart.
    pub counter: Option<u64>,
    /// The rows, each one its values with their lengths.
    pub rows: Vec<Vec<u8>>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerState {
    /// By `schema.table`.
    pub tables: BTreeMap<String, TableState>,
    /// Schemas, views, triggers, routines, events: kind and name, and the definition.
    pub objects: BTreeMap<String, String>,
    /// Accounts: how each is made, and its grants.
    pub accounts: BTreeMap<String, Vec<String>>,
}

impl ServerState {
    /// Reads the state over `conn`, an account that may see everything.
    pub fn read(conn: &mut Conn) -> Result<Self, holdfast_mysql::Error> {
        // Bytes as they are stored, times in one zone, generated texts in one form.
        conn.execute("SET NAMES binary")?;
        conn.execute("SET time_zone = '+00:00'")?;
        let mysql = conn.server().flavor == Flavor::MySql;
        if mysql {
            conn.execute("SET print_identified_with_as_hex = ON")?;
            conn.execute("SET information_schema_stats_expiry = 0")?;
        }
        let mut state = Self::default();
        state.read_tables(conn)?;
        state.read_objects(conn)?;
        state.read_accounts(conn)?;
        Ok(state)
    }

    /// The same without what a replica makes of events: it disables those that it replays.
    #[must_use]
    pub fn as_on_a_replica(mut self) -> Self {
        for (_, text) in self.objects.iter_mut().filter(|(name, _)| name.starts_with("EVENT")) {
            for word in [" ENABLE ", " DISABLE ON REPLICA ", " DISABLE ON SLAVE ", " DISABLE "] {
                *text = text.replace(word, " ");
            }
        }
        self
    }

    fn read_tables(&mut self, conn: &mut Conn) -> Result<(), holdfast_mysql::Error> {
        for [schema, table] in list::<2>(
            conn,
            &format!(
                "SELECT table_schema, table_name FROM information_schema.tables \
                 WHERE table_type IN ('BASE TABLE', 'SEQUENCE', 'SYSTEM VERSIONED') \
                 AND table_schema NOT IN ({OWN_SCHEMAS})"
            ),
        )? {
            let name = format!("{}.{}", quoted(&schema), quoted(&table));
            let definition = show(conn, &format!("SHOW CREATE TABLE {name}"), 1)?;
            let (definition, counter) = without_counter(&definition);
            let columns = list::<3>(
                conn,
                &format!(
                    "SELECT column_name, data_type, column_key FROM information_schema.columns \
                     WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
                    text(&schema),
                    text(&table)
                ),
            )?;
            // A FLOAT's text is rounded; a DOUBLE's is not.
            let value = |[column, kind, _]: &[String; 3]| match kind.as_str() {
                "float" => format!("CAST({} AS DOUBLE)", quoted(column)),
                _ => quoted(column),
            };
            let values: Vec<String> = columns.iter().map(value).collect();
            let key: Vec<String> = columns
                .iter()
                .filter(|[_, _, key]| key == "PRI")
                .map(|[column, _, _]| format!("`{column}`"))
                .collect();
            let mut rows = Vec::new();
            conn.query_each::<holdfast_mysql::Error>(
                format!(
                    "SELECT {} FROM {name} ORDER BY {}",
                    values.join(", "),
                    if key.is_empty() { "1" } else { "NULL" }
                ),
                |row| {
                    let mut bytes = Vec::new();
                    for value in row.values() {
                        match value {
                            Some(value) => {
                                bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
                                bytes.extend_from_slice(value);
                            }
                            None => bytes.extend_from_slice(&u32::MAX.to_le_bytes()),
                        }
                    }
                    rows.push(bytes);
                    Ok(())
                },
            )?;
            // One order on both sides, whatever the collations.
            rows.sort_unstable();
            self.tables.insert(format!("{schema}.{table}"), TableState { definition, counter, rows });
        }
        Ok(())
    }

    fn read_objects(&mut self, conn: &mut Conn) -> Result<(), holdfast_mysql::Error> {
        let own = |column: &str| format!("{column} NOT IN ({OWN_SCHEMAS})");
        let queries = [
            (
                "DATABASE",
                1,
                format!(
                    "SELECT schema_name, '' FROM information_schema.schemata WHERE {}",
                    own("schema_name")
                ),
            ),
            (
                "TABLE",
                1,
                format!(
                    "SELECT table_schema, table_name FROM information_schema.views WHERE {}",
                    own("table_schema")
                ),
            ),
            (
                "TRIGGER",
                2,
                format!(
                    "SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE {}",
                    own("trigger_schema")
                ),
            ),
            (
                "PROCEDURE",
                2,
                format!(
                    "SELECT routine_schema, routine_name FROM information_schema.routines WHERE routine_type = 'PROCEDURE' AND {}",
                    own("routine_schema")
                ),
            ),
            (
                "FUNCTION",
                2,
                format!(
                    "SELECT routine_schema, routine_name FROM information_schema.routines WHERE routine_type = 'FUNCTION' AND {}",
                    own("routine_schema")
                ),
            ),
            (
                "EVENT",
                3,
                format!(
                    "SELECT event_schema, event_name FROM information_schema.events WHERE {}",
                    own("event_schema")
                ),
            ),
        ];
        for (kind, column, query) in queries {
            for [schema, object] in list::<2>(conn, &query)? {
                let name = if object.is_empty() {
                    quoted(&schema)
                } else {
                    format!("{}.{}", quoted(&schema), quoted(&object))
                };
                let definition = show(conn, &format!("SHOW CREATE {kind} {name}"), column)?;
                self.objects.insert(format!("{kind} {name}"), definition);
            }
        }
        Ok(())
    }

    fn read_accounts(&mut self, conn: &mut Conn) -> Result<(), holdfast_mysql::Error> {
        let accounts = list::<2>(
            conn,
            r"SELECT user, host FROM mysql.user WHERE user NOT LIKE 'holdfast\_private\_%' AND user NOT LIKE 'mysql.%' AND user NOT LIKE 'mariadb.%'",
        )?;
        for [user, host] in accounts {
            // A role of MariaDB is an account without a host.
            let name = if host.is_empty() { text(&user) } else { format!("{}@{}", text(&user), text(&host)) };
            let mut lines = Vec::new();
            if !host.is_empty() {
                lines.push(show(conn, &format!("SHOW CREATE USER {name}"), 0)?);
            }
            let mut grants: Vec<String> =
                list::<1>(conn, &format!("SHOW GRANTS FOR {name}"))?.into_iter().map(|[line]| line).collect();
            grants.sort();
            lines.extend(grants);
            self.accounts.insert(name, lines);
        }
        Ok(())
    }
}

/// What `found` has otherwise than `expected`, a line each; empty if they are equal. Counters of
/// `AUTO_INCREMENT` may be higher than expected, since failed transactions raise them.
#[must_use]
pub fn differences(expected: &ServerState, found: &ServerState) -> Vec<String> {
    let mut out = Vec::new();
    compare_maps("table", &expected.tables, &found.tables, &mut out, |name, expected, found, out| {
        if expected.definition != found.definition {
            out.push(format!("table {name}: expected {}\n  found {}", expected.definition, found.definition));
        }
        if found.counter.unwrap_or(0) < expected.counter.unwrap_or(0) {
            out.push(format!("table {name}: counter {:?}, expected {:?}", found.counter, expected.counter));
        }
        if expected.rows == found.rows {
            return;
        }
        let lost: Vec<_> =
            expected.rows.iter().filter(|row| found.rows.binary_search(row).is_err()).collect();
        let extra: Vec<_> =
            found.rows.iter().filter(|row| expected.rows.binary_search(row).is_err()).collect();
        out.push(format!(
            "table {name}: {} rows expected, {} found; {} missing, {} that should not be there (or differ in number)",
            expected.rows.len(),
            found.rows.len(),
            lost.len(),
            extra.len()
        ));
        let text = |row: &&&Vec<u8>| String::from_utf8_lossy(row).escape_debug().to_string();
        out.extend(lost.iter().take(LISTED).map(|row| format!("  missing: {}", text(&row))));
        out.extend(extra.iter().take(LISTED).map(|row| format!("  not expected: {}", text(&row))));
    });
    let simple = |kind: &'static str| {
        move |name: &str,
              expected: &dyn std::fmt::Debug,
              found: &dyn std::fmt::Debug,
              out: &mut Vec<String>| {
            out.push(format!("{kind} {name}: expected {expected:?}\n  found {found:?}"));
        }
    };
    compare_maps("object", &expected.objects, &found.objects, &mut out, |name, a, b, out| {
        if a != b {
            simple("object")(name, a, b, out);
        }
    });
    compare_maps("account", &expected.accounts, &found.accounts, &mut out, |name, a, b, out| {
        if a != b {
            simple("account")(name, a, b, out);
        }
    });
    out
}

fn compare_maps<T>(
    kind: &str,
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
    out: &mut Vec<String>,
    each: impl Fn(&str, &T, &T, &mut Vec<String>),
) {
    for (name, value) in expected {
        match found.get(name) {
            Some(other) => each(name, value, other, out),
            None => out.push(format!("{kind} {name}: missing")),
        }
    }
    for name in found.keys().filter(|name| !expected.contains_key(*name)) {
        out.push(format!("{kind} {name}: should not be there"));
    }
}

/// A name between backticks.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text between quotes.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Cuts ` AUTO_INCREMENT=n` out of a table's definition; it stands after the closing parenthesis.
fn without_counter(definition: &str) -> (String, Option<u64>) {
    const WORD: &str = " AUTO_INCREMENT=";
    let Some(at) = definition.rfind("\n)").and_then(|end| definition[end..].find(WORD).map(|at| end + at))
    else {
        return (definition.to_owned(), None);
    };
    let digits: String = definition[at + WORD.len()..].chars().take_while(char::is_ascii_digit).collect();
    let rest = &definition[at + WORD.len() + digits.len()..];
    (format!("{}{rest}", &definition[..at]), digits.parse().ok())
}

fn list<const N: usize>(conn: &mut Conn, query: &str) -> Result<Vec<[String; N]>, holdfast_mysql::Error> {
    let result = conn.query(query)?;
    let text = |row, column| result.text(row, column).unwrap_or_default();
    Ok((0..result.rows.len()).map(|row| std::array::from_fn(|column| text(row, column))).collect())
}

fn show(conn: &mut Conn, query: &str, column: usize) -> Result<String, holdfast_mysql::Error> {
    Ok(conn.query(query)?.text(0, column).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_cut_out_of_the_definition_but_not_out_of_a_default() {
        let (definition, counter) = without_counter(
            "CREATE TABLE `t` (\n  `a` text DEFAULT ' AUTO_INCREMENT=3'\n) ENGINE=InnoDB AUTO_INCREMENT=12 COMMENT='x'",
        );
        assert_eq!(counter, Some(12));
        assert!(definition.ends_with(") ENGINE=InnoDB COMMENT='x'"), "{definition}");
        assert!(definition.contains("' AUTO_INCREMENT=3'"));
    }

    #[test]
    fn each_kind_of_difference_is_told() {
        let table = |rows: &[&[u8]], counter| TableState {
            definition: "d".to_owned(),
            counter,
            rows: rows.iter().map(|row| row.to_vec()).collect(),
        };
        let state = |table: TableState, object: &str| ServerState {
            tables: [("s.t".to_owned(), table)].into(),
            objects: [("VIEW v".to_owned(), object.to_owned())].into(),
            accounts: [("'a'@'b'".to_owned(), vec!["GRANT".to_owned()])].into(),
        };
        let one = state(table(&[b"1", b"2"], Some(3)), "x");
        assert!(differences(&one, &one).is_empty());
        assert!(differences(&one, &state(table(&[b"1", b"2"], Some(4)), "x")).is_empty());
        assert_eq!(differences(&one, &state(table(&[b"1", b"2"], Some(2)), "x")).len(), 1);
        assert!(differences(&one, &state(table(&[b"1", b"3"], Some(3)), "x")).len() >= 3);
        assert!(!differences(&one, &state(table(&[b"1", b"1", b"2"], Some(3)), "x")).is_empty());
        assert_eq!(differences(&one, &state(table(&[b"1", b"2"], Some(3)), "y")).len(), 1);
        assert_eq!(differences(&one, &ServerState::default()).len(), 3);
    }
}
