//! Replicas: the second oracle, which the server's own applier stops at a GTID, and one that follows its source as a
//! user's does.

use std::time::{Duration, Instant};

use crate::server::{BACKUP_PASSWORD, BACKUP_USER, Engine, TestServer};

/// Longest time for a replica to reach its stop.
const LIMIT: Duration = Duration::from_secs(300);

/// A server that began where the source began (from the template), replicated the source's whole
/// log with one worker, and stopped right after the transaction `until`. The source's binary logs
/// must all be there. For MariaDB, `until` is a GTID position.
#[must_use]
pub fn replica_until(source: &TestServer, until: &str) -> TestServer {
    let replica = TestServer::start_with(
        source.engine(),
        match source.engine() {
            Engine::MySql => &["--replica-parallel-workers=1"],
            Engine::MariaDb => &["--slave-parallel-threads=0"],
        },
    );
    name_source(&replica, source);
    match source.engine() {
        Engine::MySql => replica.run(&[&format!("START REPLICA UNTIL SQL_AFTER_GTIDS = '{until}'")]),
        Engine::MariaDb => replica.run(&[&format!("START SLAVE UNTIL master_gtid_pos = '{until}'")]),
    }
    wait_until_stopped(&replica);
    replica
}

/// A server and a replica that follows it: read-only, with a log of its own.
#[derive(Debug)]
pub struct Followed {
    /// The server.
    pub source: TestServer,
    /// The replica.
    pub replica: TestServer,
}

impl Followed {
    /// Both are as the template has them, and the replica follows from the first transaction on.
    #[must_use]
    pub fn start(engine: Engine) -> Self {
        let source = TestServer::start(engine);
        let replica = follow(&source);
        Self { source, replica }
    }

    /// Waits until the replica has executed all that the source has.
    pub fn come_up(&self) {
        come_up(&self.source, &self.replica);
    }
}

/// One more replica of a server, which follows it from its first transaction on.
#[must_use]
pub fn follow(source: &TestServer) -> TestServer {
    let engine = source.engine();
    let more: &[&str] = match engine {
        Engine::MySql => &["--read-only=ON"],
        Engine::MariaDb => &["--read-only=ON", "--log-slave-updates=ON"],
    };
    let replica = TestServer::start_with(engine, more);
    name_source(&replica, source);
    replica.run(match engine {
        Engine::MySql => &["START REPLICA"],
        Engine::MariaDb => &["START SLAVE"],
    });
    replica
}

/// Waits until the replica has executed all that the source has.
pub fn come_up(source: &TestServer, replica: &TestServer) {
    let deadline = Instant::now() + LIMIT;
    while source.gtids() != replica.gtids() {
        assert!(Instant::now() < deadline, "the replica did not come up within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Tells a server where it replicates from.
fn name_source(replica: &TestServer, source: &TestServer) {
    let port = source.port();
    replica.run(&[&match source.engine() {
        Engine::MySql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = '{BACKUP_USER}', \
             SOURCE_PASSWORD = '{BACKUP_PASSWORD}', SOURCE_SSL = 1, SOURCE_AUTO_POSITION = 1"
        ),
        Engine::MariaDb => format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = '{BACKUP_USER}', \
             MASTER_PASSWORD = '{BACKUP_PASSWORD}', MASTER_USE_GTID = slave_pos"
        ),
    }]);
}

fn wait_until_stopped(replica: &TestServer) {
    let mut conn = replica.root();
    let (query, running, error, io_error) = match replica.engine() {
        Engine::MySql => ("SHOW REPLICA STATUS", "Replica_SQL_Running", "Last_SQL_Error", "Last_IO_Error"),
        Engine::MariaDb => ("SHOW SLAVE STATUS", "Slave_SQL_Running", "Last_SQL_Error", "Last_IO_Error"),
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        let status = conn.query(query).unwrap();
        let text = |column: &str| status.text_by_name(0, column).unwrap_or_default();
        assert!(text(error).is_empty(), "the replica's applier: {}", text(error));
        assert!(text(io_error).is_empty(), "the replica's receiver: {}", text(io_error));
        if text(running) == "No" {
            return;
        }
        assert!(Instant::now() < deadline, "the replica did not stop within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
