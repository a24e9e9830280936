//! `holdfastd` as a service manager runs it: started, asked over its socket, killed, started again.

use crate::command::Holdfast;
use crate::server::Engine;
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(180);

/// A user with a repository, and `holdfastd` on it.
#[derive(Debug)]
pub struct DaemonBed {
    /// The user.
    pub user: Holdfast,
    /// The folder of all that is here.
    pub dir: TempDir,
    daemon: Option<Child>,
    /// How often the daemon was started: the number of its log, `log-N`.
    pub starts: u32,
    /// Servers whose log is followed.
    streams: usize,
}

impl DaemonBed {
    /// Nothing is started yet; `streams` servers have a log that is followed.
    #[must_use]
    pub fn new(user: Holdfast, dir: TempDir, streams: usize) -> Self {
        Self { user, dir, daemon: None, starts: 0, streams }
    }

    /// The process of the daemon that runs.
    #[must_use]
    pub fn child(&self) -> &Child {
        self.daemon.as_ref().unwrap()
    }

    /// How the daemon ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut().unwrap().try_wait().unwrap()
    }

    /// Where the API is.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// Writes the daemon's configuration: its places, and `more`.
    pub fn configure(&self, more: &str) {
        let at = |name: &str| self.dir.path().join(name);
        std::fs::create_dir_all(at("restored")).unwrap();
        let text = format!(
            "repository = {:?}\npassphrase_file = {:?}\nlogins = {:?}\nstate = {:?}\nsocket = {:?}\nspool = {:?}\n\
             restore_into = [{:?}]\n[engines]\nmysql = {:?}\nmariadb = {:?}\n[log]\nformat = 'json'\n\
             [drills]\ninto = {:?}\nprove = 'quick'\n{more}",
            self.user.repository(),
            at("passphrase"),
            at("home/.config/holdfast/holdfast.toml"),
            at("state"),
            self.socket(),
            at(""),
            at("restored"),
            Engine::MySql.dir(),
            Engine::MariaDb.dir(),
            at("drills"),
        );
        std::fs::write(at("holdfastd.toml"), text).unwrap();
    }

    /// Starts it.
    pub fn start(&mut self) {
        let config = self.dir.path().join("holdfastd.toml");
        self.starts += 1;
        let log = std::fs::File::create(self.dir.path().join(format!("log-{}", self.starts))).unwrap();
        let mut command = self.user.command("holdfastd", &["--config", config.to_str().unwrap()]);
        self.daemon = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// One request; `None` while nobody answers.
    #[must_use]
    pub fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    /// Waits until something holds; the daemon must not end meanwhile.
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + WAIT;
        while !holds(self) {
            let ended = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap());
            assert!(
                Instant::now() < deadline && ended.is_none(),
                "not within {WAIT:?} ({ended:?}): {what}\n{}",
                std::fs::read_to_string(self.dir.path().join(format!("log-{}", self.starts)))
                    .unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the log of every server is followed to its end.
    pub fn until_following(&mut self) {
        self.until("every stream follows", |bed| {
            let Some((200, status)) = bed.ask("GET", "/status", None) else { return false };
            let servers = status["servers"].as_array().unwrap();
            let followed = servers.iter().filter(|s| s["stream"]["state"] == "following");
            followed.count() == bed.streams
        });
    }

    /// Waits until nothing of any server's log is missing.
    pub fn until_caught_up(&mut self) {
        self.until_following();
        self.until("every stream has caught up", |bed| {
            let Some((200, status)) = bed.ask("GET", "/status", None) else { return false };
            let mut servers = status["servers"].as_array().unwrap().iter();
            servers.all(|s| {
                s["stream"]["state"] == "none"
                    || s["stream"]["lag_seconds"].as_f64().is_some_and(|lag| lag < 2.0)
            })
        });
    }

    /// Waits for the end of a job; gives it.
    pub fn until_ended(&mut self, id: &Value) -> Value {
        let path = format!("/jobs/{id}");
        self.until("a job's end", |bed| {
            bed.ask("GET", &path, None).is_some_and(|(_, job)| {
                ["done", "failed", "cancelled"].contains(&job["standing"].as_str().unwrap_or_default())
            })
        });
        self.ask("GET", &path, None).unwrap().1
    }
}

impl Drop for DaemonBed {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
