//! The user's own check queries, as they are written: SQL, with what is expected in a comment.
//!
//! ```sql
//! -- name: there are orders
//! SELECT COUNT(*) FROM shop.orders;                     -- expect: >= 1000
//! SELECT 1 FROM shop.orders WHERE total < 0;            -- expect: rows = 0
//! ```
//!
//! A comment belongs to the query in or before which it stands, and to the query that ends on its line. The same text is
//! taken from a file, from the command line, and from the daemon's configuration.

use crate::error::{Error, Result};
use holdfast_mysql::script::{Piece, Splitter};
pub use holdfast_restore::queries::{CheckQuery, Compare, Expect, Queries};
use std::path::Path;

/// Longest text.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most queries of one drill.
const QUERIES_MAX: usize = 1000;

/// Adds the queries of a file to those that are there.
///
/// # Errors
/// `Usage` when it can't be read, or as [`add_text`].
pub fn add_file(queries: &mut Queries, file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::usage(format!("The check queries {} can't be read: {error}.", file.display()))
            .with_next("name a file of SQL that this user may read")
    })?;
    add_text(queries, &text, &file.display().to_string())
}

/// Adds the queries of a text to those that are there; `place` is what a message calls the text.
///
/// # Errors
/// `Usage` with the place and the line of what is wrong.
pub fn add_text(queries: &mut Queries, text: &str, place: &str) -> Result<()> {
    let wrong = |line: u64, why: &str| {
        Error::usage(format!("The check queries of {place}, line {line}: {why}.")).with_next(
            "write SQL, and what is expected in a comment: -- expect: >= 10, -- expect: = 'open', -- expect: rows = 0",
        )
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong(1, &format!("there are more than {TEXT_BYTES_MAX} bytes of it")));
    }
    let before = queries.all.len();
    let mut waiting = Words::default();
    // The newest query, with the line that it ends on, until all of its comments are known.
    let mut open: Option<(Query, u64)> = None;
    let mut splitter = Splitter::new(TEXT_BYTES_MAX);
    splitter.feed(text.as_bytes());
    splitter.end();
    while let Some(piece) = splitter.next_piece().map_err(|flaw| wrong(flaw.line(), &flaw.to_string()))? {
        match piece {
            Piece::Comment { text, line } => {
                let words = match &mut open {
                    Some((query, end)) if *end == line => &mut query.words,
                    _ => &mut waiting,
                };
                words.take(&String::from_utf8_lossy(&text), line).map_err(|why| wrong(line, &why))?;
            }
            Piece::Statement { text, line, end } => {
                finish(queries, open.take());
                let sql = String::from_utf8_lossy(&text).into_owned();
                let mut words = std::mem::take(&mut waiting);
                for comment in comments(&sql) {
                    words.take(comment, line).map_err(|why| wrong(line, &why))?;
                }
                open = Some((Query { sql, words }, end));
            }
        }
    }
    if let Some(line) = waiting.line {
        return Err(wrong(line, "no query follows"));
    }
    finish(queries, open.take());
    if queries.all.len() == before {
        return Err(wrong(1, "there is no query in it"));
    }
    if queries.all.len() > QUERIES_MAX {
        return Err(wrong(1, &format!("there are more than {QUERIES_MAX} queries")));
    }
    Ok(())
}

/// A query whose comments are not all known yet.
struct Query {
    sql: String,
    words: Words,
}

/// Adds a query whose comments are all known. One without a name is called by its number: names go into alerts and mails,
/// and a statement may hold anything.
fn finish(queries: &mut Queries, query: Option<(Query, u64)>) {
    let Some((query, _)) = query else { return };
    let number = queries.all.len() + 1;
    queries.all.push(CheckQuery {
        name: query.words.name.unwrap_or_else(|| format!("query {number}")),
        sql: query.sql,
        expect: query.words.expect.unwrap_or(Expect::Runs),
    });
}

