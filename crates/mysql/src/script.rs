//! Splits a script of SQL into its statements, as the servers' command-line clients do.
//!
//! Knows what the clients know: quotes and their escapes, comments, code in comments (`/*!`, `/*M!`), and DELIMITER.
//! Bytes come in pieces of any size; what is held is one statement. Rules of the clients that no dump uses (`\g`, `source`,
//! `system`) are left to the server, which refuses them as SQL.

use std::fmt;

/// Bytes of a comment that are kept.
const COMMENT_BYTES_MAX: usize = 16 << 20;

/// How code in a comment begins that no server is new enough for: MariaDB's dumps begin with it, for their client.
const SANDBOX: &[u8] = b"/*M!999999";

/// A part of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A statement without its delimiter.
    Statement {
        /// Its bytes.
        text: Vec<u8>,
        /// The line on which it begins, from 1.
        line: u64,
        /// The line on which its delimiter ends, or the script where none follows.
        end: u64,
    },
    /// A comment between statements, with what opens and closes it; a long one is cut.
    Comment {
        /// Its bytes.
        text: Vec<u8>,
        /// The line on which it begins.
        line: u64,
    },
}

/// What is wrong with a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A statement is longer than allowed.
    TooLong {
        /// Where it begins.
        line: u64,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// The script ends inside of a quote or a comment.
    Open {
        /// Where the statement or the comment begins.
        line: u64,
    },
    /// A DELIMITER command that names none.
    NoDelimiter {
        /// Where it stands.
        line: u64,
    },
}

impl Flaw {
    /// The line where it begins, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        match self {
            Self::TooLong { line, .. } | Self::Open { line } | Self::NoDelimiter { line } => *line,
        }
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit, .. } => write!(f, "a statement has more than {limit} bytes"),
            Self::Open { .. } => f.write_str("a quote or a comment is never closed"),
            Self::NoDelimiter { .. } => f.write_str("DELIMITER names no delimiter"),
        }
    }
}

impl std::error::Error for Flaw {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of a statement yet.
    Between,
    /// In a statement.
    Code,
    /// Behind an opening quote.
    Quote(u8),
    /// In a comment that ends with its line.
    LineComment,
    /// In a comment that ends with `*/`.
    BlockComment,
}

/// A script that is being split.
#[derive(Debug)]
pub struct Splitter {
    /// What is here and not given out, behind `start`.
    buffer: Vec<u8>,
    /// The first byte of the statement or comment.
    start: usize,
    /// Everything before it is looked at.
    at: usize,
    state: State,
    /// Whether the comment stands inside of a statement.
    inside: bool,
    /// The line of `at`, and of `start`.
    line: u64,
    begun: u64,
    delimiter: Vec<u8>,
    escapes: bool,
    ended: bool,
    limit: usize,
}

