//! What an import reads out of the statements of a dump.

// The file alone: the crate that it belongs to runs servers.
#[path = "../../crates/appliance/src/import/words.rs"]
mod words;

use words::{Token, Tokens};

/// The words of a statement: the first byte says whether backslashes escape. They are no more than there are bytes, and
/// the same when they are written as a statement again.
pub fn sql_words(data: &[u8]) {
    let Some((choice, statement)) = data.split_first() else { return };
    let escapes = choice & 1 == 0;
    let tokens: Vec<Token> = Tokens::of(statement, escapes).collect();
    assert!(tokens.len() <= statement.len());
    let mut again = Vec::new();
    for token in &tokens {
        match token {
            Token::Word(word) => {
                assert!(token.is(word) && token.name() == Some(word));
                again.extend(word.bytes());
            }
            Token::Name(name) => {
                assert!(!token.is(name) && token.name() == Some(name));
                again.extend(quoted(name, b'`', false));
            }
            Token::Text(text) => {
                assert!(!token.is(text) && token.name().is_none());
                again.extend(quoted(text, b'\'', escapes));
            }
            Token::Sign(sign) => again.push(*sign),
        }
        again.push(b' ');
    }
    assert_eq!(Tokens::of(&again, escapes).collect::<Vec<_>>(), tokens);
}

fn quoted(text: &str, quote: u8, escapes: bool) -> Vec<u8> {
    let mut out = vec![quote];
    for byte in text.bytes() {
        if byte == quote || byte == b'\\' && escapes {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(quote);
    out
}