/// What comments say of a query.
#[derive(Default)]
struct Words {
    name: Option<String>,
    expect: Option<Expect>,
    /// Where they say so.
    line: Option<u64>,
}

impl Words {
    /// Takes what a comment says; one that says neither a name nor an expectation is a comment.
    fn take(&mut self, comment: &str, line: u64) -> std::result::Result<(), String> {
        let text = comment.trim_start_matches(['-', '#', '/', '*']).trim_end_matches(['/', '*']).trim();
        let Some((key, rest)) = text.split_once(':') else {
            // Nobody is to believe that this is checked.
            let expects = text.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("expect"));
            return if expects { Err(format!("'{text}' has no colon; write 'expect:'")) } else { Ok(()) };
        };
        let rest = rest.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" if self.name.is_some() => return Err("a query has two names".to_owned()),
            "name" if rest.to_ascii_lowercase().contains("expect") && rest.contains(':') => {
                return Err(format!(
                    "the name '{rest}' holds an expectation; give that a comment of its own"
                ));
            }
            "name" => self.name = Some(rest.to_owned()),
            "expect" if self.expect.is_some() => return Err("a query has two expectations".to_owned()),
            "expect" => self.expect = Some(expectation(rest)?),
            other if other.starts_with("expect") => {
                return Err(format!("'{other}:' is not known; write 'expect:'"));
            }
            _ => return Ok(()),
        }
        self.line = Some(line);
        Ok(())
    }
}

/// What is expected: `rows >= 3`, `>= 10`, `= 'open'`, `!= NULL`; without a sign, `=` is meant.
fn expectation(text: &str) -> std::result::Result<Expect, String> {
    const SIGNS: [(&str, Compare); 8] = [
        (">=", Compare::AtLeast),
        ("<=", Compare::AtMost),
        ("!=", Compare::Other),
        ("<>", Compare::Other),
        ("==", Compare::Equal),
        ("=", Compare::Equal),
        (">", Compare::More),
        ("<", Compare::Less),
    ];
    let rows = text.get(..4).filter(|word| word.eq_ignore_ascii_case("rows"));
    let rest = text.get(rows.map_or(0, str::len)..).unwrap_or_default().trim();
    let (how, value) = SIGNS
        .iter()
        .find_map(|(sign, how)| rest.strip_prefix(sign).map(|value| (*how, value.trim())))
        .unwrap_or((Compare::Equal, rest));
    if value.is_empty() {
        return Err(format!("'{text}' expects nothing"));
    }
    if rows.is_some() {
        return match value.parse() {
            Ok(count) => Ok(Expect::Rows(how, count)),
            Err(_) => Err(format!("'{value}' is no number of rows")),
        };
    }
    let quoted = value.strip_prefix('\'').and_then(|value| value.strip_suffix('\''));
    let value = match quoted {
        Some(text) => Some(text.replace("''", "'")),
        None if value.eq_ignore_ascii_case("null") => None,
        None => Some(value.to_owned()),
    };
    let ordered = !matches!(how, Compare::Equal | Compare::Other);
    if ordered && value.as_ref().is_none_or(|value| value.parse::<f64>().is_err()) {
        return Err(format!("'{text}' asks which is more, which is known of numbers only"));
    }
    Ok(Expect::Value(how, value))
}

