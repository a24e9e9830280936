//! Credentials as users keep them: option files in the servers' own format, password files.
//!
//! Source: MySQL's manual, "Using Option Files". The caller names the files; nothing here looks at the environment.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::options::{ConnectOptions, Endpoint, PublicKey, Secret, TlsMode};

/// Groups read when the caller has no other wish; later groups of a file do not beat earlier ones, later lines do.
pub const GROUPS: [&str; 4] = ["client", "client-mariadb", "client-server", "holdfast"];

/// Longest option file. Real ones have a few KiB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Deepest nesting of `!include`; MySQL's own limit.
const INCLUDE_DEPTH_MAX: u32 = 10;

/// Most files read through `!includedir`.
const FILES_MAX: usize = 1000;

/// Longest password that a file may hold.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

/// What option files say about a client. Nothing is set that no file sets.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// `host`.
    pub host: Option<String>,
    /// `port`.
    pub port: Option<u16>,
    /// `socket`.
    pub socket: Option<PathBuf>,
    /// `user`.
    pub user: Option<String>,
    /// `password`.
    pub password: Option<Secret>,
    /// `ssl-mode`, or MariaDB's `ssl`, `skip-ssl` and `ssl-verify-server-cert`.
    pub tls_mode: Option<TlsMode>,
    /// `ssl-ca`.
    pub ca: Option<PathBuf>,
    /// `ssl-cert`.
    pub cert: Option<PathBuf>,
    /// `ssl-key`.
    pub key: Option<PathBuf>,
    /// `get-server-public-key`, `server-public-key-path`.
    pub public_key: Option<PublicKey>,
    /// `protocol` was `tcp`.
    pub force_tcp: bool,
    /// What a user should know, such as a file that was left out because anybody may write to it.
    pub warnings: Vec<String>,
}

impl ClientOptions {
    /// Puts what is set into `options`, over what stands there.
    pub fn apply(&self, options: &mut ConnectOptions) {
        if let Some(endpoint) = self.endpoint() {
            options.endpoint = endpoint;
        }
        if let Some(user) = &self.user {
            options.user.clone_from(user);
        }
        if self.password.is_some() {
            options.password.clone_from(&self.password);
        }
        if let Some(mode) = self.tls_mode {
            options.tls.mode = mode;
        }
        if let Some(key) = &self.public_key {
            options.public_key.clone_from(key);
        }
        for (from, to) in [
            (&self.ca, &mut options.tls.ca),
            (&self.cert, &mut options.tls.cert),
            (&self.key, &mut options.tls.key),
        ] {
            if from.is_some() {
                to.clone_from(from);
            }
        }
    }

    /// Where the files point, if anywhere: as the servers' clients do it, no host or `localhost` means the socket.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        let local = self.host.as_deref().is_none_or(|host| host == "localhost");
        if let (true, false, Some(socket)) = (local, self.force_tcp, &self.socket) {
            return Some(Endpoint::Unix(socket.clone()));
        }
        if self.host.is_none() && self.port.is_none() {
            return None;
        }
        let host = self.host.clone().unwrap_or_else(|| "127.0.0.1".to_owned());
        Some(Endpoint::Tcp { host, port: self.port.unwrap_or(3306) })
    }

    fn set(&mut self, name: &str, value: Option<Vec<u8>>, file: &Path) -> Result<()> {
        let text = || String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned();
        let bad = |reason: String| Error::File { path: file.to_owned(), reason };
        match name {
            "host" => self.host = Some(text()),
            "port" => {
                let text = text();
                let port = text.parse().map_err(|_| bad(format!("`port = {text}` is no port")))?;
                self.port = Some(port);
            }
            "socket" => self.socket = Some(text().into()),
            "user" => self.user = Some(text()),
            "password" => self.password = Some(Secret::new(value.unwrap_or_default())),
            "ssl-mode" => {
                let text = text();
                let mode =
                    parse_ssl_mode(&text).ok_or_else(|| bad(format!("`ssl-mode = {text}` is no mode")))?;
                self.tls_mode = Some(mode);
            }
            "ssl" if is_off(&text()) => self.tls_mode = Some(TlsMode::Disabled),
            "ssl" => {
                self.tls_mode.get_or_insert(TlsMode::Required);
            }
            "skip-ssl" | "disable-ssl" => self.tls_mode = Some(TlsMode::Disabled),
            "ssl-verify-server-cert" if !is_off(&text()) => self.tls_mode = Some(TlsMode::VerifyIdentity),
            "ssl-ca" => self.ca = Some(text().into()),
            "ssl-cert" => self.cert = Some(text().into()),
            "ssl-key" => self.key = Some(text().into()),
            "server-public-key-path" => self.public_key = Some(PublicKey::File(text().into())),
            // A key that is known wins, as with MySQL's own clients.
            "get-server-public-key" if !is_off(&text()) => {
                self.public_key.get_or_insert(PublicKey::AsSent);
            }
            "protocol" => self.force_tcp = text().eq_ignore_ascii_case("tcp"),
            // Options of the clients themselves: none of our business.
            _ => {}
        }
        Ok(())
    }
}