impl Splitter {
    /// At the start of a script whose statements have at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            at: 0,
            state: State::Between,
            inside: false,
            line: 1,
            begun: 1,
            delimiter: b";".to_vec(),
            escapes: true,
            ended: false,
            limit,
        }
    }

    /// Says whether a backslash escapes what follows it in a quote, from here on: not in a session whose `sql_mode` holds
    /// NO_BACKSLASH_ESCAPES.
    pub fn backslash_escapes(&mut self, escapes: bool) {
        self.escapes = escapes;
    }

    /// Adds bytes behind those that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.at -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that nothing more comes.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Was it said that nothing more comes?
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The next part; `None` if it is not here whole, and after the end if there is none.
    ///
    /// # Errors
    /// See [`Flaw`]; nothing can be read behind one.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, Flaw> {
        loop {
            if self.state != State::Between && self.at - self.start > self.limit {
                if self.comment_between() {
                    // What is too much of it goes; what is kept is its beginning.
                    let cut = self.start + COMMENT_BYTES_MAX.min(self.limit);
                    if cut + 1 < self.at {
                        self.buffer.drain(cut..self.at - 1);
                        self.at = cut + 1;
                    }
                } else {
                    return Err(Flaw::TooLong { line: self.begun, limit: self.limit });
                }
            }
            let step = match self.state {
                State::Between | State::Code => self.code()?,
                State::Quote(quote) => self.quote(quote),
                State::LineComment => self.line_comment(),
                State::BlockComment => self.block_comment(),
            };
            match step {
                Step::On => {}
                Step::Piece(piece) => return Ok(Some(piece)),
                Step::More if !self.ended => return Ok(None),
                Step::More => return self.at_the_end(),
            }
        }
    }

    fn comment_between(&self) -> bool {
        !self.inside && matches!(self.state, State::LineComment | State::BlockComment)
    }

    /// Nothing more comes, and no part is whole.
    fn at_the_end(&mut self) -> Result<Option<Piece>, Flaw> {
        match self.state {
            State::Between => Ok(None),
            State::Quote(_) | State::BlockComment => Err(Flaw::Open { line: self.begun }),
            State::Code | State::LineComment => {
                let comment = self.comment_between();
                self.at = self.buffer.len();
                Ok(self.give(0, comment))
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        let to = (self.at + bytes).min(self.buffer.len());
        let lines =
            self.buffer.get(self.at..to).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
        self.line += lines as u64;
        self.at = to;
    }

    /// A statement or a comment begins here, if none has.
    fn begin(&mut self) {
        if self.state == State::Between {
            self.start = self.at;
            self.begun = self.line;
        }
    }

    /// Gives out what lies between `start` and `at`, less `behind` bytes at its end; nothing if it is empty.
    fn give(&mut self, behind: usize, comment: bool) -> Option<Piece> {
        let to = self.at.saturating_sub(behind);
        let text = self.buffer.get(self.start..to).unwrap_or_default().trim_ascii_end().to_vec();
        let (line, end) = (self.begun, self.line);
        self.start = self.at;
        (self.state, self.inside) = (State::Between, false);
        if text.is_empty() {
            return None;
        }
        Some(if comment { Piece::Comment { text, line } } else { Piece::Statement { text, line, end } })
    }

    fn code(&mut self) -> Result<Step, Flaw> {
        let between = self.state == State::Between;
        let rest = self.rest();
        let Some(&first) = rest.first() else { return Ok(Step::More) };
        if rest.starts_with(&self.delimiter) {
            let len = self.delimiter.len();
            self.begin();
            self.advance(len);
            return Ok(self.give(len, false).map_or(Step::On, Step::Piece));
        }
        // Could it be one of these, if more were here?
        let cut = |word: &[u8]| {
            !self.ended
                && rest.len() < word.len()
                && word.get(..rest.len()).is_some_and(|w| w.eq_ignore_ascii_case(rest))
        };
        if cut(&self.delimiter) || (first == b'-' && cut(b"-- ")) || cut(b"/*M!") || cut(b"/*!") {
            return Ok(Step::More);
        }
        if between && cut(SANDBOX) {
            return Ok(Step::More);
        }
        if between && first.is_ascii_whitespace() {
            self.advance(1);
            self.start = self.at;
            return Ok(Step::On);
        }
        if between {
            const COMMAND: &[u8] = b"delimiter";
            let named = rest.get(..COMMAND.len()).is_some_and(|word| word.eq_ignore_ascii_case(COMMAND));
            if cut(b"delimiter ") {
                return Ok(Step::More);
            }
            if named && rest.get(COMMAND.len()).is_none_or(|byte| byte.is_ascii_whitespace()) {
                return self.delimiter_command(COMMAND.len());
            }
        }
        let (next, len) = match first {
            b'\'' | b'"' | b'`' => (State::Quote(first), 1),
            b'#' => (State::LineComment, 1),
            b'-' if rest.get(1) == Some(&b'-')
                && rest.get(2).is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) =>
            {
                (State::LineComment, 2)
            }
            b'/' if between && rest.starts_with(SANDBOX) => (State::BlockComment, 2),
            b'/' if rest.starts_with(b"/*!") => (State::Code, 3),
            b'/' if rest.starts_with(b"/*M!") => (State::Code, 4),
            b'/' if rest.starts_with(b"/*") => (State::BlockComment, 2),
            _ => (State::Code, self.plain_run(rest)),
        };
        self.begin();
        self.inside = !between;
        self.state = next;
        self.advance(len);
        Ok(Step::On)
    }

    /// Bytes from here on that mean nothing to us: at least one.
    fn plain_run(&self, rest: &[u8]) -> usize {
        let special = |byte: &u8| {
            matches!(byte, b'\'' | b'"' | b'`' | b'#' | b'-' | b'/') || self.delimiter.first() == Some(byte)
        };
        1 + rest.get(1..).unwrap_or_default().iter().take_while(|byte| !special(byte)).count()
    }

    fn delimiter_command(&mut self, word: usize) -> Result<Step, Flaw> {
        let rest = self.rest();
        let end = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => end,
            None if self.ended => rest.len(),
            None if rest.len() > self.limit => {
                return Err(Flaw::TooLong { line: self.line, limit: self.limit });
            }
            None => return Ok(Step::More),
        };
        let named = rest.get(word..end).unwrap_or_default().trim_ascii();
        // The clients take the first word, and backslashes for escapes of their own.
        let named = named.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if named.is_empty() || named.contains(&b'\\') {
            return Err(Flaw::NoDelimiter { line: self.line });
        }
        self.delimiter = named.to_vec();
        self.advance(end);
        self.start = self.at;
        Ok(Step::On)
    }

    fn quote(&mut self, quote: u8) -> Step {
        let escapes = self.escapes && quote != b'`';
        let rest = self.rest();
        let special = |byte: &u8| *byte == quote || (escapes && *byte == b'\\');
        let Some(found) = rest.iter().position(special) else {
            let all = rest.len();
            self.advance(all);
            return Step::More;
        };
        let escaped = rest.get(found) == Some(&b'\\') && escapes;
        if escaped && found + 1 >= rest.len() {
            self.advance(found);
            return Step::More;
        }
        if escaped {
            self.advance(found + 2);
        } else {
            // A doubled quote closes and opens again, which comes to the same.
            self.advance(found + 1);
            self.state = State::Code;
        }
        Step::On
    }

    fn line_comment(&mut self) -> Step {
        let rest = self.rest();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            let all = rest.len();
            self.advance(all);
            return Step::More;
        };
        self.advance(end);
        self.comment_ended()
    }

    fn block_comment(&mut self) -> Step {
        let rest = self.rest();
        let Some(end) = rest.windows(2).position(|pair| pair == b"*/") else {
            // The last byte may be the first half of the end.
            let all = rest.len().saturating_sub(1);
            self.advance(all);
            return Step::More;
        };
        self.advance(end + 2);
        self.comment_ended()
    }

    fn comment_ended(&mut self) -> Step {
        if self.inside {
            self.state = State::Code;
            return Step::On;
        }
        self.give(0, true).map_or(Step::On, Step::Piece)
    }
}

