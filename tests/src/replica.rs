//! The second oracle: a replica that the server's own applier stops at a GTID.

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
    let port = source.port();
    let account = format!("'{BACKUP_USER}'");
    match source.engine() {
        Engine::MySql => replica.run(&[
            &format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                 SOURCE_USER = {account}, SOURCE_PASSWORD = '{BACKUP_PASSWORD}', SOURCE_SSL = 1, \
                 SOURCE_AUTO_POSITION = 1"
            ),
            &format!("START REPLICA UNTIL SQL_AFTER_GTIDS = '{until}'"),
        ]),
        Engine::MariaDb => replica.run(&[
            &format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = {account}, \
                 MASTER_PASSWORD = '{BACKUP_PASSWORD}', MASTER_USE_GTID = slave_pos"
            ),
            &format!("START SLAVE UNTIL master_gtid_pos = '{until}'"),
        ]),
    }
    wait_until_stopped(&replica);
    replica
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
