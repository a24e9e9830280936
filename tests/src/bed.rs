//! A user with a repository who protects one server: what most tests of the command line begin with.

use std::path::PathBuf;

use crate::server::BACKUP_PASSWORD;
use crate::{Engine, Holdfast, Outcome, TestServer};

/// A user who protects a server under the name `shop`.
#[derive(Debug)]
pub struct Bed {
    dir: tempfile::TempDir,
    /// The user's command line.
    pub user: Holdfast,
    /// The server.
    pub server: TestServer,
}

impl Bed {
    /// Makes a repository and protects a server that was started with these options.
    #[must_use]
    pub fn new(engine: Engine, options: &[&str]) -> Self {
        let server = TestServer::start_with(engine, options);
        let dir = tempfile::tempdir_in(crate::server::scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let bed = Self { dir, user, server };
        std::fs::write(bed.path("password"), BACKUP_PASSWORD).unwrap();
        bed.user.run(&["init", "--kit", &bed.text("kit")]).ok();
        bed.add("shop", &bed.server).ok();
        bed
    }

    /// Protects a server under a name.
    #[must_use]
    pub fn add(&self, name: &str, server: &TestServer) -> Outcome {
        self.add_with(name, server, &[])
    }

    /// The same, with more options.
    #[must_use]
    pub fn add_with(&self, name: &str, server: &TestServer, more: &[&str]) -> Outcome {
        let (port, password) = (server.port().to_string(), self.text("password"));
        let mut args =
            vec!["server", "add", name, "--host", "127.0.0.1", "--port", &port, "--user", "backup"];
        args.extend(["--password-file", &password]);
        let programs = server.engine().programs();
        if server.engine() == Engine::MariaDb {
            args.extend(["--backup-command", programs.backup_program().unwrap().to_str().unwrap()]);
        }
        args.extend(more);
        self.user.run(&args)
    }

    /// A path in the user's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Takes a backup; MySQL's may come with warnings.
    pub fn backup(&self) {
        let outcome = self.user.run(&["backup", "shop", "--json"]);
        assert!(matches!(outcome.code, Some(0 | 3)), "{}\n{}", outcome.line, outcome.stderr);
    }

    /// How many backups are listed.
    #[must_use]
    pub fn backups(&self) -> usize {
        self.user.run(&["list", "--json"]).ok().json()["backups"].as_array().unwrap().len()
    }

    /// The plan of a restore to a target.
    #[must_use]
    pub fn plan(&self, to: &str) -> Outcome {
        self.plan_of(&["--to", to])
    }

    /// The plan of a restore to a target in any words.
    #[must_use]
    pub fn plan_of(&self, target: &[&str]) -> Outcome {
        let (into, engine) = (self.text("never"), self.server.engine().dir());
        let mut args = vec!["restore", "shop", "--into", &into, "--engine-dir"];
        args.extend([engine.to_str().unwrap(), "--dry-run"]);
        args.extend(target);
        self.user.run(&args)
    }

    /// Restores to the last moment that there is, into `into`, with these options more.
    #[must_use]
    pub fn restored(&self, into: &str, more: &[&str]) -> Outcome {
        let (into, engine) = (self.text(into), self.server.engine().dir());
        let mut args = vec!["restore", "shop", "--to", "latest", "--into", &into, "--engine-dir"];
        args.push(engine.to_str().unwrap());
        args.extend(more);
        self.user.run(&args)
    }

    /// The server's clock, as `--to` takes it.
    #[must_use]
    pub fn now(&self) -> String {
        self.server.value("SELECT DATE_FORMAT(UTC_TIMESTAMP(3), '%Y-%m-%dT%H:%i:%s.%fZ')").unwrap()
    }
}

/// Fails the test unless the command ended with `code` and complained in all these words.
#[track_caller]
pub fn refused(outcome: Outcome, code: i32, words: &[&str]) -> Outcome {
    let outcome = outcome.expect_code(code);
    for word in words {
        assert!(outcome.stderr.contains(word), "{}: no {word:?} in\n{}", outcome.line, outcome.stderr);
    }
    outcome
}