enum Step {
    /// Look again.
    On,
    /// More bytes are needed.
    More,
    /// A part is whole.
    Piece(Piece),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    /// All parts of a script that comes in pieces of `step` bytes.
    fn pieces(script: &[u8], step: usize, escapes: bool, limit: usize) -> Result<Vec<Piece>, Flaw> {
        let mut splitter = Splitter::new(limit);
        splitter.backslash_escapes(escapes);
        let mut all = Vec::new();
        for chunk in script.chunks(step) {
            splitter.feed(chunk);
            while let Some(piece) = splitter.next_piece()? {
                all.push(piece);
            }
        }
        splitter.end();
        while let Some(piece) = splitter.next_piece()? {
            all.push(piece);
        }
        Ok(all)
    }

    /// The statements with their lines; comments are left out.
    #[track_caller]
    fn statements(script: &str) -> Vec<(u64, String)> {
        let whole = pieces(script.as_bytes(), script.len().max(1), true, LIMIT).unwrap();
        for step in 1..6 {
            assert_eq!(pieces(script.as_bytes(), step, true, LIMIT).unwrap(), whole, "in steps of {step}");
        }
        let statement = |piece| match piece {
            Piece::Statement { text, line, .. } => Some((line, String::from_utf8(text).unwrap())),
            Piece::Comment { .. } => None,
        };
        whole.into_iter().filter_map(statement).collect()
    }