fn parse_ssl_mode(text: &str) -> Option<TlsMode> {
    Some(match text.to_ascii_uppercase().replace('-', "_").as_str() {
        "DISABLED" => TlsMode::Disabled,
        "PREFERRED" => TlsMode::Preferred,
        "REQUIRED" => TlsMode::Required,
        "VERIFY_CA" => TlsMode::VerifyCa,
        "VERIFY_IDENTITY" => TlsMode::VerifyIdentity,
        _ => return None,
    })
}

fn is_off(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "0" | "off" | "false")
}

/// Reads the files that exist out of `files`, in order; later ones win. For `/etc/my.cnf`, `/etc/mysql/my.cnf`, `~/.my.cnf`.
pub fn read_option_files(files: &[PathBuf], groups: &[&str]) -> Result<ClientOptions> {
    let mut reader = OptionReader::new(groups);
    for file in files {
        if file.exists() {
            reader.read(file, 0)?;
        }
    }
    Ok(reader.options)
}

/// Reads one file, which must be there: `--defaults-file`.
pub fn read_defaults_file(file: &Path, groups: &[&str]) -> Result<ClientOptions> {
    let mut reader = OptionReader::new(groups);
    reader.read(file, 0)?;
    Ok(reader.options)
}

/// Reads a password: the file's first line. Line ends (LF, CR LF) are not part of it.
pub fn read_password_file(file: &Path) -> Result<Secret> {
    let mut bytes = zeroize::Zeroizing::new(read_bounded(file, PASSWORD_BYTES_MAX)?);
    let end = bytes.iter().position(|&b| b == b'\n').unwrap_or(bytes.len());
    bytes.truncate(end);
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Secret::new(bytes.to_vec()))
}

/// Reads options out of a text that came from `file` in another form; includes are not followed.
pub fn parse_options(text: &[u8], file: &Path, groups: &[&str]) -> Result<ClientOptions> {
    let mut options = ClientOptions::default();
    let mut in_group = false;
    for line in text.split(|&b| b == b'\n') {
        match parse_line(line) {
            Line::Group(name) => in_group = groups.contains(&name.as_str()),
            Line::Option(name, value) if in_group => options.set(&name, value, file)?,
            _ => {}
        }
    }
    Ok(options)
}

pub(crate) fn read_bounded(file: &Path, limit: u64) -> Result<Vec<u8>> {
    let bad = |reason: String| Error::File { path: file.to_owned(), reason };
    let handle = fs::File::open(file).map_err(|error| bad(error.to_string()))?;
    let mut bytes = Vec::new();
    handle.take(limit + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(bad(format!("is longer than {limit} bytes")));
    }
    Ok(bytes)
}

struct OptionReader<'a> {
    groups: HashSet<&'a str>,
    options: ClientOptions,
    files_read: usize,
}

