//! Runs `holdfast` and `holdfast-fsck` as a user would.

use crate::server::{BACKUP_PASSWORD, BACKUP_USER, Engine, TestServer};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Outcome {
    /// Fails the test unless the command ended with `code`.
    pub fn expect_code(self, code: i32) -> Self {
        let Self { line, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "{line}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
        self
    }

    /// Fails the test unless the command succeeded.
    pub fn ok(self) -> Self {
        self.expect_code(0)
    }

    /// Fails the test unless the command did its work, with warnings (exit status 3) or without.
    pub fn accepted(self) -> Self {
        if self.code == Some(3) { self } else { self.ok() }
    }

    /// What it printed, read as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error} in\n{}", self.line, self.stdout))
    }
}

/// A user with a repository, a passphrase file and a configuration of his own.
#[derive(Debug)]
pub struct Holdfast {
    dir: PathBuf,
}

impl Holdfast {
    /// Longest time for one command.
    pub const LIMIT: Duration = Duration::from_secs(300);

    /// A user whose files are all in `dir`. Nothing is made but the passphrase file.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir.join("home")).unwrap();
        std::fs::write(dir.join("passphrase"), "a passphrase for tests\n").unwrap();
        Self { dir: dir.to_path_buf() }
    }

    /// The repository's folder.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    /// The command `program` with this user's environment.
    #[must_use]
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(binary(program));
        command
            .args(args)
            .env("HOME", self.dir.join("home"))
            .env("XDG_CONFIG_HOME", self.dir.join("home/.config"))
            .env("HOLDFAST_REPO", self.repository())
            .env("HOLDFAST_PASSPHRASE_FILE", self.dir.join("passphrase"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `holdfast` to its end.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Outcome {
        finish(self.command("holdfast", args))
    }

    /// Runs `holdfast-fsck --full` on the repository.
    #[must_use]
    pub fn fsck(&self) -> Outcome {
        let repository = self.repository();
        finish(self.command("holdfast-fsck", &[repository.to_str().unwrap(), "--full"]))
    }

    /// Runs `holdfast … --json` to its end, and reads what it printed.
    #[must_use]
    pub fn done(&self, args: &[&str]) -> serde_json::Value {
        self.run(args).accepted().json()
    }

    /// Makes the repository and protects `source` in it as `shop`, as README tells a user to.
    pub fn protect(&self, source: &TestServer) {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let kit = text(&self.dir.join("kit"));
        let _ = self.run(&["init", "--kit", &kit]).ok();
        self.add("shop", source);
    }

    /// Protects a further server under this name.
    pub fn add(&self, name: &str, source: &TestServer) {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let password = self.dir.join("shop-password");
        std::fs::write(&password, format!("{BACKUP_PASSWORD}\n")).unwrap();
        let (password, port) = (text(&password), source.port().to_string());
        let (socket, program) =
            (text(source.socket()), text(&source.engine().dir().join("bin/mariadb-backup")));
        let mut add = vec!["server", "add", name, "--user", BACKUP_USER, "--password-file", &password];
        match source.engine() {
            Engine::MySql => add.extend(["--host", "127.0.0.1", "--port", &port]),
            Engine::MariaDb => add.extend(["--socket", &socket, "--backup-command", &program]),
        }
        let _ = self.run(&add).ok();
    }

    /// Starts `holdfast` and leaves it running, its output in `log`. The caller ends it, by its id.
    #[must_use]
    pub fn spawn(&self, args: &[&str], log: &Path) -> Child {
        let out = std::fs::File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        self.command("holdfast", args).stdout(out).stderr(err).spawn().unwrap()
    }
}

/// Runs a command with a deadline and collects what it prints.
#[must_use]
pub fn finish(mut command: Command) -> Outcome {
    let line = format!("{command:?}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
        panic!("{line}: {error}");
    });
    let drain = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = drain(Box::new(child.stdout.take().unwrap()));
    let stderr = drain(Box::new(child.stderr.take().unwrap()));
    let deadline = Instant::now() + Holdfast::LIMIT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{line}: not finished within {:?}\n{}", Holdfast::LIMIT, stderr.join().unwrap());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    Outcome { line, code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// A program of this workspace. `tools/test` builds them all and says where they are.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let dir = std::env::var_os("HOLDFAST_TEST_BIN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debug"), PathBuf::from);
    let path = dir.join(name);
    assert!(
        path.is_file(),
        "{} is not built: run tools/test, or cargo build --workspace --bins",
        path.display()
    );
    path
}
