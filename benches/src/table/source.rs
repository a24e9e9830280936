//! The server: equal tables of sysbench's shape, a backup, then changes of rows of every table, archived.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions, initialize};
use holdfast_mysql::{Conn, Flavor};

use super::TABLES;
use crate::rig::error::{Error, Result, at, sql};
use crate::rig::measure::to_its_end;
use crate::rows::Random;

/// The account of the backups.
const USER: &str = "backup";
/// Its password.
const PASSWORD: &str = "only-for-Benches-1";

/// Longest shutdown, and longest statement.
const LIMIT: Duration = Duration::from_secs(3600);

/// Bytes that a row takes in the table's file, indexes included, as it was measured.
const ROW_BYTES: u64 = 250;

/// Rows that one statement inserts at most, so that its undo stays small.
const CHUNK_ROWS: u64 = 250_000;

/// Rows that one transaction changes.
const CHANGED_TOGETHER: u64 = 4;

/// A protected server that is stopped.
#[derive(Debug)]
pub struct Source {
    work: PathBuf,
    holdfast: PathBuf,
    mysql: PathBuf,
    programs: Programs,
    /// Bytes of all tables' files.
    pub bytes: u64,
    /// Bytes of one.
    pub table_bytes: u64,
    /// Rows of one.
    pub rows: u64,
    /// Rows that were changed behind the backup, in all tables.
    pub changed: u64,
    /// What CHECKSUM TABLE says of each table at the end, by its number.
    pub checksums: Vec<String>,
}

/// A table's name.
#[must_use]
pub fn table(number: u32) -> String {
    format!("bench.t{number:02}")
}

impl Source {
    /// Makes it below `work`: tables of `mib` MiB each, and a change of so many rows of a thousand behind the backup.
    ///
    /// # Errors
    /// A server or `holdfast` fails; those of the file system.
    pub fn make(work: &Path, holdfast: &Path, mysql: &Path, mib: u32, changed: u32) -> Result<Self> {
        let programs = sql(Programs::find(Some(mysql), Flavor::MySql, None))?;
        let mut source = Self {
            work: work.to_path_buf(),
            holdfast: holdfast.to_path_buf(),
            mysql: mysql.to_path_buf(),
            programs,
            bytes: 0,
            table_bytes: 0,
            rows: (u64::from(mib) << 20) / ROW_BYTES,
            changed: 0,
            checksums: Vec::new(),
        };
        let live = work.join("live");
        sql(initialize(&source.programs, &live, &work.join("initialize.log")))?;
        let (server, port) = source.start(&live)?;
        let mut conn = sql(server.connect())?;
        conn.set_read_timeout(LIMIT);
        for statement in [
            "INSTALL PLUGIN clone SONAME 'mysql_clone.so'",
            &format!("CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'"),
            "GRANT BACKUP_ADMIN, REPLICATION SLAVE, REPLICATION CLIENT, SELECT ON *.* TO 'backup'@'%'",
        ] {
            sql(conn.execute(statement))?;
        }
        source.fill(&mut conn)?;
        let key = work.join("key");
        // A key file, so that no time goes into Argon2id.
        at("write", &key, std::fs::write(&key, [7; 32]))?;
        at("write", &work.join("password"), std::fs::write(work.join("password"), PASSWORD))?;
        let port = port.to_string();
        for args in [
            ["init", "--kit", "kit"].as_slice(),
            &[
                "server",
                "add",
                "bench",
                "--host",
                "127.0.0.1",
                "--port",
                &port,
                "--user",
                USER,
                "--password-file",
                "password",
            ],
        ] {
            source.holdfast(args)?;
        }
        eprintln!("backing up");
        source.holdfast(&["backup", "bench"])?;
        eprintln!("changing rows");
        source.change(&mut conn, changed)?;
        for number in 0..TABLES {
            source.checksums.push(checksum(&mut conn, number)?);
        }
        // It fetches what was logged since, so that no restore pays for that.
        source.holdfast(&["restore", "bench", "--to", "latest", "--into", "plan", "--dry-run"])?;
        drop(conn);
        sql(server.stop(LIMIT))?;
        let file = |number| live.join(format!("bench/t{number:02}.ibd"));
        let len =
            |number| at("look at", &file(number), std::fs::metadata(file(number))).map(|facts| facts.len());
        source.table_bytes = len(0)?;
        source.bytes = (0..TABLES).map(len).sum::<Result<u64>>()?;
        Ok(source)
    }

    fn start(&self, live: &Path) -> Result<(PrivateServer, u16)> {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = at("find a port for", live, port)?.port();
        let mut options = StartOptions::new(self.programs.clone(), live);
        options.purpose = "the source".to_owned();
        options.timeout = Duration::from_secs(120);
        options.listen = Listen::Loopback(port);
        options.binlog = true;
        options.extra_args = [
            "--innodb-buffer-pool-size=1G",
            "--innodb-redo-log-capacity=1G",
            "--innodb-flush-log-at-trx-commit=2",
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--log-bin=binlog",
            "--sync-binlog=0",
            "--server-id=1",
        ]
        .map(str::to_owned)
        .to_vec();
        Ok((sql(PrivateServer::start(options))?, port))
    }

