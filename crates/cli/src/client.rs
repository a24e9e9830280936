//! Talks to `holdfastd` over its Unix socket: one HTTP/1.1 request a connection.

use holdfast_appliance::error::{Code, Error, Result};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long one answer may take: doctor and plans ask the server itself.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Longest answer.
const ANSWER_MAX: u64 = 64 << 20;

/// A daemon.
pub struct Client {
    socket: PathBuf,
    token: Option<zeroize::Zeroizing<String>>,
}

impl Client {
    /// The daemon behind this socket; with a token, whoever that names asks.
    ///
    /// # Errors
    /// `Usage` when the token's file can't be read or holds none.
    pub fn new(socket: &Path, token_file: Option<&Path>) -> Result<Self> {
        let token = token_file.map(read_token).transpose()?;
        Ok(Self { socket: socket.to_path_buf(), token })
    }

    /// Asks for `path`, below `/api/v1`.
    ///
    /// # Errors
    /// The daemon's own, with its code; `Failed` when nobody answers.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.ask("GET", path, None)
    }

    /// Asks with a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let broken = |error: &dyn std::fmt::Display| {
            Error::failed(format!("The daemon at {} does not answer: {error}.", self.socket.display()))
                .with_next("check that holdfastd runs, and that you may use its socket; without --daemon the command works on the repository itself")
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(|e| broken(&e))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let token = self.token.as_deref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = zeroize::Zeroizing::new(format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: holdfast\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {}Content-Length: {}\r\n\r\n{body}",
            token.unwrap_or_default(),
            body.len()
        ));
        let mut bytes = Vec::new();
        stream
            .set_read_timeout(Some(ANSWER_WAIT))
            .and_then(|()| stream.write_all(request.as_bytes()))
            .and_then(|()| stream.take(ANSWER_MAX).read_to_end(&mut bytes))
            .map_err(|e| broken(&e))?;
        let (status, body) = parse(&bytes).ok_or_else(|| broken(&"its answer is not HTTP"))?;
        let value: Value =
            serde_json::from_slice(body).map_err(|_| broken(&format!("its answer {status} is not JSON")))?;
        if (200..300).contains(&status) { Ok(value) } else { Err(problem(status, &value)) }
    }
}

/// The first line of the file: what a header can carry, and nothing that would begin another one.
fn read_token(file: &Path) -> Result<zeroize::Zeroizing<String>> {
    let text = std::fs::read_to_string(file).map(zeroize::Zeroizing::new).map_err(|error| {
        Error::usage(format!("The token file {} can't be read: {error}.", file.display()))
    })?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || !line.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Error::usage(format!("The first line of {} is no token.", file.display()))
            .with_next("make one: holdfastd token NAME --role admin"));
    }
    Ok(zeroize::Zeroizing::new(line.to_owned()))
}

/// Status and body of an answer that is there whole.
fn parse(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = bytes.get(end + 4..)?;
    (body.len() == length).then_some((status, body))
}

/// A problem document as the error that it was there.
fn problem(status: u16, value: &Value) -> Error {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let code = code(text("code").unwrap_or("failed"));
    let message = text("detail").map_or_else(|| format!("The daemon answered {status}."), str::to_owned);
    let error = Error::new(code, message);
    match text("next") {
        Some(next) => error.with_next(next),
        None => error,
    }
}

/// A code by its name.
pub fn code(word: &str) -> Code {
    match word {
        "usage" | "not_found" => Code::Usage,
        "no_repository" => Code::NoRepository,
        "locked" => Code::Locked,
        "wrong_key" => Code::WrongKey,
        "target_unreachable" => Code::TargetUnreachable,
        "corruption" => Code::Corruption,
        "proof_failed" => Code::ProofFailed,
        "policy_forbids" => Code::PolicyForbids,
        "interrupted" => Code::Interrupted,
        _ => Code::Failed,
    }
}

/// A name as a part of a path.
pub fn encoded(name: &str) -> String {
    name.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(whole), Some((200, b"{}".as_slice())));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n{}"), None, "no length");
        assert_eq!(encoded("a/b ü"), "a%2Fb%20%C3%BC");
    }

    #[test]
    fn a_problem_keeps_its_code_and_next_step() {
        let value = serde_json::json!({ "code": "locked", "detail": "Busy.", "next": "wait" });
        let error = problem(409, &value);
        assert_eq!((error.code, error.message.as_str()), (Code::Locked, "Busy."));
        assert_eq!(error.next.as_deref(), Some("wait"));
    }
}
