//! All that a log can hold, side by side: rows with all of their columns or some, whole documents and differences of
//! them, statements, XA transactions, LOAD DATA, packed transactions and events, definitions, foreign keys that
//! follow and clear, tables without keys. What comes is drawn from a seed, in spells of some rounds each.
//!
//! Left out is what a replay that was killed can't go on from, and says so: tables without transactions and temporary
//! tables.

use std::time::{Duration, Instant};

use holdfast_mysql::Conn;

use crate::replaying::{change, definitions, prepared};
use crate::{Engine, Random, TestServer};

/// Tables beside those of [`crate::replaying::SCHEMA`].
const TABLES: [&str; 6] = [
    "CREATE TABLE app.docs (id INT PRIMARY KEY, doc JSON, more JSON, b LONGBLOB, n INT DEFAULT 7, u INT, UNIQUE KEY (u))",
    "CREATE TABLE app.loose (id INT, doc JSON, t TEXT)",
    "CREATE TABLE app.tree (n INT PRIMARY KEY, p INT, note VARCHAR(300), v INT, \
     FOREIGN KEY (p) REFERENCES app.tree (n) ON DELETE CASCADE)",
    "CREATE TABLE app.cleared (n INT PRIMARY KEY, p INT, note TEXT, FOREIGN KEY (p) REFERENCES app.tree (n) ON DELETE SET NULL)",
    "CREATE TABLE app.branch (id INT PRIMARY KEY, v INT, t TEXT, UNIQUE KEY (v))",
    "CREATE TABLE app.loaded (id INT PRIMARY KEY, n INT, t VARCHAR(60), UNIQUE KEY (n))",
];

/// How many rounds one set of session variables lasts, at most.
const SPELL_MAX: u64 = 25;

/// Errors of random statements that leave nothing in the log: collisions of keys, and what a server does not write as a
/// statement.
const LEFT_OUT: [u16; 5] = [1062, 1452, 1451, 1786, 1665];

/// Options for the source.
#[must_use]
pub fn options(engine: Engine, random: &mut Random) -> Vec<&'static str> {
    let mut all = vec!["--log-bin-trust-function-creators=ON", "--secure-file-priv="];
    let packed = random.below(2) == 0;
    match engine {
        // MySQL packs by session.
        Engine::MySql => {}
        Engine::MariaDb if packed => {
            all.extend(["--log-bin-compress=ON", "--log-bin-compress-min-len=20"]);
        }
        Engine::MariaDb => {}
    }
    if engine == Engine::MariaDb && random.below(2) == 0 {
        all.push("--binlog-alter-two-phase=ON");
    }
    if random.below(2) == 0 {
        all.push("--binlog-row-event-max-size=256");
    }
    all
}

/// Runs so many rounds of it, on a server that was started with [`options`] and has the schema of `replaying`. Every XA
/// transaction is decided at the end.
pub fn mixed(source: &TestServer, random: &mut Random, rounds: u64) {
    source.run(&TABLES);
    let file = source.datadir().join("mixed.csv");
    let lines: String = (0..40).map(|id| format!("{id},{},line {id}\n", id * 7 % 40)).collect();
    std::fs::write(&file, lines).unwrap();
    let mut work = Mixed {
        source,
        conn: source.root(),
        spell: Vec::new(),
        until: 0,
        file: file.display().to_string(),
        prepared: None,
    };
    for round in 0..rounds {
        work.round(round, random);
    }
    work.decide("XA COMMIT");
    std::fs::remove_file(&file).unwrap();
}

