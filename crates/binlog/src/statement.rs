//! What a statement in a QUERY event is: a small tokenizer and a classifier on top.
//!
//! It does not parse SQL. It tells apart what a backup must treat apart (transaction
//! control, DDL, accounts, data) and names the tables of DDL where the grammar puts them
//! at the front. Text is bytes: every character set that a server takes as
//! `character_set_client` has ASCII in it.

mod parts;
mod safety;

pub use parts::{Needs, database, needs, words};
pub use safety::unsafe_part;

/// Bit of `sql_mode`: `"` quotes identifiers.
pub const MODE_ANSI_QUOTES: u64 = 4;
/// Bit of `sql_mode`: `\` is an ordinary character in strings.
pub const MODE_NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK of the whole transaction.
    Rollback,
    /// ROLLBACK TO a savepoint.
    RollbackTo,
    /// SAVEPOINT.
    Savepoint,
    /// RELEASE SAVEPOINT.
    Release,
    /// XA START, END, PREPARE, COMMIT, ROLLBACK.
    Xa,
    /// Definition of tables and all else that isn't an account.
    Ddl,
    /// Accounts, roles, privileges, passwords.
    Acl,
    /// `CREATE TABLE .. START TRANSACTION`: rows follow in the same transaction (MySQL).
    CtasStart,
    /// Statement-based change of data: INSERT, UPDATE, DELETE, REPLACE, CALL, DO, SELECT.
    Dml,
    /// LOAD DATA, LOAD XML.
    Load,
    /// SET of variables.
    Set,
    /// ANALYZE, OPTIMIZE, REPAIR, FLUSH and the like: no change of contents.
    Maintenance,
    /// Anything else.
    Other,
}

/// What a DDL statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are SQL's")]
pub enum Object {
    Table,
    Index,
    Database,
    View,
    Trigger,
    Routine,
    Event,
    Sequence,
    Account,
    Tablespace,
    Other,
}

/// The first word of a DDL or account statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are SQL's")]
pub enum Action {
    Create,
    Alter,
    Drop,
    Rename,
    Truncate,
    Grant,
    Revoke,
    Other,
}

/// A table named in a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Database; `None`: the default one.
    pub database: Option<Vec<u8>>,
    /// Table.
    pub table: Vec<u8>,
}

/// What was found out about a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it does.
    pub verb: Verb,
    /// Its first word, for DDL and accounts.
    pub action: Action,
    /// What it is about.
    pub object: Object,
    /// CREATE TEMPORARY, DROP TEMPORARY.
    pub temporary: bool,
    /// CREATE OR REPLACE.
    pub or_replace: bool,
    /// IF EXISTS, IF NOT EXISTS.
    pub conditional: bool,
    /// The tables that it changes, where they stand at the front of the grammar. For
    /// RENAME: old and new names in turn.
    pub tables: Vec<TableName>,
    /// The procedure or function that it creates: is it a function, and its name.
    pub routine: Option<(bool, TableName)>,
}

impl Statement {
    fn of(verb: Verb) -> Self {
        Self {
            verb,
            action: Action::Other,
            object: Object::Other,
            temporary: false,
            or_replace: false,
            conditional: false,
            tables: Vec::new(),
            routine: None,
        }
    }

    /// Classifies a statement that ran with `sql_mode`.
    #[must_use]
    pub fn classify(text: &[u8], sql_mode: u64) -> Self {
        let mut tokens = Tokens::new(text, sql_mode);
        let first = loop {
            match tokens.next() {
                // `(SELECT ..` and MySQL's `WITH ..` come with brackets or semicolons in front at most.
                Some(Token::Symbol(b'(' | b';')) => {}
                Some(Token::Word(word)) => break word,
                Some(_) => return Self::of(Verb::Other),
                None => return Self::of(Verb::Other),
            }
        };
        match Keyword::of(first) {
            Keyword::Begin => Self::of(Verb::Begin),
            Keyword::Start => match tokens.word() {
                Some(w) if is(w, "TRANSACTION") => Self::of(Verb::Begin),
                _ => Self::of(Verb::Other),
            },
            Keyword::Commit => Self::of(Verb::Commit),
            Keyword::Rollback => rollback(&mut tokens),
            Keyword::Savepoint => Self::of(Verb::Savepoint),
            Keyword::Release => Self::of(Verb::Release),
            Keyword::Xa => Self::of(Verb::Xa),
            Keyword::Create => create(tokens),
            Keyword::Alter => alter(tokens),
            Keyword::Drop => drop(tokens),
            Keyword::Rename => rename(tokens),
            Keyword::Truncate => truncate(tokens),
            Keyword::Grant => account(Action::Grant),
            Keyword::Revoke => account(Action::Revoke),
            Keyword::Set => set(tokens),
            Keyword::Load => Self::of(Verb::Load),
            Keyword::Dml => Self::of(Verb::Dml),
            Keyword::Ddl => Self { verb: Verb::Ddl, ..Self::of(Verb::Ddl) },
            Keyword::Maintenance => Self::of(Verb::Maintenance),
            Keyword::Unknown => Self::of(Verb::Other),
        }
    }
}

