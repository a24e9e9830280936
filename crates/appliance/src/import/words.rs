//! The words of a statement, as far as it takes to know what it does: strings are opaque, comments are gone, and code in
//! comments (`/*!`, `/*M!`) is code, whatever version it is for.

/// A part of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A word or a number, in capitals.
    Word(String),
    /// A name between backticks, in capitals.
    Name(String),
    /// What stands between other quotes, its escapes undone.
    Text(String),
    /// Any other byte.
    Sign(u8),
}

impl Token {
    /// Is it this word, not quoted?
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }

    /// A word or a name between backticks.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// Gives the parts one after the other, so that of an INSERT of a gigabyte the first one costs nothing.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'t> {
    rest: &'t [u8],
    /// Does a backslash escape in strings?
    escapes: bool,
}

impl<'t> Tokens<'t> {
    pub(super) fn of(text: &'t [u8], escapes: bool) -> Self {
        Self { rest: text, escapes }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    fn skip_past(&mut self, end: &[u8]) {
        let at = self.rest.windows(end.len()).position(|found| found == end);
        self.skip(at.map_or(self.rest.len(), |at| at + end.len()));
    }

    /// What lies up to the closing quote.
    fn quoted(&mut self, quote: u8) -> String {
        let mut bytes = Vec::new();
        while let Some(&byte) = self.rest.first() {
            self.skip(1);
            if byte == quote {
                if self.rest.first() != Some(&quote) {
                    break;
                }
                self.skip(1);
            } else if byte == b'\\' && self.escapes && quote != b'`' {
                bytes.extend(self.rest.first());
                self.skip(1);
                continue;
            }
            bytes.push(byte);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            let rest = self.rest;
            let first = *rest.first()?;
            if first.is_ascii_whitespace() {
                self.skip(1);
            } else if rest.starts_with(b"/*!") || rest.starts_with(b"/*M!") {
                self.skip(if rest.starts_with(b"/*!") { 3 } else { 4 });
                let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                self.skip(digits);
            } else if rest.starts_with(b"*/") {
                self.skip(2);
            } else if rest.starts_with(b"/*") {
                self.skip(2);
                self.skip_past(b"*/");
            } else if first == b'#'
                || rest.starts_with(b"--")
                    && rest.get(2).is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
            {
                self.skip_past(b"\n");
            } else if matches!(first, b'\'' | b'"' | b'`') {
                self.skip(1);
                let text = self.quoted(first);
                return Some(match first {
                    b'`' => Token::Name(text.to_ascii_uppercase()),
                    _ => Token::Text(text),
                });
            } else {
                let of_word =
                    |byte: &u8| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b"_$".contains(byte);
                let len = rest.iter().take_while(|byte| of_word(byte)).count();
                if len == 0 {
                    self.skip(1);
                    return Some(Token::Sign(first));
                }
                let word = String::from_utf8_lossy(rest.get(..len).unwrap_or_default()).to_ascii_uppercase();
                self.skip(len);
                return Some(Token::Word(word));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_opaque_and_code_in_comments_is_code() {
        let tokens = |text: &str| Tokens::of(text.as_bytes(), true).collect::<Vec<_>>();
        let (word, text) = (|w: &str| Token::Word(w.to_owned()), |t: &str| Token::Text(t.to_owned()));
        assert_eq!(
            tokens(" -- x\n# y\n/* z */ /*!50003 Set*/ `a``b`='it''s \\'SET' \"q\" /*M!100203 1 */-- end"),
            [
                word("SET"),
                Token::Name("A`B".to_owned()),
                Token::Sign(b'='),
                text("it's 'SET"),
                text("q"),
                word("1")
            ]
        );
        assert_eq!(Tokens::of(b"'\\' x", false).collect::<Vec<_>>(), [text("\\"), word("X")]);
        for open in ["'", "/*", "`a", "'\\", "/*!", "--", "\""] {
            assert!(tokens(open).len() < 3, "{open}");
        }
    }
}
