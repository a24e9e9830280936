//! Real servers for tests: from a template that is initialised once per version.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, Flavor};

/// The account for backups, as README tells a user to make it.
pub const BACKUP_USER: &str = "backup";
/// Its password.
pub const BACKUP_PASSWORD: &str = "only-for-Tests-1";

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MySql, Self::MariaDb];

    /// The family.
    #[must_use]
    pub fn flavor(self) -> Flavor {
        match self {
            Self::MySql => Flavor::MySql,
            Self::MariaDb => Flavor::MariaDb,
        }
    }

    /// The folder of the server's programs.
    #[must_use]
    pub fn dir(self) -> PathBuf {
        let (variable, name) = match self {
            Self::MySql => ("HOLDFAST_TEST_MYSQL", "mysql"),
            Self::MariaDb => ("HOLDFAST_TEST_MARIADB", "mariadb"),
        };
        match std::env::var_os(variable) {
            Some(dir) => PathBuf::from(dir),
            None => panic!(
                "this test needs a real server and {variable} is not set: run tools/test, or \
                 tools/get-server {name} and set {variable} to the folder that it prints"
            ),
        }
    }

    /// The server's programs.
    #[must_use]
    pub fn programs(self) -> Programs {
        Programs::find(Some(&self.dir()), self.flavor(), None).unwrap()
    }
}

/// A running server with a binary log, TCP, and the accounts that a protected server has.
#[derive(Debug)]
pub struct TestServer {
    engine: Engine,
    server: Option<PrivateServer>,
    port: u16,
    server_id: u32,
    extra: Vec<String>,
    datadir: PathBuf,
    // Removes the folder when dropped; after the server, hence last.
    _dir: tempfile::TempDir,
}

impl TestServer {
    /// Starts a server from the template.
    #[must_use]
    pub fn start(engine: Engine) -> Self {
        Self::start_with(engine, &[])
    }

    /// The same with options of the test's own.
    #[must_use]
    pub fn start_with(engine: Engine, extra: &[&str]) -> Self {
        crate::watch::end_a_hanging_program();
        static NEXT_ID: AtomicU32 = AtomicU32::new(1);
        let template = template(engine);
        let dir = tempfile::Builder::new().prefix("holdfast-test-").tempdir_in(scratch()).unwrap();
        let datadir = dir.path().join("data");
        copy(&template, &datadir);
        let mut server = Self {
            engine,
            server: None,
            port: 0,
            // Different in parallel test programs as well.
            server_id: (std::process::id() % 1_000_000) * 1000 + NEXT_ID.fetch_add(1, Ordering::Relaxed),
            extra: extra.iter().map(|&option| option.to_owned()).collect(),
            datadir,
            _dir: dir,
        };
        server.start_again();
        server
    }