enum Keyword {
    Begin,
    Start,
    Commit,
    Rollback,
    Savepoint,
    Release,
    Xa,
    Create,
    Alter,
    Drop,
    Rename,
    Truncate,
    Grant,
    Revoke,
    Set,
    Load,
    Dml,
    Ddl,
    Maintenance,
    Unknown,
}

impl Keyword {
    fn of(word: &[u8]) -> Self {
        let upper = word.to_ascii_uppercase();
        match upper.as_slice() {
            b"BEGIN" => Self::Begin,
            b"START" => Self::Start,
            b"COMMIT" => Self::Commit,
            b"ROLLBACK" => Self::Rollback,
            b"SAVEPOINT" => Self::Savepoint,
            b"RELEASE" => Self::Release,
            b"XA" => Self::Xa,
            b"CREATE" => Self::Create,
            b"ALTER" => Self::Alter,
            b"DROP" => Self::Drop,
            b"RENAME" => Self::Rename,
            b"TRUNCATE" => Self::Truncate,
            b"GRANT" => Self::Grant,
            b"REVOKE" => Self::Revoke,
            b"SET" => Self::Set,
            b"LOAD" => Self::Load,
            b"INSERT" | b"UPDATE" | b"DELETE" | b"REPLACE" | b"CALL" | b"DO" | b"SELECT" | b"WITH"
            | b"VALUES" | b"TABLE" => Self::Dml,
            b"INSTALL" | b"UNINSTALL" | b"IMPORT" => Self::Ddl,
            b"ANALYZE" | b"OPTIMIZE" | b"REPAIR" | b"FLUSH" | b"CHECK" | b"CHECKSUM" | b"RESET" | b"KILL"
            | b"CACHE" | b"PURGE" => Self::Maintenance,
            _ => Self::Unknown,
        }
    }
}

fn is(word: &[u8], upper: &str) -> bool {
    word.eq_ignore_ascii_case(upper.as_bytes())
}

fn rollback(tokens: &mut Tokens<'_>) -> Statement {
    // ROLLBACK [WORK] TO [SAVEPOINT] name.
    let mut next = tokens.word();
    if next.is_some_and(|w| is(w, "WORK")) {
        next = tokens.word();
    }
    Statement::of(if next.is_some_and(|w| is(w, "TO")) { Verb::RollbackTo } else { Verb::Rollback })
}

fn account(action: Action) -> Statement {
    Statement { action, object: Object::Account, ..Statement::of(Verb::Acl) }
}

fn object(word: &[u8]) -> Option<Object> {
    let upper = word.to_ascii_uppercase();
    Some(match upper.as_slice() {
        b"TABLE" | b"TABLES" => Object::Table,
        b"INDEX" => Object::Index,
        b"DATABASE" | b"SCHEMA" => Object::Database,
        b"VIEW" => Object::View,
        b"TRIGGER" => Object::Trigger,
        b"PROCEDURE" | b"FUNCTION" | b"PACKAGE" | b"LIBRARY" => Object::Routine,
        b"EVENT" => Object::Event,
        b"SEQUENCE" => Object::Sequence,
        b"USER" | b"ROLE" => Object::Account,
        b"TABLESPACE" | b"LOGFILE" => Object::Tablespace,
        b"SERVER" | b"INSTANCE" | b"RESOURCE" | b"SPATIAL_REFERENCE" => Object::Other,
        _ => return None,
    })
}

