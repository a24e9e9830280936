//! What a host is asked before it may stand for the server, and what is refused.

use crate::catalogue::sentence;
use crate::error::{Error, Result};
use crate::progress::Watcher;
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_mysql::{Conn, ConnectOptions, ResultSet};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

pub(super) fn connected(options: &ConnectOptions, who: &str) -> Result<Conn> {
    let mut conn = Conn::connect(options)
        .map_err(|error| Error::failed(sentence(&format!("{who} can't be used: {error}"))))?;
    conn.set_read_timeout(ANSWER_MAX);
    Ok(conn)
}

fn asked(conn: &mut Conn, question: &str) -> Result<ResultSet> {
    conn.query(question)
        .map_err(|error| Error::failed(format!("{question}: {}", sentence(&error.to_string()))))
}

fn variables(conn: &mut Conn) -> Result<BTreeMap<String, String>> {
    let rows = asked(
        conn,
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('gtid_mode', 'innodb_data_file_path', 'innodb_page_size', \
         'log_bin', 'lower_case_table_names', 'read_only', 'replica_parallel_workers', \
         'replica_preserve_commit_order', 'replica_exec_mode', 'replica_skip_errors', 'server_uuid', 'slave_exec_mode', \
         'slave_parallel_workers', 'slave_preserve_commit_order', 'slave_skip_errors')",
    )?;
    let row = |row| Some((rows.text(row, 0)?.to_ascii_lowercase(), rows.text(row, 1)?));
    Ok((0..rows.rows.len()).filter_map(row).collect())
}