/// The comments inside of a statement, without those of its strings.
fn comments(sql: &str) -> Vec<&str> {
    let bytes = sql.as_bytes();
    let byte = |at: usize| bytes.get(at).copied();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(first) = byte(at) {
        let rest = sql.get(at..).unwrap_or_default();
        let line = || rest.find('\n').unwrap_or(rest.len());
        let len = match first {
            b'\'' | b'"' | b'`' => {
                let mut end = at + 1;
                while byte(end).is_some_and(|b| b != first) {
                    end += if byte(end) == Some(b'\\') && first != b'`' { 2 } else { 1 };
                }
                end + 1 - at
            }
            b'-' if rest.starts_with("--") && byte(at + 2).is_none_or(|b| b.is_ascii_whitespace()) => line(),
            b'#' => line(),
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ => {
                at += 1;
                continue;
            }
        };
        if !matches!(first, b'\'' | b'"' | b'`') {
            found.extend(rest.get(..len));
        }
        at += len;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(String, String, String)>> {
        let mut queries = Queries::default();
        add_text(&mut queries, text, "the test")?;
        Ok(queries.all.into_iter().map(|q| (q.name, q.sql, q.expect.to_string())).collect())
    }

    #[test]
    fn a_file_gives_each_query_its_name_and_what_is_expected() {
        let text = "-- Checks of the shop.\n\n-- name: there are orders\nSELECT COUNT(*)\n  FROM shop.orders; -- expect: >= 1000\n\
                    SELECT 1 FROM t WHERE a = '-- expect: 7; no' ; # expect: rows = 0\n\
                    /* expect: 'it''s' */ SELECT s FROM t;\nSELECT 2 -- expect: 2\n; SELECT 3";
        let all = parsed(text).unwrap();
        let short: Vec<(&str, &str)> =
            all.iter().map(|(name, _, expect)| (name.as_str(), expect.as_str())).collect();
        assert_eq!(
            short,
            [
                ("there are orders", ">= 1000"),
                ("query 2", "rows = 0"),
                ("query 3", "= it's"),
                ("query 4", "= 2"),
                ("query 5", "it runs"),
            ]
        );
        assert_eq!(all[0].1, "SELECT COUNT(*)\n  FROM shop.orders");
    }

    #[test]
    fn a_comment_belongs_to_the_query_whose_delimiter_stands_on_its_line() {
        let all = parsed("SELECT 1 FROM a\n\n; -- expect: > 0\nSELECT 2 FROM b;").unwrap();
        assert_eq!((all[0].2.as_str(), all[1].2.as_str()), ("> 0", "it runs"));
        let all = parsed("SELECT 1\n# expect: 1\n;\n-- expect: 2\nSELECT 2").unwrap();
        assert_eq!((all[0].2.as_str(), all[1].2.as_str()), ("= 1", "= 2"));
    }

    #[test]
    fn the_command_line_and_the_configuration_take_the_same_text() {
        assert_eq!(parsed("SELECT 1 -- expect: != NULL").unwrap()[0].2, "!= NULL");
        assert_eq!(parsed("SELECT 1").unwrap()[0].2, "it runs");
        assert_eq!(parsed("SELECT 1 -- expect: ROWS<5").unwrap()[0].2, "rows < 5");
    }

    #[test]
    fn what_would_not_be_checked_is_refused_with_its_line() {
        for (text, line, named) in [
            ("", 1, "no query"),
            ("-- only words\n", 1, "no query"),
            ("SELECT 1;\n\n-- expect: 5\n", 3, "no query follows"),
            ("-- expect: 1\nSELECT 1; -- expect: 2", 2, "two expectations"),
            ("SELECT 1; -- expected: 2", 1, "'expected:'"),
            ("SELECT 1; -- expect:", 1, "expects nothing"),
            ("SELECT 1;\nSELECT 2; -- expect >= 1000", 2, "no colon"),
            ("SELECT 1; /* EXPECT 5 */", 1, "no colon"),
            ("SELECT 1; -- name: there are orders -- expect: >= 1000", 1, "holds an expectation"),
            ("/* name: x\n expect: 5 */ SELECT 1", 1, "holds an expectation"),
            ("SELECT 1; -- expect: rows > many", 1, "'many'"),
            ("SELECT 1; -- expect: > open", 1, "numbers only"),
            ("SELECT 'a", 1, "never closed"),
        ] {
            let error = parsed(text).unwrap_err().message;
            assert!(error.contains(named) && error.contains(&format!("line {line}:")), "{text:?}: {error}");
        }
    }
}
