//! The bed of replay tests: a base, a source that went on from it, and workloads of every kind.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_mysql::Conn;
use holdfast_replay::log::MemoryLog;
use holdfast_replay::serial::{Options, Progress, server_args};

use crate::replica::replica_until;
use crate::{Engine, Random, ServerState, TestServer, differences};

/// Tables of every kind that serial replay claims.
pub const SCHEMA: &[&str] = &[
    "CREATE DATABASE app",
    "CREATE TABLE app.parent (id INT PRIMARY KEY, name VARCHAR(40), UNIQUE KEY (name))",
    "CREATE TABLE app.child (id INT AUTO_INCREMENT PRIMARY KEY, parent INT, note VARCHAR(40), \
     FOREIGN KEY (parent) REFERENCES app.parent (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE app.grandchild (id INT AUTO_INCREMENT PRIMARY KEY, child INT, \
     FOREIGN KEY (child) REFERENCES app.child (id) ON DELETE SET NULL)",
    "CREATE TABLE app.audit (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(80))",
    "CREATE TRIGGER app.parent_audit AFTER UPDATE ON app.parent FOR EACH ROW \
     INSERT INTO app.audit (what) VALUES (CONCAT(OLD.name, '>', NEW.name))",
    "CREATE TABLE app.types (id INT AUTO_INCREMENT PRIMARY KEY, n INT, d DECIMAL(20,6), f FLOAT, g DOUBLE, t TIME(3), \
     dt DATETIME(6), ts TIMESTAMP(2) NULL, y YEAR, e ENUM('a','b'), s SET('x','y'), bits BIT(9), j JSON, b BLOB, \
     l LONGTEXT, twice INT GENERATED ALWAYS AS (n * 2) STORED, thrice INT GENERATED ALWAYS AS (n * 3) VIRTUAL, \
     KEY (thrice))",
    "CREATE TABLE app.nopk (a INT, b VARCHAR(20))",
    "CREATE TABLE app.pair (a VARCHAR(10), b BIGINT, v INT, PRIMARY KEY (b, a))",
];

/// A base and the source that went on from it.
#[derive(Debug)]
pub struct Bed {
    /// The source.
    pub source: TestServer,
    base_dir: tempfile::TempDir,
    /// What the base holds.
    pub base: GtidSet,
    /// The source's log since.
    pub log: MemoryLog,
}

/// The family of GTIDs.
pub fn flavor(engine: Engine) -> Flavor {
    match engine {
        Engine::MySql => Flavor::MySql,
        Engine::MariaDb => Flavor::MariaDb,
    }
}

impl Bed {
    /// Starts a source, runs `before`, copies its folder while it is stopped, runs `after`,
    /// and takes the log of the latter.
    pub fn make(engine: Engine, options: &[&str], before: &[&str], after: impl FnOnce(&TestServer)) -> Self {
        let mut source = TestServer::start_with(engine, options);
        source.run(before);
        let base = GtidSet::parse(flavor(engine), &source.gtids()).unwrap();
        source.stop();
        let base_dir =
            tempfile::Builder::new().prefix("holdfast-replay-").tempdir_in(crate::server::scratch()).unwrap();
        crate::server::copy(source.datadir(), &base_dir.path().join("base"));
        let old = binlogs(source.datadir());
        source.start_again();
        after(&source);
        source.run(&["FLUSH BINARY LOGS"]);
        let mut log = MemoryLog::default();
        let new = binlogs(source.datadir());
        for name in new.iter().take(new.len() - 1).filter(|name| !old.contains(name)) {
            log.push(name, std::fs::read(source.datadir().join(name)).unwrap());
        }
        Self { source, base_dir, base, log }
    }

    /// Options for a replay.
    pub fn options(&self) -> Options {
        Options { plan: "test".to_owned(), boot_id: "boot".to_owned(), base: self.base.clone(), done: 0 }
    }

    /// A fresh copy of the base.
    pub fn copy(&self, name: &str) -> std::path::PathBuf {
        let to = self.base_dir.path().join(name);
        crate::server::copy(&self.base_dir.path().join("base"), &to);
        let _ = std::fs::remove_file(to.join("auto.cnf"));
        to
    }

    /// Starts a private server on a copy.
    pub fn start(&self, dir: &Path) -> PrivateServer {
        let mut options = StartOptions::new(self.source.engine().programs(), dir);
        options.timeout = Duration::from_secs(120);
        options.extra_args = server_args(flavor(self.source.engine()));
        options.extra_args.push("--innodb-buffer-pool-size=64M".to_owned());
        if self.source.engine() == Engine::MySql {
            options.extra_args.push("--innodb-redo-log-capacity=32M".to_owned());
        } else {
            options.extra_args.push("--innodb-log-file-size=32M".to_owned());
        }
        PrivateServer::start(options).unwrap()
    }

