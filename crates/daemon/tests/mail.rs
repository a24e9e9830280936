//! Alerts by mail, taken by a little SMTP server: with STARTTLS and a login, with TLS from the first byte, in plain text; a
//! server that refuses at first; a test message.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod bed;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bed::{Bed, CERTIFICATE, KEY, free_port};
use holdfast_daemon::tokens::Role;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PASSWORD: &str = "only-for-this-test";

/// How the server wants to be spoken to.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    StartTls,
    Tls,
}

/// A mail that was taken.
#[derive(Clone, Debug)]
struct Mail {
    /// Whom the server was told it is for.
    recipients: Vec<String>,
    /// Whether a login came before it.
    login: Option<String>,
    /// Head and body.
    text: String,
}

/// A mail server for one recipient in the end: `refuse` says how many mails it answers with 451 first.
struct Smtp {
    port: u16,
    taken: Arc<Mutex<Vec<Mail>>>,
    tries: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Smtp {
    fn start(way: Way, refuse: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, stop, tries) = (Arc::default(), Arc::new(AtomicBool::new(false)), Arc::default());
        let (all, flag, count) = (Arc::clone(&taken), Arc::clone(&stop), Arc::clone(&tries));
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                        // A client that goes in the middle is none.
                        let _ = converse(stream, way, refuse, &all, &count);
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { port, taken, tries, stop, thread: Some(thread) }
    }

    fn taken(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn secured(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_file(KEY).unwrap(),
        )
        .unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), stream)
}

/// One connection, as RFC 5321 has it, as far as a client of ours goes.
fn converse(
    stream: TcpStream,
    way: Way,
    refuse: u32,
    taken: &Mutex<Vec<Mail>>,
    tries: &AtomicU32,
) -> std::io::Result<()> {
    let mut secret = way == Way::Tls;
    let raw = stream.try_clone()?;
    let boxed: Box<dyn Stream> = if secret { Box::new(secured(stream)) } else { Box::new(stream) };
    let mut lines = BufReader::new(boxed);
    let mut login = None;
    let mut recipients = Vec::new();
    lines.get_mut().write_all(b"220 mail.example.org ready\r\n")?;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let verb = line.split(' ').next().unwrap_or("").to_uppercase();
        let answer = match verb.as_str() {
            "EHLO" if way == Way::StartTls && !secret => {
                "250-mail.example.org\r\n250 STARTTLS\r\n".to_owned()
            }
            "EHLO" => "250-mail.example.org\r\n250 AUTH PLAIN\r\n".to_owned(),
            "STARTTLS" => {
                lines.get_mut().write_all(b"220 go on\r\n")?;
                assert!(lines.buffer().is_empty(), "something was said before TLS");
                lines = BufReader::new(Box::new(secured(raw.try_clone()?)));
                secret = true;
                continue;
            }
            "AUTH" => {
                let given = line.rsplit(' ').next().unwrap();
                let given = String::from_utf8(STANDARD.decode(given).unwrap()).unwrap();
                let fits = given == format!("\0ops\0{PASSWORD}");
                if fits {
                    login = Some("ops".to_owned());
                }
                // A server that repeats what it was told.
                if fits { "235 welcome\r\n".to_owned() } else { format!("535 not you: {given}\r\n") }
            }
            // Whoever shall not speak in plain text does not.
            "MAIL" if way == Way::StartTls && !secret => "530 STARTTLS first\r\n".to_owned(),
            "RCPT" if line.contains("gone@") => "550 nobody of that name\r\n".to_owned(),
            "RCPT" => {
                recipients.push(line.split(['<', '>']).nth(1).unwrap().to_owned());
                "250 ok\r\n".to_owned()
            }
            "DATA" => {
                lines.get_mut().write_all(b"354 go on\r\n")?;
                let mut text = String::new();
                loop {
                    let mut line = String::new();
                    lines.read_line(&mut line)?;
                    if line == ".\r\n" {
                        break;
                    }
                    text.push_str(line.strip_prefix('.').unwrap_or(&line));
                }
                if tries.fetch_add(1, Ordering::Relaxed) < refuse {
                    "451 come again later\r\n".to_owned()
                } else {
                    let recipients = std::mem::take(&mut recipients);
                    taken.lock().unwrap().push(Mail { recipients, login: login.clone(), text });
                    "250 taken\r\n".to_owned()
                }
            }
            "QUIT" => {
                lines.get_mut().write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => "250 ok\r\n".to_owned(),
        };
        lines.get_mut().write_all(answer.as_bytes())?;
        lines.get_mut().flush()?;
    }
}

/// A section for this server. The password's file is beside it.
fn section(port: u16, tls: &str, dir: &tempfile::TempDir, password: &str, to: &str) -> String {
    let file = dir.path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    format!(
        "[alerts]\nafter = 0\nca = '{CERTIFICATE}'\n[alerts.mail]\nhost = 'localhost'\nport = {port}\ntls = '{tls}'\n\
         user = 'ops'\npassword_file = {file:?}\nfrom = 'Holdfast <holdfast@example.org>'\nto = [{to}]\n"
    )
}