/// Leaves an XA transaction prepared, which must be so on the copy as well.
pub fn leave_prepared(source: &TestServer) {
    let mut conn = source.root();
    for sql in [
        "XA START 'left','behind',9",
        "INSERT INTO app.branch VALUES (900, 900, 'left')",
        "XA END 'left','behind',9",
        "XA PREPARE 'left','behind',9",
    ] {
        conn.execute(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

struct Mixed<'s> {
    source: &'s TestServer,
    conn: Conn,
    /// What the session is set to, up to this round.
    spell: Vec<String>,
    until: u64,
    /// For LOAD DATA.
    file: String,
    /// An XA transaction that is prepared; it holds rows of `branch` alone.
    prepared: Option<String>,
}

impl Mixed<'_> {
    fn run(&mut self, sql: &str) {
        run(&mut self.conn, sql);
    }

    fn round(&mut self, round: u64, random: &mut Random) {
        let mysql = self.source.engine() == Engine::MySql;
        if round >= self.until {
            self.spell = spell(mysql, random);
            self.until = round + 1 + random.below(SPELL_MAX);
            for sql in self.spell.clone() {
                self.run(&sql);
            }
        }
        match random.below(24) {
            which @ 0..14 => self.run(&change(which, round, random)),
            14 => self.documents(round, random),
            15 => self.documents(round, random),
            16 => self.tree(round, random),
            17 => self.tree(round, random),
            18 => self.transaction(round, random),
            19 | 20 => match self.prepared {
                Some(_) => self.decide(["XA COMMIT", "XA COMMIT", "XA ROLLBACK"][random.below(3) as usize]),
                None => self.branch(round, random),
            },
            21 => {
                let (n, seed) = (random.below(1000), random.below(1000));
                self.run(&format!("SET @t = 'ü{n}', @d = {n}.25e-3, @r = RAND({seed})"));
                self.run("INSERT INTO app.audit (what) VALUES (CONCAT(@t, @d)), (CONCAT(@r, ' ', RAND()))");
                self.run("INSERT INTO app.grandchild (child) SELECT MAX(id) FROM app.child");
            }
            22 => {
                let file = self.file.clone();
                let how = random.pick(&["REPLACE", "IGNORE"]);
                self.run(&format!(
                    "LOAD DATA INFILE '{file}' {how} INTO TABLE app.loaded FIELDS TERMINATED BY ',' IGNORE {} LINES (id, n, t)",
                    random.below(40)
                ));
                self.run(&format!("UPDATE app.loaded SET t = 'r{round}' WHERE id % 5 = {}", random.below(5)));
            }
            _ => definitions(round, mysql, &mut |sql| run(&mut self.conn, &sql)),
        }
    }

    /// Documents of which some is changed, blobs that stay or don't, keys that are passed on.
    fn documents(&mut self, round: u64, random: &mut Random) {
        let (n, m) = (random.below(30), random.below(30));
        let sql = match random.below(9) {
            0 | 1 => format!(
                "INSERT INTO app.docs (id, doc, b, u) VALUES ({n}, JSON_OBJECT('k', REPEAT('x', 1500), 'l', JSON_ARRAY(1, {m})), \
                 REPEAT('b', {}), {n})",
                m * 40
            ),
            2 => format!(
                "UPDATE app.docs SET doc = JSON_SET(doc, '$.new', {round}, '$.l[0]', 'two') WHERE id % 3 = {}",
                n % 3
            ),
            3 => format!("UPDATE app.docs SET doc = JSON_REMOVE(doc, '$.new'), n = n + 1 WHERE id < {n}"),
            4 => format!(
                "UPDATE app.docs SET more = '{{\"z\": [1, {{\"w\": {n}}}]}}', n = NULL WHERE id = {m}"
            ),
            5 => format!("UPDATE app.docs SET u = {} WHERE id = {m}", 100 + round),
            6 => format!("UPDATE app.docs SET id = {} WHERE id = {m}", 1000 + round),
            7 => format!("DELETE FROM app.docs WHERE id = {n}"),
            _ => {
                self.run(&format!("INSERT INTO app.loose SELECT id, doc, 't' FROM app.docs WHERE id < {n}"));
                self.run(&format!(
                    "UPDATE app.loose SET doc = JSON_SET(doc, '$.k2', {round}) WHERE id = {m}"
                ));
                format!("DELETE FROM app.loose WHERE id = {n}")
            }
        };
        self.run(&sql);
    }

    /// Rows that refer to rows of the same table, never in a circle: the server's own applier fails on those.
    fn tree(&mut self, round: u64, random: &mut Random) {
        let n = 1 + random.below(60);
        let (p, m) = (random.below(n), random.below(60));
        let sql = match random.below(6) {
            0 => format!("INSERT INTO app.tree VALUES ({n}, NULL, REPEAT('r', 200), {round})"),
            1 => format!("INSERT INTO app.tree VALUES ({n}, {p}, REPEAT('t', {m}), {round})"),
            2 => format!("INSERT INTO app.cleared VALUES ({n}, {m}, REPEAT('c', 100))"),
            3 => format!("UPDATE app.tree SET v = v + 1, note = 'n{round}' WHERE n % 4 = {}", n % 4),
            4 => format!("UPDATE app.cleared SET note = 'c{round}' WHERE p IS NULL"),
            _ => format!("DELETE FROM app.tree WHERE n = {n}"),
        };
        self.run(&sql);
    }

    /// Several changes in one transaction, with a savepoint now and then.
    fn transaction(&mut self, round: u64, random: &mut Random) {
        self.run("BEGIN");
        for number in 0..2 + random.below(6) {
            match random.below(6) {
                0 => self.documents(round * 10 + number, random),
                1 => self.tree(round, random),
                2 => {
                    self.run("SAVEPOINT s");
                    let which = random.below(14);
                    self.run(&change(which, round, random));
                    self.run("ROLLBACK TO s");
                }
                _ => {
                    let which = random.below(14);
                    self.run(&change(which, round, random));
                }
            }
        }
        self.run(if random.below(5) == 0 { "ROLLBACK" } else { "COMMIT" });
    }

    /// An XA transaction on a connection of its own.
    fn branch(&mut self, round: u64, random: &mut Random) {
        let id = format!("X'{:04x}ff27','b{round}',{}", round, 1 + round % 7);
        let mut conn = self.source.root();
        for sql in &self.spell {
            run(&mut conn, sql);
        }
        run(&mut conn, &format!("XA START {id}"));
        for _ in 0..random.below(4) {
            let (n, v) = (random.below(30), random.below(30));
            let sql = match random.below(4) {
                0 | 1 => format!("INSERT INTO app.branch VALUES ({n}, {v}, REPEAT('t', {n}))"),
                2 => format!("UPDATE app.branch SET t = 'r{round}' WHERE id <= {n}"),
                _ => format!("DELETE FROM app.branch WHERE id = {n}"),
            };
            run(&mut conn, &sql);
        }
        run(&mut conn, &format!("XA END {id}"));
        match random.below(6) {
            0 => run(&mut conn, &format!("XA COMMIT {id} ONE PHASE")),
            1 => run(&mut conn, &format!("XA ROLLBACK {id}")),
            _ => {
                run(&mut conn, &format!("XA PREPARE {id}"));
                self.prepared = Some(id);
            }
        }
    }

    /// Ends the XA transaction that is prepared; the session that prepared it may still be going. One that changed
    /// nothing goes with that session.
    fn decide(&mut self, how: &str) {
        let Some(id) = self.prepared.take() else { return };
        let (sql, until) = (format!("{how} {id}"), Instant::now() + Duration::from_secs(60));
        while let Err(error) = self.conn.execute(&sql) {
            if prepared(&mut self.conn).is_empty() {
                return;
            }
            assert!(Instant::now() < until, "{sql}: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn run(conn: &mut Conn, sql: &str) {
    if let Err(error) = conn.execute(sql)
        && !matches!(&error, holdfast_mysql::Error::Server(e) if LEFT_OUT.contains(&e.code))
    {
        panic!("{sql}: {error}");
    }
}

/// How the log is written for a while.
fn spell(mysql: bool, random: &mut Random) -> Vec<String> {
    let format = random.pick(&["ROW", "ROW", "ROW", "MIXED", "STATEMENT"]);
    let image = random.pick(&["FULL", "FULL", "MINIMAL", "NOBLOB"]);
    let mut all = vec![
        format!("SET SESSION binlog_format = {format}"),
        format!("SET SESSION binlog_row_image = {image}"),
    ];
    if mysql {
        let options = random.pick(&["", "PARTIAL_JSON"]);
        let packed = random.pick(&["ON", "OFF"]);
        all.push(format!("SET SESSION binlog_row_value_options = '{options}'"));
        all.push(format!("SET SESSION binlog_transaction_compression = {packed}"));
    }
    all
}