    /// Compares a replayed server with the source.
    pub fn compare(&self, server: &PrivateServer, what: &str) {
        self.compare_with(&mut server.connect().unwrap(), what, |state| state);
    }

    /// Compares the source with a replica that was given its whole log.
    pub fn compare_with_a_replica(&self, what: &str) {
        let replica = replica_until(&self.source, &self.source.gtids());
        let what = format!("{what}: a replica");
        self.compare_with(&mut replica.root(), &what, ServerState::as_on_a_replica);
    }

    fn compare_with(&self, server: &mut Conn, what: &str, of: fn(ServerState) -> ServerState) {
        let mut expected = of(ServerState::read(&mut self.source.root()).unwrap());
        let mut found = of(ServerState::read(server).unwrap());
        // What a failed or rolled-back statement took from a counter is in no log.
        for table in expected.tables.values_mut().chain(found.tables.values_mut()) {
            table.counter = None;
        }
        let different = differences(&expected, &found);
        assert!(different.is_empty(), "{what}:\n{}", different.join("\n"));
        let expected = prepared(&mut self.source.root());
        assert_eq!(prepared(server), expected, "{what}: prepared XA transactions");
    }
}

/// The prepared XA transactions of a server.
#[must_use]
pub fn prepared(conn: &mut Conn) -> Vec<Vec<Option<String>>> {
    let found = conn.query("XA RECOVER").unwrap();
    let row = |row| (0..4).map(|column| found.text(row, column)).collect();
    let mut rows: Vec<_> = (0..found.rows.len()).map(row).collect();
    rows.sort();
    rows
}

/// The names of the binlog files in a folder, in order.
#[must_use]
pub fn binlogs(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|n| n.starts_with("binlog.") && n[7..].bytes().all(|b| b.is_ascii_digit())).collect();
    names.sort();
    names
}

/// Never stops.
pub fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Random transactions on the schema, with definitions and accounts in between.
pub fn workload(server: &TestServer, random: &mut Random, rounds: u64) {
    let mut conn = server.root();
    let mysql = server.engine() == Engine::MySql;
    for round in 0..rounds {
        match random.below(16) {
            which @ 0..14 => run(&mut conn, &change(which, round, random)),
            14 => {
                run(&mut conn, "BEGIN");
                run(&mut conn, &format!("INSERT INTO app.audit (what) VALUES ('kept {round}')"));
                run(&mut conn, "SAVEPOINT s");
                run(&mut conn, "INSERT INTO app.audit (what) VALUES ('dropped')");
                run(&mut conn, "ROLLBACK TO s");
                run(&mut conn, &format!("INSERT INTO app.pair VALUES ('s', {}, 1)", 1000 + round));
                run(&mut conn, "COMMIT");
            }
            _ => definitions(round, mysql, &mut |sql| run(&mut conn, &sql)),
        }
    }
}

/// Errors of random changes, which collide with keys now and then: what failed is not in the log.
const COLLISIONS: [u16; 3] = [1062, 1452, 1451];

/// Runs a statement that may collide with a key.
pub(crate) fn run(conn: &mut Conn, sql: &str) {
    if let Err(error) = conn.execute(sql)
        && !matches!(&error, holdfast_mysql::Error::Server(e) if COLLISIONS.contains(&e.code))
    {
        panic!("{sql}: {error}");
    }
}

/// A change of rows of the schema, of fourteen kinds. It does the same wherever it runs on the same rows: what is
/// limited is sorted.
pub(crate) fn change(which: u64, round: u64, random: &mut Random) -> String {
    let n = random.below(40);
    let m = random.below(40);
    match which {
        0 => format!("INSERT INTO app.parent VALUES ({n}, 'p{n}-{round}')"),
        1 => format!("INSERT INTO app.child (parent, note) VALUES ({n}, 'c{round}'), ({m}, NULL)"),
        2 => {
            format!("UPDATE app.parent SET name = CONCAT('u', {round}, '-', id) WHERE id BETWEEN {n} AND {m}")
        }
        3 => format!("DELETE FROM app.parent WHERE id = {n}"),
        4 => format!("UPDATE app.parent SET id = {} WHERE id = {n}", 100 + round),
        5 => "INSERT INTO app.grandchild (child) SELECT id FROM app.child ORDER BY id LIMIT 3".to_owned(),
        6 => format!("DELETE FROM app.child WHERE id % 7 = {}", n % 7),
        7 => format!(
            "INSERT INTO app.types (n, d, f, g, t, dt, ts, y, e, s, bits, j, b, l) VALUES ({n}, -{m}.5, 1e-{n}, {n}.1, \
             '-{m}:00:00.5', NOW(6), NOW(2), 19{:02}, 'b', 'x,y', b'10101', '{{\"a\": [{n}, \"ü\"]}}', \
             UNHEX(REPEAT('00FF', {n})), REPEAT('läng', {}))",
            m + 10,
            m * 50
        ),
        8 => format!("UPDATE app.types SET n = {m}, j = JSON_SET(j, '$.b', {n}) WHERE n = {n}"),
        9 => format!("DELETE FROM app.types WHERE n = {n}"),
        10 => format!("INSERT INTO app.nopk VALUES ({n}, 'x'), ({n}, 'x'), ({m}, NULL)"),
        11 => format!("UPDATE app.nopk SET b = 'y{round}' WHERE a = {n} ORDER BY a, b LIMIT 1"),
        12 => format!("DELETE FROM app.nopk WHERE a = {m} ORDER BY a, b LIMIT 2"),
        _ => format!(
            "INSERT INTO app.pair VALUES ('k{n}', {m}, {round}) ON DUPLICATE KEY UPDATE v = v + 1, a = CONCAT('z', {round})"
        ),
    }
}

