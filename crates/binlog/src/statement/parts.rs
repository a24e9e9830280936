//! What a definition needs beside the tables that it changes, for whoever restores some tables of many.

use super::{Action, Object, TableName, Token, Tokens, conditional, head, is, name};

/// Other tables that a definition names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Tables whose definition or rows it takes: `LIKE t`, `EXCHANGE PARTITION .. WITH TABLE t`, `CONVERT .. TABLE t`.
    pub takes: Vec<TableName>,
    /// Tables that its foreign keys refer to.
    pub references: Vec<TableName>,
    /// It takes rows from a query.
    pub selects: bool,
}

/// What else a definition of a table names. Reads words, not grammar: a table may be named that is none.
#[must_use]
pub fn needs(text: &[u8], sql_mode: u64) -> Needs {
    let mut out = Needs::default();
    let mut tokens = Tokens::new(text, sql_mode);
    let (mut first, mut table_seen, mut exchange, mut convert) = (true, false, false, false);
    let mut create = false;
    while let Some(token) = tokens.next() {
        let Token::Word(word) = token else { continue };
        if std::mem::take(&mut first) {
            create = is(word, "CREATE");
        }
        if is(word, "TABLE") && !table_seen {
            table_seen = true;
            if create {
                conditional(&mut tokens, &mut super::Statement::of(super::Verb::Ddl));
                let _ = name(&mut tokens);
                like(&mut tokens, &mut out);
            }
        } else if is(word, "REFERENCES") {
            out.references.extend(name(&mut tokens));
        } else if is(word, "SELECT") {
            out.selects = true;
        } else if is(word, "EXCHANGE") {
            exchange = true;
        } else if is(word, "CONVERT") {
            convert = true;
        } else if is(word, "TABLE") && (exchange || convert) {
            out.takes.extend(name(&mut tokens));
        }
    }
    out
}

/// `LIKE t` or `(LIKE t)` right behind the name of a new table.
fn like(tokens: &mut Tokens<'_>, out: &mut Needs) {
    let mark = tokens.clone();
    let next = match tokens.next() {
        Some(Token::Symbol(b'(')) => tokens.next(),
        other => other,
    };
    if matches!(next, Some(Token::Word(word)) if is(word, "LIKE")) {
        out.takes.extend(name(tokens));
    } else {
        *tokens = mark;
    }
}

/// The database that CREATE, ALTER or DROP DATABASE names; none: the default one.
#[must_use]
pub fn database(text: &[u8], sql_mode: u64) -> Option<Vec<u8>> {
    let mut tokens = Tokens::new(text, sql_mode);
    tokens.next();
    let mut out = head(&mut tokens, Action::Other);
    if out.object != Object::Database {
        return None;
    }
    conditional(&mut tokens, &mut out);
    const OPTIONS: [&str; 7] =
        ["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "ENCRYPTION", "READ", "COMMENT"];
    match tokens.next()? {
        Token::Word(word) if OPTIONS.iter().any(|option| is(word, option)) => None,
        token => token.identifier(),
    }
}

/// Every name or word of a statement, quotes taken off.
#[must_use]
pub fn words(text: &[u8], sql_mode: u64) -> Vec<Vec<u8>> {
    Tokens::new(text, sql_mode).filter_map(Token::identifier).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(tables: &[TableName]) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |t: &TableName| match &t.database {
            Some(database) => format!("{}.{}", text(database), text(&t.table)),
            None => text(&t.table),
        };
        tables.iter().map(one).collect()
    }

    #[test]
    fn what_a_definition_takes_from_other_tables_is_told() {
        let of = |text: &str| needs(text.as_bytes(), 0);
        for text in ["CREATE TABLE a LIKE s.b", "CREATE TABLE IF NOT EXISTS `x`.a (LIKE `s`.`b`)"] {
            assert_eq!(named(&of(text).takes), ["s.b"], "{text}");
        }
        let checked = of("CREATE TABLE a (b INT, c TEXT CHECK (c LIKE 'x%'), KEY (b))");
        assert_eq!(checked, Needs::default());
        assert_eq!(
            named(&of("ALTER TABLE a EXCHANGE PARTITION p WITH TABLE b WITHOUT VALIDATION").takes),
            ["b"]
        );
        assert_eq!(named(&of("ALTER TABLE a CONVERT PARTITION p TO TABLE b").takes), ["b"]);
        assert_eq!(
            named(&of("ALTER TABLE a CONVERT TABLE b TO PARTITION p VALUES LESS THAN (9)").takes),
            ["b"]
        );
        assert!(of("ALTER TABLE a CONVERT TO CHARACTER SET utf8mb4").takes.is_empty());
        let keyed = of("CREATE TABLE a (b INT REFERENCES p (x), FOREIGN KEY (b) REFERENCES `s`.`q` (y))");
        assert_eq!(named(&keyed.references), ["p", "s.q"]);
        assert!(of("CREATE TABLE a AS SELECT * FROM b").selects);
        assert!(!of("CREATE TABLE a (`select` INT)").selects);
    }

    #[test]
    fn the_database_of_a_statement_is_found_where_it_names_one() {
        let of = |text: &str| database(text.as_bytes(), 0).map(|name| String::from_utf8(name).unwrap());
        assert_eq!(of("CREATE DATABASE IF NOT EXISTS `a b` CHARACTER SET utf8mb4").as_deref(), Some("a b"));
        assert_eq!(of("DROP SCHEMA shop").as_deref(), Some("shop"));
        assert_eq!(of("ALTER DATABASE DEFAULT CHARACTER SET latin1"), None);
        assert_eq!(of("DROP TABLE t"), None);
    }
}
