//! Statements that may do something else when they run again.

use super::{Token, Tokens, is};

/// What makes a statement give another result when it runs again on the same data, as far as
/// its text tells: functions of the moment or the session, and picks of rows whose order the
/// statement leaves open. The servers call such statements unsafe for the statement format.
#[must_use]
pub fn unsafe_part(text: &[u8], sql_mode: u64) -> Option<&'static str> {
    const FUNCTIONS: [&str; 23] = [
        "UUID",
        "UUID_SHORT",
        "SYS_GUID",
        "SYSDATE",
        "LOAD_FILE",
        "FOUND_ROWS",
        "ROW_COUNT",
        "GET_LOCK",
        "IS_FREE_LOCK",
        "IS_USED_LOCK",
        "RELEASE_LOCK",
        "RELEASE_ALL_LOCKS",
        "MASTER_POS_WAIT",
        "SOURCE_POS_WAIT",
        "SLEEP",
        "USER",
        "SESSION_USER",
        "SYSTEM_USER",
        "CURRENT_USER",
        "CURRENT_ROLE",
        "VERSION",
        "RANDOM_BYTES",
        "ENCRYPT",
    ];
    let mut tokens = Tokens::new(text, sql_mode).peekable();
    let mut words = Vec::new();
    while let Some(token) = tokens.next() {
        match token {
            Token::Symbol(b'@') if tokens.peek() == Some(&Token::Symbol(b'@')) => {
                return Some("a system variable");
            }
            Token::Word(word) => {
                let bare = is(word, "CURRENT_USER") || is(word, "CURRENT_ROLE");
                if bare || tokens.peek() == Some(&Token::Symbol(b'(')) {
                    let found = FUNCTIONS.iter().find(|function| is(word, function));
                    if let Some(found) = found {
                        return Some(found);
                    }
                }
                words.push(word);
            }
            _ => {}
        }
    }
    let has = |wanted: &str| words.iter().any(|word| is(word, wanted));
    let first = |wanted: &str| words.first().is_some_and(|word| is(word, wanted));
    if has("LIMIT") {
        return Some("LIMIT");
    }
    if has("IGNORE") && (has("SELECT") || first("UPDATE")) {
        return Some("IGNORE");
    }
    if first("REPLACE") && has("SELECT") {
        return Some("REPLACE .. SELECT");
    }
    (has("DUPLICATE") && has("SELECT")).then_some("ON DUPLICATE KEY UPDATE of a SELECT")
}