    fn texts(script: &str) -> Vec<String> {
        statements(script).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn delimiters_in_quotes_and_comments_end_nothing() {
        assert_eq!(
            texts("a ';' \";\" `;` 'it''s;' 'x\\';' -- ;'\n# ;\"\n/* ; ' */ b; c"),
            ["a ';' \";\" `;` 'it''s;' 'x\\';' -- ;'\n# ;\"\n/* ; ' */ b", "c"]
        );
        assert_eq!(texts("`a\\`; b;;; ;c"), ["`a\\`", "b", "c"]);
        // Two dashes without a blank are arithmetic.
        assert_eq!(texts("SELECT 1--1; SELECT 2 --\n;x"), ["SELECT 1--1", "SELECT 2 --", "x"]);
    }

    #[test]
    fn code_in_comments_is_code() {
        assert_eq!(
            texts("/*!40101 SET a=';' */; /*M!100 b */;c"),
            ["/*!40101 SET a=';' */", "/*M!100 b */", "c"]
        );
        // For MariaDB's client, and a comment to every server.
        assert_eq!(texts("/*M!999999\\- enable the sandbox mode */ \n-- x\nd;"), ["d"]);
    }

    #[test]
    fn delimiter_changes_what_ends_a_statement() {
        assert_eq!(
            texts(
                "DELIMITER ;;\nBEGIN a; b; END ;;\ndelimiter ;\nc;\nDELIMITER $$  \r\nd; $$ DELIMITER ;\ne;delimiters;"
            ),
            ["BEGIN a; b; END", "c", "d;", "e", "delimiters"]
        );
        assert_eq!(pieces(b"a;\nDELIMITER \nb", 3, true, LIMIT), Err(Flaw::NoDelimiter { line: 2 }));
        // In a statement it is a word.
        assert_eq!(texts("a\nDELIMITER x\n;b"), ["a\nDELIMITER x", "b"]);
    }

    #[test]
    fn lines_are_those_where_statements_begin() {
        assert_eq!(
            statements("\n-- c\na\n'\n';\r\n\n  b;/*\n*/c;"),
            [(3, "a\n'\n'".to_owned()), (7, "b".to_owned()), (8, "c".to_owned())]
        );
    }

    #[test]
    fn comments_between_statements_are_told() {
        let all = pieces(b"-- one\n/* two;\n */ a; # three", 4, true, LIMIT).unwrap();
        let comment = |text: &str, line| Piece::Comment { text: text.as_bytes().to_vec(), line };
        let a = Piece::Statement { text: b"a".to_vec(), line: 3, end: 3 };
        assert_eq!(all, [comment("-- one", 1), comment("/* two;\n */", 2), a, comment("# three", 3)]);
    }

    #[test]
    fn without_escapes_a_backslash_is_a_letter() {
        let script = b"a '\\'; b";
        assert_eq!(pieces(script, 2, false, LIMIT).unwrap().len(), 2);
        assert_eq!(pieces(script, 2, true, LIMIT), Err(Flaw::Open { line: 1 }));
    }

    #[test]
    fn a_statement_is_bounded_and_a_comment_is_cut() {
        let long = format!("x;\nINSERT '{}';", "y".repeat(500));
        assert_eq!(pieces(long.as_bytes(), 50, true, 100), Err(Flaw::TooLong { line: 2, limit: 100 }));
        let comment = format!("/* {} */ a; -- {}\nb", "y".repeat(5000), "z".repeat(5000));
        let all = pieces(comment.as_bytes(), 50, true, 100).unwrap();
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(
            matches!(&all[0], Piece::Comment { text, .. } if text.len() < 300 && text.starts_with(b"/* yy"))
        );
        assert!(matches!(&all[3], Piece::Statement { text, line: 2, .. } if text == b"b"));
        for open in ["a 'b", "/* a", "a /* b", "`"] {
            assert_eq!(pieces(open.as_bytes(), 1, true, LIMIT), Err(Flaw::Open { line: 1 }), "{open}");
        }
    }

    proptest! {
        /// However the bytes come, the parts are the same.
        #[test]
        fn the_size_of_the_pieces_changes_nothing(
            script in "[a'\"`;\\\\\\-/*! \n#$D]{0,60}|(DELIMITER [$;]{1,2}\n|a;|'x;'|;;|\\$|/\\*!|\\*/|-- y\n){0,12}",
            step in 1_usize..20,
            escapes: bool,
        ) {
            let whole = pieces(script.as_bytes(), script.len().max(1), escapes, LIMIT);
            prop_assert_eq!(pieces(script.as_bytes(), step, escapes, LIMIT), whole);
        }
    }
}