/// Whether what is copied there could be the server's: one series, files of one kind, GTIDs on both. Gives its own UUID.
pub(super) fn alike(ours: &mut Conn, theirs: &mut Conn, source_uuid: Uuid) -> Result<Uuid> {
    let refused = |why: String| Err(Error::failed(why));
    let (own, its) = (ours.server().clone(), theirs.server().clone());
    let series = |(major, minor, _): (u16, u16, u16)| (major, minor);
    if its.is_mariadb() || series(own.numbers()) != series(its.numbers()) {
        return refused(format!("It is a {its}, and the server a {own}."));
    }
    let (own, its) = (variables(ours)?, variables(theirs)?);
    let of = |all: &BTreeMap<String, String>, name: &str| all.get(name).cloned().unwrap_or_default();
    let uuid = |all| of(all, "server_uuid").parse::<Uuid>().ok();
    if uuid(&own) != Some(source_uuid) {
        return refused("Another server than the known one answers as the server itself.".to_owned());
    }
    let Some(its_uuid) = uuid(&its) else { return refused("It does not say which server it is.".to_owned()) };
    if its_uuid == source_uuid {
        return refused("It is the server itself, and no replica of it.".to_owned());
    }
    if let Some(why) = drifts(&its) {
        return refused(why);
    }
    for name in ["innodb_data_file_path", "innodb_page_size", "lower_case_table_names"] {
        if of(&own, name) != of(&its, name) {
            return refused(format!(
                "Its {name} is '{}', and the server's is '{}'.",
                of(&its, name),
                of(&own, name)
            ));
        }
    }
    for (whose, all) in [("Its", &its), ("The server's", &own)] {
        if of(all, "gtid_mode") != "ON" {
            return refused(format!(
                "{whose} gtid_mode is '{}': only GTIDs tell where a replica's copy stands in the server's log.",
                of(all, "gtid_mode")
            ));
        }
    }
    if of(&its, "log_bin") != "ON" {
        return refused("Its binary log is off.".to_owned());
    }
    if of(&its, "read_only") != "ON" {
        return refused("It takes writes of its own (read_only is off).".to_owned());
    }
    let either = |new: &str, old: &str| its.get(new).or_else(|| its.get(old)).cloned().unwrap_or_default();
    let workers = either("replica_parallel_workers", "slave_parallel_workers");
    let ordered = either("replica_preserve_commit_order", "slave_preserve_commit_order");
    if workers.parse().unwrap_or(2_u32) > 1 && ordered != "ON" {
        return refused(format!(
            "Its {workers} workers may commit in another order than the server did (replica_preserve_commit_order is off)."
        ));
    }
    let renamed = ours.server().numbers() >= (8, 2, 0);
    let status = asked(ours, if renamed { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" })?;
    for name in ["Binlog_Do_DB", "Binlog_Ignore_DB"] {
        if let Some(names) = status.text_by_name(0, name).filter(|names| !names.is_empty()) {
            return refused(format!(
                "The server does not log all databases ({name} is '{names}'), so no replica has them."
            ));
        }
    }
    Ok(its_uuid)
}

/// Why a replica with these settings may go on although rows of it are not the server's, if so: its GTIDs say nothing of that.
fn drifts(its: &BTreeMap<String, String>) -> Option<String> {
    let settings = [
        ("replica_skip_errors", ["OFF", ""]),
        ("slave_skip_errors", ["OFF", ""]),
        ("replica_exec_mode", ["STRICT", "STRICT"]),
        ("slave_exec_mode", ["STRICT", "STRICT"]),
    ];
    settings.into_iter().find_map(|(name, right)| {
        let value =
            its.get(name).filter(|value| !right.iter().any(|right| value.eq_ignore_ascii_case(right)))?;
        Some(format!("It passes over errors ({name} is '{value}'), so rows of it may not be the server's."))
    })
}

/// Whether it replicates from this server and no other one, everything, and without much delay.
pub(super) fn replicates(conn: &mut Conn, source_uuid: Uuid, max_lag: Duration) -> Result<()> {
    let refused = |why: String| Err(Error::failed(why));
    let renamed = conn.server().numbers() >= (8, 0, 22);
    let status = asked(conn, if renamed { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" })?;
    let of = |new: &str, old: &str| {
        let text = status.text_by_name(0, new).or_else(|| status.text_by_name(0, old));
        text.unwrap_or_default()
    };
    match status.rows.len() {
        0 => return refused("It is no replica.".to_owned()),
        1 => {}
        more => return refused(format!("It replicates from {more} servers.")),
    }
    let uuid = of("Source_UUID", "Master_UUID");
    if uuid.parse::<Uuid>().ok() != Some(source_uuid) {
        return refused(format!("It is a replica of another server ({uuid}), not of {source_uuid}."));
    }
    for (what, running, error) in [
        ("receives nothing", of("Replica_IO_Running", "Slave_IO_Running"), "Last_IO_Error"),
        ("applies nothing", of("Replica_SQL_Running", "Slave_SQL_Running"), "Last_SQL_Error"),
    ] {
        if running != "Yes" {
            return refused(sentence(&format!("It {what}: {running} {}", of(error, error))));
        }
    }
    for filter in ["Do_DB", "Ignore_DB", "Do_Table", "Ignore_Table", "Wild_Do_Table", "Wild_Ignore_Table"] {
        let name = format!("Replicate_{filter}");
        let names = of(&name, &name);
        if !names.is_empty() {
            return refused(format!("It does not replicate everything ({name} is '{names}')."));
        }
    }
    let rewritten = of("Replicate_Rewrite_DB", "Replicate_Rewrite_DB");
    if !rewritten.is_empty() {
        return refused(format!("It gives databases other names (Replicate_Rewrite_DB is '{rewritten}')."));
    }
    no_keys_of_its_own(conn)?;
    match of("Seconds_Behind_Source", "Seconds_Behind_Master").parse::<u64>() {
        Ok(seconds) if seconds > max_lag.as_secs() => {
            refused(format!("It is {seconds} s behind, more than {} s.", max_lag.as_secs()))
        }
        _ => Ok(()),
    }
}

/// A replica that makes primary keys of its own accord (since 8.0.32) has a column in its tables that the server's lack.
fn no_keys_of_its_own(conn: &mut Conn) -> Result<()> {
    const TABLE: &str = "performance_schema.replication_applier_configuration";
    if conn.server().numbers() < (8, 0, 32) {
        return Ok(());
    }
    let asked = asked(conn, &format!("SELECT REQUIRE_TABLE_PRIMARY_KEY_CHECK FROM {TABLE}"));
    let rows = asked.map_err(|error| {
        Error::failed(format!(
            "Whether it makes keys of its own accord can't be asked (the account needs SELECT on {TABLE}): {}",
            error.message
        ))
    })?;
    let values: Vec<String> = (0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect();
    if values.is_empty() {
        return Err(Error::failed(format!(
            "It does not tell whether it makes keys of its own accord: {TABLE} is empty."
        )));
    }
    if values.iter().any(|value| value == "GENERATE") {
        return Err(Error::failed(
            "It makes primary keys of its own accord (REQUIRE_TABLE_PRIMARY_KEY_CHECK is 'GENERATE'), so its tables may have a \
             column that the server's lack.",
        ));
    }
    Ok(())
}

/// Waits until it has executed `wanted`, a second at a time, so that the wish to stop is heeded.
pub(super) fn reach(
    conn: &mut Conn,
    wanted: &GtidSet,
    max_lag: Duration,
    watcher: &dyn Watcher,
) -> Result<()> {
    for _ in 0..max_lag.as_secs().max(1) {
        let answer = asked(conn, &format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{wanted}', 1)"))?;
        if answer.text(0, 0).as_deref() == Some("0") {
            return Ok(());
        }
        if watcher.cancelled() {
            break;
        }
    }
    Err(Error::failed(format!(
        "It did not come up to what the server had executed within {} s.",
        max_lag.as_secs().max(1)
    )))
}

pub(super) fn executed(conn: &mut Conn) -> Result<GtidSet> {
    let text = asked(conn, "SELECT @@GLOBAL.gtid_executed")?.text(0, 0).unwrap_or_default();
    let text: String = text.split_whitespace().collect();
    GtidSet::parse(Flavor::MySql, &text)
        .map_err(|error| Error::failed(format!("The GTIDs '{text}' can't be read: {error}.")))
}

pub(super) fn nothing_of_its_own(its: &GtidSet, ours: &GtidSet) -> Result<()> {
    let mut own = its.clone();
    // Of one family, as was asked.
    let _ = own.subtract(ours);
    if own.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("It has transactions that the server does not have: {own}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_passes_over_errors_is_not_the_servers_data() {
        let of = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for (name, value, drifting) in [
            ("replica_skip_errors", "OFF", false),
            ("replica_skip_errors", "", false),
            ("replica_skip_errors", "1032,1062", true),
            ("slave_skip_errors", "ddl_exist_errors", true),
            ("replica_exec_mode", "STRICT", false),
            ("slave_exec_mode", "IDEMPOTENT", true),
        ] {
            assert_eq!(drifts(&of(name, value)).is_some(), drifting, "{name} {value}");
        }
        assert_eq!(drifts(&BTreeMap::new()), None);
    }
}