/// One of the statements that commit by themselves.
pub(crate) fn definitions(round: u64, mysql: bool, run: &mut dyn FnMut(String)) {
    match round % 12 {
        0 => {
            run(format!("CREATE TABLE app.extra{round} (id INT PRIMARY KEY, v INT)"));
            run(format!("INSERT INTO app.extra{round} VALUES (1, 1), (2, 2)"));
            run(format!("ALTER TABLE app.extra{round} ADD COLUMN w VARCHAR(10) DEFAULT 'w', ADD KEY (v)"));
            run(format!("RENAME TABLE app.extra{round} TO app.other{round}"));
            run(format!("INSERT INTO app.other{round} VALUES (3, 3, 'x')"));
        }
        1 => run(format!("CREATE TABLE app.ctas{round} AS SELECT * FROM app.pair")),
        2 => {
            run(format!("CREATE USER 'u{round}'@'%' IDENTIFIED BY 'Secret-{round}'"));
            run(format!("GRANT SELECT, INSERT ON app.* TO 'u{round}'@'%'"));
            run(format!("CREATE ROLE r{round}"));
            run(format!("GRANT r{round} TO 'u{round}'@'%'"));
        }
        3 => {
            run(format!("CREATE USER 'gone{round}'@'localhost'"));
            run(format!("REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'gone{round}'@'localhost'"));
            run(format!("DROP USER 'gone{round}'@'localhost'"));
        }
        4 => run("TRUNCATE TABLE app.audit".to_owned()),
        5 => {
            run(format!("CREATE PROCEDURE app.proc{round}(x INT) BEGIN SELECT x; SELECT 'ü;'; END"));
            run(format!("CREATE VIEW app.view{round} AS SELECT id, name FROM app.parent"));
            run(format!("CREATE FUNCTION app.fun{round}() RETURNS INT DETERMINISTIC RETURN 4"));
            run(format!(
                "CREATE EVENT app.event{round} ON SCHEDULE EVERY 1 YEAR STARTS '2030-01-01' DO SELECT 1"
            ));
        }
        6 => {
            run(format!("CREATE DATABASE db{round} CHARACTER SET latin1"));
            run(format!("CREATE TABLE db{round}.t (a VARCHAR(10) DEFAULT 'ä') COMMENT 'ß'"));
            run(format!("INSERT INTO db{round}.t VALUES ('ö')"));
        }
        7 => {
            run(format!("CREATE DATABASE drop{round}"));
            run(format!("CREATE TABLE drop{round}.t (a INT)"));
            run(format!("DROP DATABASE drop{round}"));
        }
        8 => {
            run("SET SESSION sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', time_zone = '+05:00'".to_owned());
            run(format!(
                "CREATE TABLE app.\"quoted {round}\" (ts TIMESTAMP DEFAULT '2020-01-01 00:00:00', b CHAR(2) DEFAULT '\\n')"
            ));
            run("SET SESSION sql_mode = DEFAULT, time_zone = DEFAULT".to_owned());
        }
        9 => run(format!("CREATE INDEX i{round} ON app.nopk (a)")),
        10 => {
            run("SET SESSION foreign_key_checks = 0".to_owned());
            run(format!("INSERT INTO app.child (parent) VALUES ({})", 5000 + round));
            run("DELETE FROM app.parent WHERE id = 3".to_owned());
            run("SET SESSION foreign_key_checks = 1".to_owned());
        }
        _ if mysql => run("ANALYZE TABLE app.parent".to_owned()),
        _ => {
            run(format!("CREATE SEQUENCE app.seq{round} START WITH 10 CACHE 5"));
            run(format!("SELECT NEXTVAL(app.seq{round})"));
        }
    }
}