/// The words between CREATE, ALTER or DROP and the object are many (OR REPLACE, DEFINER = x@y,
/// ALGORITHM = z, UNIQUE, ONLINE ..): the first one that names an object decides. `SPATIAL`
/// is an index or a reference system, told by what follows.
fn head(tokens: &mut Tokens<'_>, action: Action) -> Statement {
    let mut out = Statement { action, ..Statement::of(Verb::Ddl) };
    let mut equals = false;
    for token in tokens.by_ref() {
        let Token::Word(word) = token else {
            equals = matches!(token, Token::Symbol(b'=' | b'@'));
            continue;
        };
        // The value of DEFINER = or ALGORITHM = names no object, whatever it is called.
        if std::mem::take(&mut equals) {
            continue;
        }
        if is(word, "TEMPORARY") {
            out.temporary = true;
        } else if is(word, "REPLACE") {
            out.or_replace = true;
        } else if let Some(found) = object(word) {
            out.object = found;
            if found == Object::Routine && action == Action::Create && !is(word, "PACKAGE") {
                conditional(tokens, &mut out);
                out.routine = name(tokens).map(|name| (is(word, "FUNCTION"), name));
            }
            break;
        }
    }
    if out.object == Object::Account {
        out.verb = Verb::Acl;
    }
    out
}

/// Takes `IF [NOT] EXISTS`, then gives what follows.
fn conditional(tokens: &mut Tokens<'_>, out: &mut Statement) {
    let mark = tokens.clone();
    if tokens.word().is_some_and(|w| is(w, "IF")) {
        out.conditional = true;
        let next = tokens.word();
        if next.is_some_and(|w| is(w, "NOT")) {
            tokens.word();
        }
    } else {
        *tokens = mark;
    }
}

/// A name: `table` or `database.table`.
fn name(tokens: &mut Tokens<'_>) -> Option<TableName> {
    let first = tokens.next()?.identifier()?;
    let mark = tokens.clone();
    if let Some(Token::Symbol(b'.')) = tokens.next()
        && let Some(second) = tokens.next().and_then(Token::identifier)
    {
        return Some(TableName { database: Some(first), table: second });
    }
    *tokens = mark;
    Some(TableName { database: None, table: first })
}

/// Names with commas between them.
fn names(tokens: &mut Tokens<'_>, out: &mut Vec<TableName>) {
    while let Some(found) = name(tokens) {
        out.push(found);
        let mark = tokens.clone();
        if !matches!(tokens.next(), Some(Token::Symbol(b','))) {
            *tokens = mark;
            return;
        }
    }
}

/// The table behind ON, of an index or a trigger.
fn table_behind_on(tokens: &mut Tokens<'_>, out: &mut Statement) {
    while let Some(token) = tokens.next() {
        if matches!(token, Token::Word(w) if is(w, "ON")) {
            out.tables.extend(name(tokens));
            return;
        }
    }
}

fn create(mut tokens: Tokens<'_>) -> Statement {
    let mut out = head(&mut tokens, Action::Create);
    conditional(&mut tokens, &mut out);
    match out.object {
        Object::Table => {
            out.tables.extend(name(&mut tokens));
            let (mut before, mut last) = (false, false);
            for token in tokens {
                let word = match token {
                    Token::Word(word) => word,
                    _ => b"",
                };
                last = before && is(word, "TRANSACTION");
                before = is(word, "START");
            }
            if last {
                out.verb = Verb::CtasStart;
            }
        }
        Object::View | Object::Sequence => out.tables.extend(name(&mut tokens)),
        Object::Index | Object::Trigger => table_behind_on(&mut tokens, &mut out),
        _ => {}
    }
    out
}

fn alter(mut tokens: Tokens<'_>) -> Statement {
    let mut out = head(&mut tokens, Action::Alter);
    conditional(&mut tokens, &mut out);
    if matches!(out.object, Object::Table | Object::View | Object::Sequence) {
        out.tables.extend(name(&mut tokens));
    }
    // ALTER TABLE a RENAME TO b changes both names.
    if out.object == Object::Table {
        while let Some(token) = tokens.next() {
            if !matches!(token, Token::Word(w) if is(w, "RENAME")) {
                continue;
            }
            let mark = tokens.clone();
            match tokens.word() {
                Some(w) if is(w, "TO") || is(w, "AS") => out.tables.extend(name(&mut tokens)),
                Some(w) if is(w, "COLUMN") || is(w, "INDEX") || is(w, "KEY") || is(w, "CONSTRAINT") => {}
                _ => {
                    tokens = mark;
                    out.tables.extend(name(&mut tokens));
                }
            }
        }
    }
    out
}

fn drop(mut tokens: Tokens<'_>) -> Statement {
    let mut out = head(&mut tokens, Action::Drop);
    conditional(&mut tokens, &mut out);
    match out.object {
        Object::Table | Object::View | Object::Sequence => names(&mut tokens, &mut out.tables),
        Object::Index => table_behind_on(&mut tokens, &mut out),
        _ => {}
    }
    out
}