    /// Starts it after `stop` or `kill`.
    pub fn start_again(&mut self) {
        assert!(self.server.is_none(), "it runs already");
        for attempt in 1.. {
            // Somebody else may take the port between our look and the server's start.
            self.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            match PrivateServer::start(self.options()) {
                Ok(server) => {
                    // From here on it is a server like a user's: no account of ours on it.
                    let mut conn = server.connect().unwrap();
                    server.drop_account(&mut conn).unwrap();
                    self.server = Some(server);
                    return;
                }
                Err(error) if attempt < 10 && error.to_string().to_lowercase().contains("bind") => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn options(&self) -> StartOptions {
        let mut options = StartOptions::new(self.engine.programs(), &self.datadir);
        options.purpose = format!("the test's {}", self.engine.flavor());
        options.listen = Listen::Loopback(self.port);
        options.binlog = true;
        options.log = Some(self.datadir.with_file_name("error.log"));
        options.timeout = Duration::from_secs(120);
        options.extra_args = [
            format!("--server-id={}", self.server_id),
            "--log-bin=binlog".to_owned(),
            "--sync-binlog=1".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
        ]
        .into();
        let own: &[&str] = match self.engine {
            Engine::MySql => &["--innodb-redo-log-capacity=32M", "--innodb-extend-and-initialize=OFF"],
            Engine::MariaDb => &[
                "--binlog-format=ROW",
                "--gtid-domain-id=7",
                "--gtid-strict-mode=ON",
                "--innodb-log-file-size=32M",
                "--character-set-server=utf8mb4",
            ],
        };
        options.extra_args.extend(own.iter().map(|&option| option.to_owned()));
        options.extra_args.extend(self.extra.iter().cloned());
        options
    }

    /// Which server it is.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The running server.
    #[must_use]
    pub fn server(&self) -> &PrivateServer {
        self.server.as_ref().expect("the server is stopped")
    }

    /// Its port on 127.0.0.1; another one after each start.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.server().socket()
    }

    /// Its datadir.
    #[must_use]
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// A session of `root` over the socket.
    #[must_use]
    pub fn root(&self) -> Conn {
        self.server().connect_as("root", None).unwrap()
    }

    /// How the account for backups connects, over TCP.
    #[must_use]
    pub fn backup_options(&self) -> ConnectOptions {
        let endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: self.port };
        ConnectOptions::new(endpoint, BACKUP_USER).password(BACKUP_PASSWORD.into())
    }

    /// Runs statements as `root`. One that the server picks as the victim of a deadlock (as it may while writers of a
    /// ledger run) is run again, as the server asks; not where the statements make transactions of their own.
    pub fn run(&self, statements: &[&str]) {
        let begins = |statement: &&str| {
            let head = statement.trim_start().to_ascii_uppercase();
            ["BEGIN", "START", "XA", "SET AUTOCOMMIT"].iter().any(|word| head.starts_with(word))
        };
        let mut again = if statements.iter().any(begins) { 0 } else { 50 };
        let mut conn = self.root();
        for statement in statements {
            while let Err(error) = conn.execute(statement) {
                assert!(again > 0 && matches!(error.code(), Some(1205 | 1213)), "{statement}: {error}");
                again -= 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// The same, where a statement that waits in vain for a lock is a failure of the test.
    pub fn run_once(&self, statements: &[&str]) {
        let mut conn = self.root();
        for statement in statements {
            conn.execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// Purges the binary log before this file. A server leaves files, and says nothing, as long as a reader that has
    /// gone is still noted for them, and MariaDB until it has checkpointed the newest one: so it is asked until it did.
    pub fn purge_before(&self, file: &str) {
        let mut conn = self.root();
        let oldest = |conn: &mut Conn| conn.query("SHOW BINARY LOGS").unwrap().text(0, 0).unwrap();
        for _ in 0..600 {
            conn.execute(format!("PURGE BINARY LOGS TO '{file}'")).unwrap();
            if oldest(&mut conn) == file {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server keeps {} and does not purge up to {file}", oldest(&mut conn));
    }

    /// The first value of a query of `root`.
    #[must_use]
    pub fn value(&self, query: &str) -> Option<String> {
        self.root().query_text(query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The ids of the sessions of this user (any if empty) that are at such a command (any if empty). Not from
    /// `information_schema.processlist`: asking MySQL for that fails with error 3854 while anybody's statement holds a
    /// character of four bytes.
    #[must_use]
    pub fn sessions(&self, user: &str, command: &str) -> Vec<u64> {
        let all =
            self.root().query("SHOW PROCESSLIST").unwrap_or_else(|error| panic!("SHOW PROCESSLIST: {error}"));
        let is = |row, column: &str, wanted: &str| {
            let got = all.text_by_name(row, column).unwrap_or_default().to_ascii_lowercase();
            got.starts_with(&wanted.to_ascii_lowercase())
        };
        let found = (0..all.rows.len()).filter(|row| is(*row, "User", user) && is(*row, "Command", command));
        found.map(|row| all.text_by_name(row, "Id").unwrap().parse().unwrap()).collect()
    }

    /// The GTIDs of everything that is committed: a set (MySQL) or a position (MariaDB).
    #[must_use]
    pub fn gtids(&self) -> String {
        let query = match self.engine {
            Engine::MySql => "SELECT @@GLOBAL.gtid_executed",
            Engine::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
        };
        self.value(query).unwrap_or_default().split_whitespace().collect()
    }

    /// The number of the last transaction that is committed.
    #[must_use]
    pub fn last_transaction(&self) -> u64 {
        transaction_number(&self.gtids())
    }

    /// Shuts it down cleanly.
    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Duration::from_secs(120)).unwrap();
        }
    }

    /// Kills it as a power cut of the process would.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill();
        }
    }
}

/// The number at the end of a GTID, of a set with one source in it, or of an id that `holdfast find` prints.
#[must_use]
pub fn transaction_number(id: &str) -> u64 {
    let id = id.split('@').next().unwrap_or_default();
    id.rsplit([':', '-']).next().unwrap().parse().unwrap_or_else(|error| panic!("{id}: {error}"))
}

/// The workspace's folder for templates and datadirs.
#[must_use]
pub fn scratch() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let dir = target.join("holdfast-tests");
    fs::create_dir_all(&dir).unwrap();
    dir.canonicalize().unwrap()
}

/// Copies a datadir, files as they are.
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}

/// The datadir that each test copies; made by whoever comes first.
fn template(engine: Engine) -> PathBuf {
    // Raise when what is made here changes.
    const GENERATION: u32 = 2;
    let programs = engine.programs();
    let version = programs.version.text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    let template = scratch().join(format!("template-{GENERATION}-{}-{version}", engine.flavor()));
    let lock = File::create(template.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if template.exists() {
        return template;
    }
    let fresh = template.with_extension("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).unwrap();
    }
    let log = template.with_extension("log");
    holdfast_engine::initialize(&programs, &fresh, &log).unwrap();
    let mut options = StartOptions::new(programs, &fresh);
    options.log = Some(log);
    options.timeout = Duration::from_secs(120);
    // As small as the tests' servers have it: each copies it, and would make a log of another size anew.
    options.extra_args = match engine {
        Engine::MySql => vec!["--innodb-redo-log-capacity=32M".to_owned()],
        Engine::MariaDb => vec!["--innodb-log-file-size=32M".to_owned()],
    };
    let server = PrivateServer::start(options).unwrap();
    let mut conn = server.connect().unwrap();
    for statement in template_statements(engine) {
        conn.execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    server.drop_account(&mut conn).unwrap();
    server.stop(Duration::from_secs(120)).unwrap();
    let _ = fs::remove_file(fresh.join("auto.cnf"));
    fs::rename(&fresh, &template).unwrap();
    template
}

fn template_statements(engine: Engine) -> Vec<String> {
    let mut all = vec![format!("CREATE USER '{BACKUP_USER}'@'%' IDENTIFIED BY '{BACKUP_PASSWORD}'")];
    let more: &[&str] = match engine {
        Engine::MySql => &[
            "INSTALL PLUGIN clone SONAME 'mysql_clone.so'",
            "GRANT BACKUP_ADMIN, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'backup'@'%'",
            "GRANT SELECT ON performance_schema.* TO 'backup'@'%'",
            "GRANT SELECT ON mysql.* TO 'backup'@'%'",
        ],
        Engine::MariaDb => &[
            "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR, REPLICATION SLAVE, REPLICA MONITOR, \
             CONNECTION ADMIN ON *.* TO 'backup'@'%'",
            "GRANT SELECT ON mysql.* TO 'backup'@'%'",
            // mariadb-backup logs in over the socket.
            "CREATE USER 'backup'@'localhost' IDENTIFIED BY 'only-for-Tests-1'",
            "GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR, REPLICATION SLAVE, REPLICA MONITOR, \
             CONNECTION ADMIN ON *.* TO 'backup'@'localhost'",
            "GRANT SELECT ON mysql.* TO 'backup'@'localhost'",
        ],
    };
    all.extend(more.iter().map(|&statement| statement.to_owned()));
    all
}