/// What the random workload leaves out, one of each.
pub fn rarities(source: &TestServer) {
    let mysql = source.engine() == Engine::MySql;
    source.run(&[
        "CREATE USER 'maker'@'localhost' IDENTIFIED BY 'Secret-1'",
        "GRANT CREATE ROUTINE, CREATE VIEW, SELECT ON app.* TO 'maker'@'localhost'",
        "CREATE TABLE app.aria (a INT, b VARCHAR(10)) ENGINE=MyISAM",
        "INSERT INTO app.aria VALUES (1, 'x'), (2, 'y')",
        "UPDATE app.aria SET b = 'z' WHERE a = 1",
        "CREATE TABLE app.parts (a INT PRIMARY KEY, b INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10), \
         PARTITION p1 VALUES LESS THAN MAXVALUE)",
        "INSERT INTO app.parts VALUES (1, 1), (11, 11)",
        "ALTER TABLE app.parts DROP PARTITION p0",
        "UPDATE app.parts SET b = 12",
        "CREATE USER 'direct'@'%'",
        // The table itself: MariaDB's other one is a view of it.
        &format!(
            "UPDATE mysql.{} SET user = 'written' WHERE user = 'direct'",
            if mysql { "user" } else { "global_priv" }
        ),
        "FLUSH PRIVILEGES",
        "GRANT SELECT ON app.* TO 'written'@'%'",
    ]);
    let password = Some(holdfast_mysql::Secret::new(b"Secret-1".to_vec()));
    let mut maker = source.server().connect_as("maker", password).unwrap();
    maker.execute("USE app").unwrap();
    maker.execute("CREATE PROCEDURE made() SELECT 1").unwrap();
    maker.execute("CREATE FUNCTION app.made_too() RETURNS INT DETERMINISTIC RETURN 1").unwrap();
    maker.execute("CREATE VIEW seen AS SELECT id FROM parent").unwrap();
    let mut conn = source.root();
    let mut run = |sql: &str| {
        conn.execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    run("USE app");
    if mysql {
        run("SET SESSION default_collation_for_utf8mb4 = utf8mb4_general_ci");
        run("CREATE TABLE collated (a VARCHAR(10) CHARACTER SET utf8mb4)");
        run(
            "CREATE TABLE functional (a INT, j JSON, UNIQUE KEY ((a + 1)), KEY ((CAST(j->'$.x' AS UNSIGNED ARRAY))))",
        );
        run("INSERT INTO functional VALUES (1, '{\"x\": [1, 2]}'), (2, NULL)");
        run("SET SESSION gtid_next = 'AUTOMATIC:tagged'");
        run("INSERT INTO parent VALUES (900, 'tagged')");
        run("SET SESSION gtid_next = 'AUTOMATIC'");
        run("SET SESSION sql_generate_invisible_primary_key = ON");
        run("CREATE TABLE hidden_key (a INT)");
        run("INSERT INTO hidden_key VALUES (5), (6)");
        // A rewritten statement is logged in UTF-8 under the name of the session's own character set.
        run("SET SESSION sql_generate_invisible_primary_key = OFF");
    } else {
        run("CREATE TABLE versioned (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING");
        run("INSERT INTO versioned VALUES (1, 1), (2, 2)");
        run("UPDATE versioned SET b = 3");
        run("DELETE FROM versioned WHERE a = 2");
        run("CREATE SEQUENCE seq START WITH 5");
        run("SELECT NEXTVAL(seq)");
        run("SELECT SETVAL(seq, 50)");
        run("ALTER SEQUENCE seq RESTART 70");
        run("CREATE OR REPLACE TABLE replaced (a INT) SELECT 1 AS a");
        run("CREATE TABLE compressed (a INT PRIMARY KEY, b BLOB COMPRESSED, u UUID, i INET6)");
        run("INSERT INTO compressed VALUES (1, REPEAT('x', 500), UUID(), '::1')");
        run("SET SESSION check_constraint_checks = 0, gtid_domain_id = 9");
        run("CREATE TABLE checked (a INT CHECK (a > 0))");
        run("INSERT INTO checked VALUES (-1)");
        run("SET SESSION gtid_domain_id = 7");
    }
    run("SET NAMES latin1");
    run("SET SESSION auto_increment_increment = 5, auto_increment_offset = 3, lc_time_names = 'de_DE'");
    run("CREATE TABLE latin (a VARCHAR(10) DEFAULT '\u{fc}', at TIMESTAMP NOT NULL DEFAULT NOW())");
    run("INSERT INTO child (parent) VALUES (NULL), (NULL)");
    run("ALTER TABLE child ADD COLUMN at DATETIME(6) DEFAULT NOW(6)");
}