    /// The first table by doubling it, the others out of it, each with values of its own.
    fn fill(&self, conn: &mut Conn) -> Result<()> {
        sql(conn.execute("SET SESSION sql_log_bin = 0"))?;
        sql(conn.execute("CREATE DATABASE bench"))?;
        // A table that is filled out of itself needs one.
        sql(conn.execute("USE bench"))?;
        for number in 0..TABLES {
            sql(conn.execute(format!(
                "CREATE TABLE {} (id INT PRIMARY KEY AUTO_INCREMENT, k INT NOT NULL, c CHAR(120) NOT NULL, \
                 pad CHAR(60) NOT NULL, KEY (k)) CHARSET = latin1",
                table(number)
            )))?;
        }
        let first = table(0);
        sql(conn.execute(format!("INSERT INTO {first} (k, c, pad) VALUES (1, 'c', 'pad')")))?;
        let mut rows = 1;
        while rows < self.rows {
            let more = rows.min(self.rows - rows).min(CHUNK_ROWS);
            sql(conn.execute(format!(
                "INSERT INTO {first} (k, c, pad) SELECT FLOOR(RAND() * 1000000), CONCAT_WS('-', LEFT(SHA2(RAND(), 256), 32), \
                 LEFT(SHA2(RAND(), 256), 32), LEFT(SHA2(RAND(), 256), 32)), LEFT(SHA2(RAND(), 256), 32) FROM {first} WHERE id <= {more} LIMIT {more}"
            )))?;
            rows += more;
        }
        let last = sql(conn.query_text(format!("SELECT MAX(id) FROM {first}")))?;
        let last: u64 = last.and_then(|text| text.parse().ok()).unwrap_or(rows);
        for number in 1..TABLES {
            eprintln!("table {} of {TABLES}, {rows} rows each", number + 1);
            let mut from = 0;
            while from < last {
                let until = from + CHUNK_ROWS;
                sql(conn.execute(format!(
                    "INSERT INTO {} (k, c, pad) SELECT (k + {number} * 7919) % 1000000, CONCAT(RIGHT(c, {number}), c), \
                     REVERSE(pad) FROM {first} WHERE id > {from} AND id <= {until} ORDER BY id",
                    table(number)
                )))?;
                from = until;
            }
        }
        sql(conn.execute("SET SESSION sql_log_bin = 1"))?;
        Ok(())
    }

    /// Changes `share` of a thousand rows of each table, all tables in turns.
    fn change(&mut self, conn: &mut Conn, share: u32) -> Result<()> {
        let last = sql(conn.query_text(format!("SELECT MAX(id) FROM {}", table(1))))?;
        let last: u64 = last.and_then(|text| text.parse().ok()).unwrap_or(self.rows);
        let turns = self.rows * u64::from(share) / 1000 / CHANGED_TOGETHER;
        let mut random = Random::new(20_261_122);
        for _ in 0..turns {
            for number in 0..TABLES {
                let from = 1 + random.below(last.saturating_sub(CHANGED_TOGETHER).max(1));
                let done = sql(conn.execute(format!(
                    "UPDATE {} SET k = k + 1, c = REVERSE(c) WHERE id BETWEEN {from} AND {}",
                    table(number),
                    from + CHANGED_TOGETHER - 1
                )))?;
                self.changed += done.affected;
            }
        }
        Ok(())
    }

    /// The server's version.
    #[must_use]
    pub fn version(&self) -> String {
        self.programs.version.to_string()
    }

    /// A command of `holdfast` on the repository, run without measuring.
    ///
    /// # Errors
    /// It fails.
    pub fn holdfast(&self, args: &[&str]) -> Result<()> {
        let mut command = self.command(args);
        match to_its_end(&mut command, &self.work.join("log")) {
            // It did its work, and says what a clone does not carry.
            Err(Error::Program { status, .. }) if status.ends_with(": 3") => Ok(()),
            done => done.map(drop),
        }
    }

    /// The same, not run yet.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.holdfast);
        command.args(args).current_dir(&self.work).env("HOME", &self.work);
        command.env("XDG_CONFIG_HOME", &self.work).env("HOLDFAST_REPO", self.work.join("repository"));
        command.env("HOLDFAST_KEY_FILE", self.work.join("key"));
        command.env("HOLDFAST_ENGINE_DIR", &self.mysql);
        command
    }

    /// Fails unless the restored server in `folder` has these tables as the source had them, and no others.
    ///
    /// # Errors
    /// `Differs` with what is different.
    pub fn must_have(&self, folder: &Path, numbers: &[u32]) -> Result<()> {
        let differs = |got: String| {
            Err(Error::Differs { tool: "holdfast".to_owned(), path: folder.to_path_buf(), got })
        };
        let server = sql(PrivateServer::start(StartOptions::new(self.programs.clone(), folder)))?;
        let mut conn = sql(server.connect())?;
        conn.set_read_timeout(LIMIT);
        let count =
            sql(conn
                .query_text("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'bench'"))?;
        if count.as_deref() != Some(&numbers.len().to_string()) {
            return differs(format!("it has {count:?} tables and not {}", numbers.len()));
        }
        for number in numbers {
            let found = checksum(&mut conn, *number)?;
            if self.checksums.get(*number as usize) != Some(&found) {
                return differs(format!("{} has the checksum {found}", table(*number)));
            }
        }
        drop(conn);
        sql(server.stop(LIMIT))
    }
}

fn checksum(conn: &mut Conn, number: u32) -> Result<String> {
    let sum = sql(conn.query(format!("CHECKSUM TABLE {}", table(number))))?;
    sum.text(0, 1).ok_or_else(|| Error::Server(format!("it gives no checksum of {}", table(number))))
}