impl<'a> OptionReader<'a> {
    fn new(groups: &[&'a str]) -> Self {
        Self { groups: groups.iter().copied().collect(), options: ClientOptions::default(), files_read: 0 }
    }

    fn read(&mut self, file: &Path, depth: u32) -> Result<()> {
        let bad = |reason: String| Error::File { path: file.to_owned(), reason };
        self.files_read += 1;
        if depth > INCLUDE_DEPTH_MAX || self.files_read > FILES_MAX {
            return Err(bad("is included too deep, or too many files are".to_owned()));
        }
        let metadata = fs::metadata(file).map_err(|error| bad(error.to_string()))?;
        // As the servers' clients do: a file that anybody may write could hand our password to anybody's host.
        if metadata.is_file() && metadata.permissions().mode() & 0o002 != 0 {
            self.options.warnings.push(format!("{} is ignored: anybody may write to it", file.display()));
            return Ok(());
        }
        let bytes = zeroize::Zeroizing::new(read_bounded(file, FILE_BYTES_MAX)?);
        let mut in_group = false;
        for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
            match parse_line(line) {
                Line::Nothing => {}
                Line::Group(name) => in_group = self.groups.contains(name.as_str()),
                Line::Option(name, value) => {
                    if in_group {
                        self.options.set(&name, value, file)?;
                    }
                }
                Line::Include(path) => self.read(&beside(file, &path), depth + 1)?,
                Line::IncludeDir(path) => self.read_dir(&beside(file, &path), depth + 1)?,
                Line::Bad => return Err(bad(format!("line {} can't be read", number + 1))),
            }
        }
        Ok(())
    }

    fn read_dir(&mut self, dir: &Path, depth: u32) -> Result<()> {
        let bad = |error: std::io::Error| Error::File { path: dir.to_owned(), reason: error.to_string() };
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(bad)? {
            let path = entry.map_err(bad)?.path();
            if path.extension().is_some_and(|e| e == "cnf") && path.is_file() {
                files.push(path);
            }
            if files.len() > FILES_MAX {
                break;
            }
        }
        files.sort();
        files.iter().try_for_each(|file| self.read(file, depth))
    }
}

fn beside(file: &Path, path: &str) -> PathBuf {
    file.parent().map_or_else(|| PathBuf::from(path), |dir| dir.join(path))
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Nothing,
    Group(String),
    Option(String, Option<Vec<u8>>),
    Include(String),
    IncludeDir(String),
    Bad,
}

fn parse_line(line: &[u8]) -> Line {
    let line = line.trim_ascii();
    match line {
        [] | [b'#' | b';', ..] => Line::Nothing,
        [b'!', directive @ ..] => parse_directive(directive),
        [b'[', rest @ ..] => match rest.iter().position(|&b| b == b']') {
            Some(end) => Line::Group(lossy(rest.get(..end).unwrap_or_default().trim_ascii())),
            None => Line::Bad,
        },
        _ => parse_option(cut_comment(line)),
    }
}

fn parse_directive(directive: &[u8]) -> Line {
    let text = lossy(directive);
    match text.split_once(char::is_whitespace) {
        Some(("includedir", path)) => Line::IncludeDir(path.trim().to_owned()),
        Some(("include", path)) => Line::Include(path.trim().to_owned()),
        _ => Line::Bad,
    }
}

fn parse_option(line: &[u8]) -> Line {
    let (name, value) = match line.iter().position(|&b| b == b'=') {
        Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..)),
        None => (line, None),
    };
    let name = lossy(name.trim_ascii()).replace('_', "-");
    if name.is_empty() {
        return Line::Bad;
    }
    let name = name.strip_prefix("loose-").unwrap_or(&name).to_owned();
    Line::Option(name, value.map(|value| unescape(unquote(value.trim_ascii()))))
}

/// A `#` outside of quotes ends the line.
fn cut_comment(line: &[u8]) -> &[u8] {
    let (mut quote, mut escape) = (None, false);
    for (at, &byte) in line.iter().enumerate() {
        match byte {
            b'#' if quote.is_none() => return line.get(..at).unwrap_or_default().trim_ascii(),
            b'\'' | b'"' if !escape => {
                quote = match quote {
                    Some(open) if open == byte => None,
                    None => Some(byte),
                    other => other,
                };
            }
            _ => {}
        }
        escape = quote.is_some() && byte == b'\\' && !escape;
    }
    line
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}

fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(b'r') => out.push(b'\r'),
            Some(b'b') => out.push(8),
            Some(b's') => out.push(b' '),
            Some(c @ (b'\\' | b'"' | b'\'')) => out.push(c),
            // Any other sequence stays as it is.
            Some(other) => out.extend_from_slice(&[b'\\', other]),
            None => out.push(b'\\'),
        }
    }
    out
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn groups_quotes_escapes_and_comments_are_read_as_the_servers_do() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(
            dir.path(),
            "my.cnf",
            "# top\n; other\n[mysqld]\nuser=mysql\npassword=no\n[client]\nuser = bk  # who\nhost=db1\n\
             port=3307\npassword=\"a # b\\tc\\\\\"\nssl_mode=VERIFY_CA\nloose-ssl-ca='/x y/ca.pem'\nquick\n\
             [mysqldump]\nuser=dump\n",
        );
        let options = read_defaults_file(&file, &GROUPS).unwrap();
        assert_eq!(options.user.as_deref(), Some("bk"));
        assert_eq!(options.password.unwrap().expose(), b"a # b\tc\\");
        assert_eq!((options.host.as_deref(), options.port), (Some("db1"), Some(3307)));
        assert_eq!(options.tls_mode, Some(TlsMode::VerifyCa));
        assert_eq!(options.ca, Some("/x y/ca.pem".into()));
    }

    #[test]
    fn includes_are_followed_and_later_files_win() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "conf.d/b.cnf", "[client]\nuser=b\n");
        write(dir.path(), "conf.d/a.cnf", "[client]\nuser=a\nport=1\n");
        write(dir.path(), "conf.d/c.txt", "[client]\nuser=c\n");
        write(dir.path(), "one.cnf", "[holdfast]\nport=2\n");
        let first = write(dir.path(), "my.cnf", "!includedir conf.d/\n!include one.cnf\n");
        let options = read_option_files(&[first, dir.path().join("not-there.cnf")], &GROUPS).unwrap();
        assert_eq!((options.user.as_deref(), options.port), (Some("b"), Some(2)));
    }

    #[test]
    fn a_file_that_includes_itself_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "my.cnf", "!include my.cnf\n");
        assert!(read_defaults_file(&file, &GROUPS).is_err());
    }

    #[test]
    fn a_file_that_anybody_may_write_is_left_out_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "my.cnf", "[client]\nhost=evil\n");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let options = read_defaults_file(&file, &GROUPS).unwrap();
        assert!(options.host.is_none());
        assert!(options.warnings[0].contains("my.cnf"));
    }

    #[test]
    fn localhost_means_the_socket_unless_tcp_is_asked_for() {
        let mut options = ClientOptions { socket: Some("/s".into()), ..ClientOptions::default() };
        assert_eq!(options.endpoint(), Some(Endpoint::Unix("/s".into())));
        options.host = Some("localhost".into());
        assert_eq!(options.endpoint(), Some(Endpoint::Unix("/s".into())));
        options.force_tcp = true;
        assert_eq!(options.endpoint(), Some(Endpoint::Tcp { host: "localhost".into(), port: 3306 }));
        assert_eq!(ClientOptions::default().endpoint(), None);
    }

    #[test]
    fn a_password_file_gives_its_first_line() {
        let dir = tempfile::tempdir().unwrap();
        for (text, password) in [("pw\n", "pw"), ("pw\r\nx", "pw"), (" p w ", " p w "), ("", "")] {
            let file = write(dir.path(), "pw", text);
            assert_eq!(read_password_file(&file).unwrap().expose(), password.as_bytes(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_a_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse_line(&line);
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[ -~]{0,20}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let line = format!("password=\"{escaped}\" # note");
            prop_assert_eq!(
                parse_line(line.as_bytes()),
                Line::Option("password".into(), Some(value.into_bytes()))
            );
        }
    }
}
