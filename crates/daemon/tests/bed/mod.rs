//! A running daemon on a fresh repository, and ways to talk to it from outside.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use holdfast_appliance::catalogue::Key;
use holdfast_appliance::init::init;
use holdfast_appliance::settings::Environment;
use holdfast_daemon::config::Config;
use holdfast_daemon::daemon::{Daemon, run};
use holdfast_daemon::tokens::{Role, fresh};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/certificate.pem");
pub const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/key.pem");

/// A daemon on a fresh repository with one folder in it.
pub struct Bed {
    pub dir: tempfile::TempDir,
    pub port: u16,
    pub tokens: Vec<(Role, String)>,
    daemon: Option<Arc<Daemon>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bed {
    pub fn start(allow: &str) -> Self {
        Self::start_with(allow, "")
    }

    /// With more sections behind the configuration.
    pub fn start_with(allow: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("passphrase"), "only for tests\n").unwrap();
        let environment = Environment::of_daemon(at("servers.toml"), Some(at("spool"))).unwrap();
        let key = Key::PassphraseFile(at("passphrase"));
        init(&environment, &at("repository"), &key, "test").unwrap();
        let catalogue =
            holdfast_appliance::catalogue::Catalogue::open(environment, &at("repository"), &key).unwrap();
        std::fs::create_dir_all(at("data")).unwrap();
        std::fs::create_dir_all(at("restored")).unwrap();
        std::fs::write(at("data/file"), vec![7; 100_000]).unwrap();
        let folder = holdfast_appliance::server::Added {
            name: "files".into(),
            kind: holdfast_appliance::ServerKind::Folder { path: at("data").to_str().unwrap().into() },
            login: Default::default(),
            rebuilt: false,
        };
        holdfast_appliance::server::add(&catalogue, folder).unwrap();
        drop(catalogue);

        // Two administrators: what one asks for, the other may have to approve.
        let roles = [
            ("Viewer", Role::Viewer),
            ("Operator", Role::Operator),
            ("Restorer", Role::Restorer),
            ("Admin", Role::Admin),
            ("Second", Role::Admin),
        ];
        let mut lines = String::new();
        let tokens = roles.map(|(name, role)| {
            let (token, line) = fresh(name, role).unwrap();
            lines.push_str(&line);
            (role, token.to_string())
        });
        std::fs::write(at("tokens.toml"), lines).unwrap();
        let port = free_port();
        let text = format!(
            "repository = {:?}\npassphrase_file = {:?}\nstate = {:?}\nsocket = {:?}\nrestore_into = [{:?}]\n\
             [drills]\ninto = {:?}\n[listen]\naddress = '127.0.0.1:{port}'\ncertificate = '{CERTIFICATE}'\nkey = '{KEY}'\ntokens = {:?}\n\
             allow = [{allow}]\n{more}",
            at("repository"),
            at("passphrase"),
            at("state"),
            at("socket"),
            at("restored"),
            at("drills"),
            at("tokens.toml"),
        );
        std::fs::write(at("holdfast.toml"), text).unwrap();
        Self::run(dir, port, tokens.into())
    }

    /// The same daemon's next life, with the configuration as it is written now.
    pub fn again(mut self) -> Self {
        self.end();
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::run(dir, self.port, std::mem::take(&mut self.tokens))
    }

    fn run(dir: tempfile::TempDir, port: u16, tokens: Vec<(Role, String)>) -> Self {
        let config = Config::load(&dir.path().join("holdfast.toml")).unwrap();
        let daemon = Arc::new(Daemon::open(config).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, shared) = (Arc::clone(&stop), Arc::clone(&daemon));
        let thread = std::thread::spawn(move || run(&shared, &flag).unwrap());
        let bed = Self { dir, port, tokens, daemon: Some(daemon), stop, thread: Some(thread) };
        bed.until("the board", || bed.local("GET", "/api/v1/status", None).0 == 200);
        bed
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_deref().unwrap()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
        self.daemon = None;
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "not within a minute: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn local(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        match UnixStream::connect(self.at("socket")) {
            Ok(stream) => converse(stream, method, path, "", body),
            Err(_) => (0, Value::Null),
        }
    }

    pub fn network(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, Value) {
        let header = token.map(|t| format!("Authorization: Bearer {t}\r\n")).unwrap_or_default();
        converse(self.tls(rustls::DEFAULT_VERSIONS), method, path, &header, body)
    }

    /// A connection from the network that speaks one of these versions of TLS.
    pub fn tls(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(CERTIFICATE).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        rustls::StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    pub fn token(&self, role: Role) -> &str {
        &self.tokens.iter().find(|(r, _)| *r == role).unwrap().1
    }

    /// The second administrator's token.
    pub fn second(&self) -> &str {
        &self.tokens.iter().rev().find(|(r, _)| *r == Role::Admin).unwrap().1
    }

    pub fn ended(&self, answer: &Value) -> Value {
        let path = format!("/api/v1/jobs/{}", answer["id"]);
        self.until("the job's end", || {
            let job = self.local("GET", &path, None).1;
            ["done", "failed", "cancelled"].contains(&job["standing"].as_str().unwrap())
        });
        self.local("GET", &path, None).1
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

/// A port that no outgoing connection is given (those begin at 32768) and no other test takes meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let at = std::process::id().wrapping_mul(64).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + (at % 20_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One request; status 0 when the door is shut.
pub fn converse(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    header: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut bytes = Vec::new();
    if stream.write_all(request.as_bytes()).is_err() {
        return (0, Value::Null);
    }
    // A TLS end without its farewell is an end all the same.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return (0, Value::Null) };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())))
}