#[test]
fn an_alert_is_mailed_over_starttls_after_a_refusal_and_no_other_recipient_waits_for_one_that_is_refused() {
    let smtp = Smtp::start(Way::StartTls, 1);
    let dir = tempfile::tempdir().unwrap();
    let to = "'gone@example.org', 'Ops <ops@example.org>'";
    let bed = Bed::start_with("", &section(smtp.port, "starttls", &dir, PASSWORD, to));
    bed.until("the first base", || {
        bed.local("GET", "/api/v1/backups?server=files", None).1["backups"].as_array().unwrap().len() == 1
    });
    assert_eq!(bed.local("POST", "/api/v1/servers/files/pause", None).0, 200);
    let has =
        |subject: &str| smtp.taken().iter().any(|m| m.text.contains(&format!("Subject: {subject}\r\n")));
    bed.until("the alert", || has("[holdfast] amber: files: paused"));
    assert!(smtp.tries.load(Ordering::Relaxed) >= 2, "the first one was refused");
    assert_eq!(bed.local("POST", "/api/v1/servers/files/resume", None).0, 200);
    bed.until("the end of it", || has("[holdfast] over: files: paused"));
    for mail in smtp.taken() {
        assert_eq!(
            (mail.recipients.as_slice(), mail.login.as_deref()),
            (["ops@example.org".to_owned()].as_slice(), Some("ops"))
        );
        assert!(mail.text.contains("From: Holdfast <holdfast@example.org>\r\n"), "{mail:?}");
        assert!(mail.text.contains("Auto-Submitted: auto-generated\r\n"), "{mail:?}");
    }
    // What nobody takes waits for the next try; what was sent is not kept.
    let state = std::fs::read_to_string(bed.at("state/state.json")).unwrap();
    assert!(!state.contains(PASSWORD) && !state.contains("example.org"), "{state}");
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let waiting = state["outbox"].as_array().unwrap();
    assert!(!waiting.is_empty() && waiting.iter().all(|m| m["tries"].as_u64().unwrap() > 0), "{state}");
}

#[test]
fn a_message_that_was_not_taken_is_mailed_after_a_restart() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::start_with("", &section(port, "tls", &dir, PASSWORD, "'ops@example.org'"));
    bed.until("a message that waits", || {
        let answer = bed.local("GET", "/api/v1/alerts", None).1;
        answer["waiting"].as_u64().unwrap() > 0
    });
    let id = bed.daemon().state.read(|c| c.outbox[0].id.clone());
    // The server is there now, at another address.
    let smtp = Smtp::start(Way::Tls, 0);
    let text = std::fs::read_to_string(bed.at("holdfast.toml")).unwrap();
    let text = text.replace(&format!("port = {port}"), &format!("port = {}", smtp.port));
    std::fs::write(bed.at("holdfast.toml"), text).unwrap();
    let bed = bed.again();
    bed.until("the message", || smtp.taken().iter().any(|m| m.text.contains(&format!("Message-ID: <{id}."))));
    assert_eq!(smtp.taken()[0].login.as_deref(), Some("ops"));
}

#[test]
fn a_test_message_says_how_each_receiver_fared_and_tells_no_secret() {
    let smtp = Smtp::start(Way::Plain, 0);
    let dir = tempfile::tempdir().unwrap();
    let to = "'ops@example.org', 'gone@example.org'";
    let bed = Bed::start_with("", &section(smtp.port, "none", &dir, PASSWORD, to));
    assert_eq!(bed.network("POST", "/api/v1/alerts/test", Some(bed.token(Role::Viewer)), None).0, 403);
    let (status, answer) = bed.network("POST", "/api/v1/alerts/test", Some(bed.token(Role::Operator)), None);
    assert_eq!(status, 200, "{answer}");
    let rows = answer["receivers"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["receiver"], &rows[0]["taken"]),
        (&"ops@example.org".into(), &true.into()),
        "{answer}"
    );
    assert_eq!(rows[1]["taken"], false);
    assert!(rows[1]["trouble"].as_str().unwrap().contains("550"), "{answer}");
    assert!(
        smtp.taken().iter().any(|m| m.text.contains("Subject: [holdfast] a test\r\n")),
        "{:?}",
        smtp.taken()
    );
    // A wrong password, to a server that repeats it.
    std::fs::write(dir.path().join("password"), "wrong-but-secret\n").unwrap();
    let answer = bed.local("POST", "/api/v1/alerts/test", None).1;
    let trouble = answer["receivers"][0]["trouble"].as_str().unwrap().to_owned();
    assert!(trouble.contains("535") && !answer.to_string().contains("wrong-but-secret"), "{answer}");
    // With a key it is sent once; and nobody floods anybody.
    let keyed = || {
        let stream = UnixStream::connect(bed.at("socket")).unwrap();
        bed::converse(stream, "POST", "/api/v1/alerts/test", "Idempotency-Key: t\r\n", None)
    };
    let first = keyed();
    assert_eq!((first.0, keyed()), (200, first));
    for _ in 0..2 {
        assert_eq!(bed.local("POST", "/api/v1/alerts/test", None).0, 200);
    }
    let (status, refused) = bed.local("POST", "/api/v1/alerts/test", None);
    assert_eq!((status, &refused["code"]), (429, &"locked".into()), "{refused}");
}

#[test]
fn a_server_without_tls_or_with_a_strangers_certificate_gets_no_mail_and_no_password() {
    // It offers no STARTTLS.
    let plain = Smtp::start(Way::Plain, 0);
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::start_with("", &section(plain.port, "starttls", &dir, PASSWORD, "'ops@example.org'"));
    let answer = bed.local("POST", "/api/v1/alerts/test", None).1;
    assert_eq!(answer["receivers"][0]["taken"], false, "{answer}");
    assert!(plain.taken().is_empty());
    drop(bed);
    // Its certificate is not known.
    let tls = Smtp::start(Way::Tls, 0);
    let section = section(tls.port, "tls", &dir, PASSWORD, "'ops@example.org'");
    let bed = Bed::start_with("", &section.replace(&format!("ca = '{CERTIFICATE}'\n"), ""));
    let answer = bed.local("POST", "/api/v1/alerts/test", None).1;
    assert_eq!(answer["receivers"][0]["taken"], false, "{answer}");
    assert!(tls.taken().is_empty());
}
