//! Searches the index: definitions, tables, times. Reads no events where an index is there.

use std::ops::ControlFlow;

use holdfast_format::txn_index::{EntryView, TxnEntry, TxnKind};

use crate::error::Result;
use crate::index::Indexed;
use crate::server_log::{SeenFrame, ServerLog};

/// What is looked for; everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Definitions and account statements only.
    pub ddl: bool,
    /// Transactions that touched this table: `database.table`, or `table` of any database. Case does not count.
    pub table: Option<String>,
    /// Transactions with a statement like this: `%` any text, `_` any character. Case does not count.
    pub like: Option<String>,
    /// Transactions that changed more rows than this, of all tables together. One that names not all of its tables may
    /// have.
    pub rows_over: Option<u64>,
    /// Committed at this time or later, microseconds since the Unix epoch.
    pub since_us: Option<i64>,
    /// Committed at this time or earlier.
    pub until_us: Option<i64>,
}

/// Hands the first `limit` transactions that match to `each`, in the order of the log. True if more do.
pub fn find(
    log: &ServerLog<'_>,
    query: &Query,
    limit: usize,
    each: &mut dyn FnMut(Indexed) -> Result<()>,
) -> Result<bool> {
    let in_frame = |frame: &SeenFrame<'_>| {
        // Names are compared once a frame, not once a transaction.
        let wanted = query.wanted_of(frame.tables());
        let (mut found, mut more) = (Vec::new(), false);
        frame.each(&mut |seen| {
            if query.matches(seen.entry, &wanted) {
                if found.len() < limit {
                    found.push(seen.indexed());
                } else {
                    more = true;
                }
            }
            Ok(())
        })?;
        Ok((found, more))
    };
    let (mut left, mut more) = (limit, false);
    log.each_mapped(&in_frame, &mut |(found, further)| {
        more = further || found.len() > left;
        for indexed in found.into_iter().take(left) {
            left -= 1;
            each(indexed)?;
        }
        Ok(if more { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(more)
}

impl Query {
    /// Which of a frame's tables are the one that is looked for; all if none is named.
    #[must_use]
    pub fn wanted_of(&self, tables: &[(&[u8], &[u8])]) -> Vec<bool> {
        let Some(wanted) = &self.table else { return vec![true; tables.len()] };
        let (database, table) = split_name(wanted);
        let same = |bytes: &[u8], text: &str| bytes.eq_ignore_ascii_case(text.as_bytes());
        let is = |(of, name): &(&[u8], &[u8])| same(name, table) && database.is_none_or(|db| same(of, db));
        tables.iter().map(is).collect()
    }

    /// Does a transaction match? `wanted` is what [`Query::wanted_of`] says of its frame.
    #[must_use]
    pub fn matches(&self, entry: &EntryView<'_>, wanted: &[bool]) -> bool {
        let definition = matches!(entry.kind, TxnKind::Ddl | TxnKind::Acl);
        (!self.ddl || definition)
            && self.since_us.is_none_or(|since| entry.commit_us >= since)
            && self.until_us.is_none_or(|until| entry.commit_us <= until)
            && self.rows_over.is_none_or(|rows| entry.tables_cut || rows_of(entry) > rows)
            && self.table.as_ref().is_none_or(|table| touches(entry, table, wanted))
            && self
                .like
                .as_ref()
                .is_none_or(|pattern| entry.statement.is_some_and(|(_, text)| like(text, pattern.as_bytes())))
    }
}

/// Database, if one is named, and table.
fn split_name(wanted: &str) -> (Option<&str>, &str) {
    match wanted.split_once('.') {
        Some((database, table)) => (Some(database), table),
        None => (None, wanted),
    }
}

fn rows_of(entry: &EntryView<'_>) -> u64 {
    let rows = entry.tables.iter().flat_map(|t| [t.inserted, t.updated, t.deleted]);
    rows.fold(0, u64::saturating_add)
}

/// Did a transaction touch the table? One that names not all of its tables may have.
fn touches(entry: &EntryView<'_>, name: &str, wanted: &[bool]) -> bool {
    entry.tables_cut
        || entry.tables.iter().any(|touched| wanted.get(touched.table) == Some(&true))
        || split_name(name).0.is_some_and(|database| drops_database(entry, database))
}

/// `DROP DATABASE` takes its tables along without naming them.
fn drops_database(entry: &EntryView<'_>, database: &str) -> bool {
    let Some((_, text)) = entry.statement.filter(|_| entry.kind == TxnKind::Ddl) else { return false };
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let mut words = text.split(|c: char| c.is_whitespace() || c == '`' || c == ';').filter(|w| !w.is_empty());
    words.next() == Some("drop")
        && matches!(words.next(), Some("database" | "schema"))
        && words.next_back() == Some(database.to_ascii_lowercase().as_str())
}

/// SQL's LIKE on bytes, ASCII case ignored; `\` takes the next byte as it is.
#[must_use]
pub fn like(text: &[u8], pattern: &[u8]) -> bool {
    // Greedy with one point to come back to: linear in the text for each `%`.
    let (mut t, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'%') => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(&wanted) => {
                let (wanted, width) = match (wanted, pattern.get(p + 1)) {
                    (b'\\', Some(&next)) => (Some(next), 2),
                    (b'_', _) => (None, 1),
                    (other, _) => (Some(other), 1),
                };
                let here = text.get(t).copied().unwrap_or_default();
                if wanted.is_none_or(|wanted| wanted.eq_ignore_ascii_case(&here)) {
                    (t, p) = (t + 1, p + width);
                    continue;
                }
            }
            None => {}
        }
        match back {
            Some((after, at)) => {
                (t, p) = (at + 1, after);
                back = Some((after, at + 1));
            }
            None => return false,
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|&b| b == b'%')
}

/// The statement of a transaction for people: on one line, passwords and their hashes left out.
#[must_use]
pub fn shown_statement(entry: &TxnEntry) -> Option<String> {
    let statement = entry.statement.as_ref()?;
    let text = String::from_utf8_lossy(&statement.text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown = if entry.kind == TxnKind::Acl { without_secrets(&line) } else { line };
    if statement.cut {
        shown.push_str(" ...");
    }
    Some(shown)
}

/// Replaces what is quoted (or hexadecimal) behind BY, AS, USING, PASSWORD and its brackets.
fn without_secrets(line: &str) -> String {
    let (mut out, mut word, mut secret) = (String::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' || c == '"' {
            let mut inner = String::new();
            while let Some(next) = chars.next() {
                if next == '\\' {
                    inner.push(next);
                    inner.extend(chars.next());
                } else if next == c {
                    break;
                } else {
                    inner.push(next);
                }
            }
            out.push(c);
            out.push_str(if secret { "***" } else { &inner });
            out.push(c);
            word.clear();
            secret = false;
            continue;
        }
        if c.is_ascii_alphanumeric() || c == '_' {
            word.push(c);
            if secret && word.eq_ignore_ascii_case("0x") {
                while chars.next_if(char::is_ascii_hexdigit).is_some() {}
                out.push_str("x***");
                word.clear();
                secret = false;
                continue;
            }
        } else if !word.is_empty() {
            secret = ["BY", "AS", "USING", "PASSWORD"].iter().any(|w| word.eq_ignore_ascii_case(w));
            word.clear();
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::txn_index::{FrameView, IndexFrame, StatementText, TableChange};
    use proptest::prelude::*;

    fn statement(kind: TxnKind, text: &str) -> TxnEntry {
        TxnEntry {
            gtid: None,
            start: 4,
            end: 5,
            commit_us: 0,
            kind,
            tables: Vec::new(),
            tables_cut: false,
            rolled_back: false,
            statement: Some(StatementText { database: Vec::new(), text: text.into(), cut: false }),
        }
    }

    /// Does an entry match that is alone in a frame?
    fn matches(query: &Query, entry: TxnEntry) -> bool {
        let frame =
            IndexFrame { number: 0, file: "binlog.000001".into(), complete: true, entries: vec![entry] };
        let bytes = frame.encode();
        let frame = FrameView::decode(&bytes).unwrap();
        let mut found = false;
        let wanted = query.wanted_of(frame.tables());
        let mut look = |entry: &EntryView<'_>| {
            found = query.matches(entry, &wanted);
            Ok::<_, holdfast_format::Error>(())
        };
        frame.each(&mut look).unwrap();
        found
    }

    #[test]
    fn a_table_is_found_by_its_name_with_or_without_its_database() {
        let change = |database: &str, table: &str| TableChange {
            database: database.into(),
            table: table.into(),
            inserted: 1,
            updated: 0,
            deleted: 0,
        };
        let entry = TxnEntry {
            tables: vec![change("shop", "visits"), change("Shop", "Orders")],
            kind: TxnKind::Rows,
            statement: None,
            ..statement(TxnKind::Rows, "")
        };
        let asked =
            |name: &str| matches(&Query { table: Some(name.into()), ..Query::default() }, entry.clone());
        assert!(asked("orders") && asked("shop.ORDERS") && asked("visits"));
        assert!(!asked("other.orders") && !asked("order") && !asked("shop.visit"));
    }

    #[test]
    fn like_knows_any_text_any_character_and_escapes() {
        for (text, pattern, yes) in [
            ("DROP TABLE orders", "drop%", true),
            ("DROP TABLE orders", "%orders", true),
            ("DROP TABLE orders", "%table%ord_rs", true),
            ("DROP TABLE orders", "drop", false),
            ("a%b", "a\\%b", true),
            ("axb", "a\\%b", false),
            ("", "%", true),
            ("aaab", "%a%ab", true),
        ] {
            assert_eq!(like(text.as_bytes(), pattern.as_bytes()), yes, "{text} like {pattern}");
        }
    }

    #[test]
    fn passwords_and_hashes_are_not_shown() {
        for (text, shown) in [
            (
                "CREATE USER 'a'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$x\\'y'",
                "CREATE USER 'a'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '***'",
            ),
            ("ALTER USER u IDENTIFIED BY \"pw\" ", "ALTER USER u IDENTIFIED BY \"***\""),
            ("SET PASSWORD FOR u = PASSWORD('x')", "SET PASSWORD FOR u = PASSWORD('***')"),
            (
                "ALTER USER u IDENTIFIED WITH 'p' AS 0x24abc REQUIRE NONE",
                "ALTER USER u IDENTIFIED WITH 'p' AS 0x*** REQUIRE NONE",
            ),
        ] {
            assert_eq!(shown_statement(&statement(TxnKind::Acl, text)).unwrap(), shown);
        }
    }

    #[test]
    fn many_rows_are_those_of_all_tables_together() {
        let table = |name: &str, inserted, updated, deleted| TableChange {
            database: b"shop".to_vec(),
            table: name.into(),
            inserted,
            updated,
            deleted,
        };
        let mut entry = statement(TxnKind::Rows, "");
        entry.tables = vec![table("a", 3, 2, 1), table("b", 4, 0, 0)];
        let over = |rows| Query { rows_over: Some(rows), ..Query::default() };
        assert!(matches(&over(9), entry.clone()) && !matches(&over(10), entry.clone()));
        entry.tables_cut = true;
        assert!(matches(&over(10), entry), "it may have");
    }

    #[test]
    fn a_dropped_database_touched_its_tables() {
        let query = Query { table: Some("shop.orders".into()), ..Query::default() };
        assert!(matches(&query, statement(TxnKind::Ddl, "DROP DATABASE IF EXISTS `shop`")));
        assert!(!matches(&query, statement(TxnKind::Ddl, "DROP DATABASE other")));
    }

    proptest! {
        #[test]
        fn like_ends_for_any_bytes(text in proptest::collection::vec(any::<u8>(), 0..40), pattern in "[ab%_\\\\]{0,12}") {
            let _ = like(&text, pattern.as_bytes());
            prop_assert!(like(&text, b"%"));
        }

        #[test]
        fn any_statement_can_be_shown(text in "\\PC{0,60}") {
            let _ = shown_statement(&statement(TxnKind::Acl, &text));
        }
    }
}