fn rename(mut tokens: Tokens<'_>) -> Statement {
    let mut out = head(&mut tokens, Action::Rename);
    if out.object != Object::Table {
        return out;
    }
    conditional(&mut tokens, &mut out);
    loop {
        let Some(from) = name(&mut tokens) else { return out };
        out.tables.push(from);
        // MariaDB may put WAIT n before TO.
        for token in tokens.by_ref() {
            if matches!(token, Token::Word(w) if is(w, "TO")) {
                break;
            }
        }
        let Some(to) = name(&mut tokens) else { return out };
        out.tables.push(to);
        if !matches!(tokens.next(), Some(Token::Symbol(b','))) {
            return out;
        }
    }
}

fn truncate(mut tokens: Tokens<'_>) -> Statement {
    let mut out = Statement { action: Action::Truncate, object: Object::Table, ..Statement::of(Verb::Ddl) };
    let mark = tokens.clone();
    if !tokens.word().is_some_and(|w| is(w, "TABLE")) {
        tokens = mark;
    }
    out.tables.extend(name(&mut tokens));
    out
}

fn set(mut tokens: Tokens<'_>) -> Statement {
    match tokens.word() {
        Some(w) if is(w, "PASSWORD") || is(w, "ROLE") => account(Action::Other),
        Some(w) if is(w, "DEFAULT") && tokens.word().is_some_and(|w| is(w, "ROLE")) => account(Action::Other),
        _ => Statement::of(Verb::Set),
    }
}

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token<'a> {
    /// Keyword, identifier or number without quotes.
    Word(&'a [u8]),
    /// Identifier in quotes, which are taken off.
    Quoted(Vec<u8>),
    /// String; its contents don't matter here.
    Text,
    /// Any other character.
    Symbol(u8),
}

impl Token<'_> {
    fn identifier(self) -> Option<Vec<u8>> {
        match self {
            Self::Word(word) => Some(word.to_vec()),
            Self::Quoted(name) => Some(name),
            _ => None,
        }
    }
}

/// The tokens of a statement. Comments are left out; the contents of `/*! .. */` and
/// `/*M! .. */` are not.
#[derive(Debug, Clone)]
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    ansi_quotes: bool,
    backslash: bool,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a [u8], sql_mode: u64) -> Self {
        Self {
            text,
            at: 0,
            ansi_quotes: sql_mode & MODE_ANSI_QUOTES != 0,
            backslash: sql_mode & MODE_NO_BACKSLASH_ESCAPES == 0,
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// The next token if it is a word.
    fn word(&mut self) -> Option<&'a [u8]> {
        match self.next() {
            Some(Token::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            match rest {
                [b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c, ..] => self.at += 1,
                [b'#', ..] => self.skip_line(),
                [b'-', b'-', b' ' | b'\t' | b'\r' | b'\n', ..] | [b'-', b'-'] => self.skip_line(),
                [b'/', b'*', b'!', ..] => self.enter_version(3),
                [b'/', b'*', b'M', b'!', ..] => self.enter_version(4),
                [b'/', b'*', ..] => {
                    let body = rest.get(2..).unwrap_or_default();
                    let len = body.windows(2).position(|w| w == b"*/").map_or(rest.len(), |i| i + 4);
                    self.at += len;
                }
                // The end of a /*! comment.
                [b'*', b'/', ..] => self.at += 2,
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |i| i + 1);
    }

    /// Goes behind `/*!` and the version number of five or six digits.
    fn enter_version(&mut self, head: usize) {
        self.at += head;
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    /// Goes behind a quoted piece; gives what was in it, with doubled quotes made single.
    fn quoted(&mut self, quote: u8, backslash: bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.at += 1;
        while let Some(&byte) = self.text.get(self.at) {
            self.at += 1;
            if byte == b'\\' && backslash {
                out.push(self.peek(0));
                self.at += 1;
            } else if byte == quote {
                if self.peek(0) != quote || self.at >= self.text.len() {
                    return out;
                }
                out.push(quote);
                self.at += 1;
            } else {
                out.push(byte);
            }
        }
        out
    }
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let first = *self.text.get(self.at)?;
        match first {
            b'`' => Some(Token::Quoted(self.quoted(b'`', false))),
            b'"' if self.ansi_quotes => Some(Token::Quoted(self.quoted(b'"', false))),
            b'\'' | b'"' => {
                self.quoted(first, self.backslash);
                Some(Token::Text)
            }
            _ if in_word(first) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let len = rest.iter().position(|b| !in_word(*b)).unwrap_or(rest.len());
                self.at += len;
                rest.get(..len).map(Token::Word)
            }
            _ => {
                self.at += 1;
                Some(Token::Symbol(first))
            }
        }
    }
}

#[cfg(test)]
mod tests;
