//! The session of the running server that writes the copy and compares.

use super::Refused;
use holdfast_mysql::Conn;

/// Sets the session up. `no_binlog`: nothing of it is logged.
pub(super) fn set_up(conn: &mut Conn, no_binlog: bool) -> Refused<()> {
    for statement in [
        "SET NAMES utf8mb4",
        "SET SESSION character_set_results = NULL, time_zone = '+00:00', unique_checks = 0, foreign_key_checks = 0",
        "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_DIR_IN_CREATE', net_write_timeout = 86400",
        "SET SESSION wait_timeout = 86400",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ] {
        conn.execute(statement)?;
    }
    if no_binlog {
        conn.execute("SET SESSION sql_log_bin = 0")?;
    } else if conn.query_text("SELECT @@SESSION.binlog_format")?.as_deref() != Some("ROW") {
        // Text would say something else to a server with other settings.
        conn.execute("SET SESSION binlog_format = 'ROW'")?;
    }
    // Each asks for a right of its own on some versions; without them, a table that needs one is refused by name.
    let more: &[&str] = match conn.server().is_mariadb() {
        true => &[
            "check_constraint_checks = 0",
            "innodb_strict_mode = OFF",
            "idle_transaction_timeout = 0",
            "max_statement_time = 0",
        ],
        false => &[
            "sql_generate_invisible_primary_key = OFF",
            "innodb_strict_mode = OFF",
            "max_execution_time = 0",
            "information_schema_stats_expiry = 0",
            "show_gipk_in_create_table_and_information_schema = ON",
        ],
    };
    for setting in more {
        match conn.execute(format!("SET SESSION {setting}")) {
            Err(error @ holdfast_mysql::Error::Server(_)) => drop(error),
            other => other.map(drop)?,
        }
    }
    Ok(())
}
