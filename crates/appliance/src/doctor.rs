//! What a server lacks for protection, each with the line that mends it.
//!
//! Privileges are read from `SHOW GRANTS`, not from information_schema: managed servers
//! hide rows there.

use crate::catalogue::Catalogue;
use crate::error::Result as UserResult;
use crate::login::{connect, connect_options};
use holdfast_format::record::ServerKind;
use holdfast_mysql::{Conn, ConnectOptions, PublicKey, TlsMode};
use serde::Serialize;

mod engines;

/// Examines the server called `name`.
///
/// # Errors
/// When there is no such server, or it lets nobody in.
pub fn doctor(catalogue: &Catalogue, name: &str) -> UserResult<Vec<Finding>> {
    let server = catalogue.server(name)?;
    if let ServerKind::Folder { path } = &server.kind {
        return Ok(vec![folder(path)]);
    }
    let login = catalogue.login(&server)?;
    let options = connect_options(&catalogue.environment, &server, login.as_ref())?;
    let mut conn = connect(&options, name)?;
    let version = conn.server().clone();
    let family = if version.is_mariadb() { Family::MariaDb } else { Family::MySql };
    let mut findings = vec![ok("version", version.text.clone())];
    findings.extend(examine(&mut conn, family, version.numbers()));
    if matches!(server.kind, ServerKind::Network { socket: None, .. }) {
        findings.push(encryption(conn.is_tls(), &options));
    }
    Ok(findings)
}

/// How a connection that leaves this machine is protected.
fn encryption(tls: bool, options: &ConnectOptions) -> Finding {
    const PROBE: &str = "tls";
    if !tls {
        let key = match options.public_key {
            PublicKey::AsSent => {
                ", and the password goes under whatever key comes: whoever sits between can read it"
            }
            _ => "",
        };
        return bad(
            PROBE,
            Grade::Warning,
            format!("the connection is not encrypted{key}"),
            "give the server a certificate, then add it again with --tls required".to_string(),
        );
    }
    match options.tls.mode {
        TlsMode::VerifyCa | TlsMode::VerifyIdentity => ok(PROBE, "encrypted, and the certificate is checked"),
        _ => ok(PROBE, "encrypted; nobody's certificate is checked (--tls verify-ca with --tls-ca does)"),
    }
}

fn folder(path: &str) -> Finding {
    match std::fs::read_dir(path) {
        Ok(_) => ok("folder", format!("{path} can be read")),
        Err(error) => bad("folder", Grade::Failed, format!("{path} can't be read: {error}"), None),
    }
}

impl Sql for Conn {
    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let set = self.query(sql).map_err(|error| error.to_string())?;
        let columns = set.columns.len();
        Ok((0..set.rows.len())
            .map(|row| (0..columns).map(|column| set.text(row, column)).collect())
            .collect())
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Protection works; something about it is weaker than it could be.
    Warning,
    /// Backups or the archive can't work until this is mended.
    Failed,
}

/// One probe of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short stable name, for scripts.
    pub probe: &'static str,
    /// How it ended.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// The exact statement or setting that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// The server's answers that the probes need: a text-protocol query.
pub trait Sql {
    /// Rows of `sql`, each column as text; `None` for NULL.
    ///
    /// # Errors
    /// The server's own message.
    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String>;
}

/// Which family the server belongs to, as its version text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Oracle MySQL, Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

/// Runs every probe. The order is the order in which a person should mend things.
pub fn examine(sql: &mut dyn Sql, family: Family, version: (u16, u16, u16)) -> Vec<Finding> {
    let mut all = Vec::new();
    let rights = privileges(sql, family, version);
    let may_look = may_see_tables(sql);
    all.push(rights);
    all.extend(binlog(sql, family));
    if family == Family::MySql {
        all.extend(clone_plugin(sql, version));
    }
    all.extend(files(sql, family));
    if may_look {
        all.extend(tables(sql, family));
        all.extend(engines::loaded_by_options(sql));
    } else {
        all.push(bad(
            "tables",
            Grade::Warning,
            "tables are not looked at (engines, primary keys): the account lacks SELECT; backups don't need it",
            format!("GRANT SELECT ON *.* TO {};", grantee(sql)),
        ));
    }
    all
}

/// Without SELECT the server hides its tables from information_schema, and all would look well.
fn may_see_tables(sql: &mut dyn Sql) -> bool {
    held_privileges(sql).unwrap_or_default().iter().any(|h| h == "SELECT" || h == "ALL PRIVILEGES")
}

/// The account as GRANT writes it.
fn grantee(sql: &mut dyn Sql) -> String {
    let who = value(sql, "SELECT CURRENT_USER()").unwrap_or_default();
    match who.split_once('@') {
        Some((user, host)) => format!("'{user}'@'{host}'"),
        None => format!("'{who}'"),
    }
}

fn ok(probe: &'static str, found: impl Into<String>) -> Finding {
    Finding { probe, grade: Grade::Ok, found: found.into(), fix: None }
}

fn bad(
    probe: &'static str,
    grade: Grade,
    found: impl Into<String>,
    fix: impl Into<Option<String>>,
) -> Finding {
    Finding { probe, grade, found: found.into(), fix: fix.into() }
}

/// One value of a one-row, one-column query.
fn value(sql: &mut dyn Sql, query: &str) -> Result<String, String> {
    let rows = sql.rows(query)?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default())
}

/// The global privileges a protecting account needs.
fn needed_privileges(family: Family, version: (u16, u16, u16)) -> &'static [&'static str] {
    match family {
        Family::MySql => &["REPLICATION CLIENT", "REPLICATION SLAVE", "BACKUP_ADMIN"],
        Family::MariaDb if version >= (10, 5, 0) => {
            &["PROCESS", "RELOAD", "LOCK TABLES", "BINLOG MONITOR", "REPLICATION SLAVE"]
        }
        Family::MariaDb => &["PROCESS", "RELOAD", "LOCK TABLES", "REPLICATION CLIENT", "REPLICATION SLAVE"],
    }
}

fn privileges(sql: &mut dyn Sql, family: Family, version: (u16, u16, u16)) -> Finding {
    const PROBE: &str = "privileges";
    let held = match held_privileges(sql) {
        Ok(held) => held,
        Err(error) => {
            return bad(PROBE, Grade::Failed, format!("SHOW GRANTS failed: {error}"), None);
        }
    };
    let missing: Vec<&str> = needed_privileges(family, version)
        .iter()
        .copied()
        .filter(|need| !held.iter().any(|h| h == "ALL PRIVILEGES" || same_privilege(h, need)))
        .collect();
    // ALL PRIVILEGES includes every static privilege; dynamic ones only on servers
    // that had them when it was granted. The server lists those beside it.
    if missing.is_empty() {
        return ok(PROBE, "the account may copy the server and read its binlog");
    }
    let grantee = grantee(sql);
    let list = missing.join(", ");
    bad(
        PROBE,
        Grade::Failed,
        format!("the account {grantee} lacks {list}"),
        Some(format!("GRANT {list} ON *.* TO {grantee};")),
    )
}

/// The account's global privileges, upper case.
fn held_privileges(sql: &mut dyn Sql) -> Result<Vec<String>, String> {
    let grants = sql.rows("SHOW GRANTS FOR CURRENT_USER()")?;
    Ok(global_privileges(grants.into_iter().filter_map(|row| row.into_iter().next().flatten())))
}

/// Privileges named `ON *.*` in the rows of SHOW GRANTS, upper case.
fn global_privileges(rows: impl Iterator<Item = String>) -> Vec<String> {
    let mut held = Vec::new();
    for row in rows {
        let upper = row.to_uppercase();
        let Some(list) = upper.strip_prefix("GRANT ") else { continue };
        let Some((list, _)) = list.split_once(" ON *.* TO ") else { continue };
        held.extend(list.split(',').map(|p| p.trim().to_string()));
    }
    held
}

/// MariaDB renamed some; both names mean the same right.
fn same_privilege(held: &str, need: &str) -> bool {
    held == need
        || matches!(
            (held, need),
            ("REPLICATION CLIENT", "BINLOG MONITOR")
                | ("BINLOG MONITOR", "REPLICATION CLIENT")
                | ("REPLICA MONITOR", "REPLICATION CLIENT")
                | ("REPLICATION REPLICA", "REPLICATION SLAVE")
        )
}

/// What turns the binary log on.
pub(crate) const BINLOG_FIX: &str =
    "in the server's configuration: [mysqld] log_bin = binlog, server_id = 1; then restart it";

fn binlog(sql: &mut dyn Sql, family: Family) -> Vec<Finding> {
    let mut all = Vec::new();
    let log_bin = value(sql, "SELECT @@GLOBAL.log_bin").unwrap_or_default();
    if log_bin != "1" {
        all.push(bad("binlog", Grade::Failed, "the binary log is off", Some(BINLOG_FIX.to_string())));
        return all;
    }
    all.push(ok("binlog", "the binary log is on"));
    let format = value(sql, "SELECT @@GLOBAL.binlog_format").unwrap_or_default();
    all.push(if format.eq_ignore_ascii_case("ROW") {
        ok("binlog_format", "ROW")
    } else {
        bad(
            "binlog_format",
            Grade::Warning,
            format!(
                "{format}: a statement that the server calls unsafe may do something else when it is replayed"
            ),
            Some("SET GLOBAL binlog_format = 'ROW'; and binlog_format = ROW in the configuration".into()),
        )
    });
    let image = value(sql, "SELECT @@GLOBAL.binlog_row_image").unwrap_or_default();
    all.push(if image.eq_ignore_ascii_case("FULL") {
        ok("binlog_row_image", "FULL")
    } else {
        bad(
            "binlog_row_image",
            Grade::Warning,
            format!("{image}: the proof after a restore can compare fewer columns"),
            Some("SET GLOBAL binlog_row_image = 'FULL';".into()),
        )
    });
    let server_id = value(sql, "SELECT @@GLOBAL.server_id").unwrap_or_default();
    all.push(if server_id == "0" {
        bad("server_id", Grade::Failed, "server_id is 0", Some("SET GLOBAL server_id = 1;".into()))
    } else {
        ok("server_id", server_id)
    });
    if family == Family::MySql {
        let mode = value(sql, "SELECT @@GLOBAL.gtid_mode").unwrap_or_default();
        all.push(if mode == "ON" {
            ok("gtid", "GTIDs are on")
        } else {
            bad(
                "gtid",
                Grade::Warning,
                format!(
                    "gtid_mode is {mode}: positions are files and offsets, a fail-over can't be followed"
                ),
                Some(
                    "SET GLOBAL enforce_gtid_consistency = ON; then step gtid_mode to OFF_PERMISSIVE, \
                     ON_PERMISSIVE, ON"
                        .into(),
                ),
            )
        });
    }
    all.push(expiry(sql));
    all.extend(semi_sync(sql, family));
    all
}

/// Longest time that a commit should wait for the archive, milliseconds.
const SEMI_SYNC_WAIT_MAX_MS: u64 = 1000;

/// What zero loss needs (`archive --semi-sync`). Whoever has not turned it on is told how, without a warning.
fn semi_sync(sql: &mut dyn Sql, family: Family) -> Vec<Finding> {
    const PROBE: &str = "semi_sync";
    let told = |sql: &mut dyn Sql, name: &str| {
        let rows =
            sql.rows(&format!("SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_{name}'")).unwrap_or_default();
        rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten()
    };
    // The older names are those of MariaDB and of MySQL before 8.0.26.
    let known = ["source", "master"].iter().find_map(|side| {
        told(sql, &format!("{side}_enabled")).map(|on| (*side, on.eq_ignore_ascii_case("ON") || on == "1"))
    });
    let install = "INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'; ";
    let (side, on) = known.unwrap_or((if family == Family::MySql { "source" } else { "master" }, false));
    let set = |variable: &str, to: &str| format!("SET GLOBAL rpl_semi_sync_{side}_{variable} = {to};");
    if !on {
        let install = if known.is_none() && family == Family::MySql { install } else { "" };
        let lines = format!("{install}{}", set("enabled", "ON"));
        return vec![ok(PROBE, format!("not in use; for `holdfast archive --semi-sync`: {lines}"))];
    }
    let mut all = Vec::new();
    let point = told(sql, &format!("{side}_wait_point")).unwrap_or_default();
    if !point.eq_ignore_ascii_case("AFTER_SYNC") {
        all.push(bad(
            PROBE,
            Grade::Warning,
            format!("commits are seen by others before the archive has them ({point}): no zero loss"),
            set("wait_point", "'AFTER_SYNC'"),
        ));
    }
    let wait = told(sql, &format!("{side}_timeout")).and_then(|ms| ms.parse::<u64>().ok()).unwrap_or(0);
    if wait > SEMI_SYNC_WAIT_MAX_MS {
        all.push(bad(
            PROBE,
            Grade::Warning,
            format!("a commit may wait {} s when the archive does not answer", wait.div_ceil(1000)),
            set("timeout", &SEMI_SYNC_WAIT_MAX_MS.to_string()),
        ));
    }
    let wait_alone = ["wait_no_replica", "wait_no_slave"]
        .iter()
        .find_map(|name| told(sql, &format!("{side}_{name}")).map(|value| (*name, value)));
    if let Some((name, value)) = wait_alone.filter(|(_, value)| value.eq_ignore_ascii_case("ON")) {
        all.push(bad(
            PROBE,
            Grade::Warning,
            format!("commits wait the whole time while no archive is connected ({name} = {value})"),
            set(name, "OFF"),
        ));
    }
    if all.is_empty() {
        all.push(ok(PROBE, "commits wait for the archive with --semi-sync, for a second at most"));
    }
    all
}

/// Below this a pause of the archive over a night loses log for good.
const EXPIRY_MIN_S: u64 = 86_400;

fn expiry(sql: &mut dyn Sql) -> Finding {
    const PROBE: &str = "binlog_expiry";
    let seconds = value(sql, "SELECT @@GLOBAL.binlog_expire_logs_seconds").ok();
    match seconds.and_then(|s| s.parse::<u64>().ok()) {
        Some(0) => ok(PROBE, "the server keeps its binlogs until they are purged by hand"),
        Some(s) if s < EXPIRY_MIN_S => bad(
            PROBE,
            Grade::Warning,
            format!("binlogs are purged after {s} s: a longer pause of the archive leaves a gap"),
            Some("SET GLOBAL binlog_expire_logs_seconds = 604800;".into()),
        ),
        Some(s) => ok(PROBE, format!("binlogs are kept for {} h", s / 3600)),
        None => ok(PROBE, "not told by this server"),
    }
}

fn clone_plugin(sql: &mut dyn Sql, version: (u16, u16, u16)) -> Vec<Finding> {
    let mut all = Vec::new();
    if version < (8, 0, 17) {
        all.push(bad(
            "clone",
            Grade::Failed,
            "this version has no CLONE protocol (it came with MySQL 8.0.17)",
            Some("back this server up from a stopped copy: holdfast server add NAME --folder DIR".into()),
        ));
        return all;
    }
    let status =
        value(sql, "SELECT PLUGIN_STATUS FROM information_schema.PLUGINS WHERE PLUGIN_NAME = 'clone'")
            .unwrap_or_default();
    all.push(if status == "ACTIVE" {
        ok("clone", "the clone plugin is loaded")
    } else {
        bad(
            "clone",
            Grade::Failed,
            "the clone plugin is not loaded",
            Some("INSTALL PLUGIN clone SONAME 'mysql_clone.so';".into()),
        )
    });
    let redo = value(
        sql,
        "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
         WHERE VARIABLE_NAME = 'Innodb_redo_log_enabled'",
    )
    .unwrap_or_default();
    if redo == "OFF" {
        all.push(bad(
            "redo_log",
            Grade::Failed,
            "InnoDB's redo log is disabled, and a server without one can't be cloned",
            Some("ALTER INSTANCE ENABLE INNODB REDO_LOG;".into()),
        ));
    }
    let packet = value(sql, "SELECT @@GLOBAL.max_allowed_packet").unwrap_or_default();
    if packet.parse::<u64>().is_ok_and(|p| p < 2 << 20) {
        all.push(bad(
            "max_allowed_packet",
            Grade::Failed,
            format!("max_allowed_packet is {packet}; a clone needs 2 MiB"),
            Some("SET GLOBAL max_allowed_packet = 67108864;".into()),
        ));
    }
    all
}

const USER_TABLES: &str = "t.TABLE_TYPE = 'BASE TABLE' AND t.TABLE_SCHEMA NOT IN \
     ('mysql', 'information_schema', 'performance_schema', 'sys')";

/// How many table names a finding spells out.
const NAMES_MAX: usize = 5;

/// Tables outside of the datadir, which a backup refuses. MySQL tells them only to who holds PROCESS; to others the
/// backup itself does.
fn files(sql: &mut dyn Sql, family: Family) -> Option<Finding> {
    let (column, table) = match family {
        Family::MySql => ("FILE_NAME", "FILES"),
        Family::MariaDb => ("FILENAME", "INNODB_SYS_TABLESPACES"),
    };
    let query = format!(
        "SELECT {column} FROM information_schema.{table} \
         WHERE {column} LIKE '/%' AND {column} NOT LIKE CONCAT(@@GLOBAL.datadir, '%') ORDER BY 1"
    );
    if sql.rows(&query).is_ok_and(|rows| rows.is_empty()) {
        return None;
    }
    let say = |names: &str| {
        (
            format!("outside of the datadir, where a copy can't stand for them: {names}"),
            "make the tables anew without DATA DIRECTORY and TABLESPACE, copy their rows and rename them"
                .into(),
        )
    };
    let found = named_tables(sql, "files", &query, "", say);
    found.fix.is_some().then_some(Finding { grade: Grade::Failed, ..found })
}

fn tables(sql: &mut dyn Sql, family: Family) -> Vec<Finding> {
    let keyless = format!(
        // Not from TABLE_CONSTRAINTS, which MariaDB shows to nobody who may only read.
        "SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) FROM information_schema.TABLES t \
         WHERE {USER_TABLES} AND NOT EXISTS (SELECT 1 FROM information_schema.COLUMNS c \
         WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME AND c.COLUMN_KEY = 'PRI') ORDER BY 1"
    );
    let (carried, fine, lost) = match family {
        Family::MySql => {
            ("'InnoDB'", "every table is InnoDB", "a clone of MySQL carries their definition, not their rows")
        }
        Family::MariaDb => (
            "'InnoDB', 'Aria', 'MyISAM', 'MRG_MyISAM', 'CSV', 'ARCHIVE', 'SEQUENCE', 'ROCKSDB', 'BLACKHOLE'",
            "mariadb-backup copies the rows of every table",
            "mariadb-backup does not copy their rows",
        ),
    };
    let foreign = format!(
        "SELECT CONCAT(t.TABLE_SCHEMA, '.', t.TABLE_NAME) FROM information_schema.TABLES t \
         WHERE {USER_TABLES} AND t.ENGINE NOT IN ({carried}) ORDER BY 1"
    );
    vec![
        named_tables(sql, "primary_keys", &keyless, "every table has a primary key", |names| {
            (
                format!("no primary key: {names}; a point-in-time restore of these may be slow"),
                "ALTER TABLE … ADD PRIMARY KEY, or sql_generate_invisible_primary_key = ON".into(),
            )
        }),
        named_tables(sql, "engines", &foreign, fine, |names| {
            (format!("of other engines: {names}; {lost}"), "ALTER TABLE … ENGINE = InnoDB".into())
        }),
    ]
}

fn named_tables(
    sql: &mut dyn Sql,
    probe: &'static str,
    query: &str,
    fine: &str,
    say: impl Fn(&str) -> (String, String),
) -> Finding {
    let rows = match sql.rows(query) {
        Ok(rows) => rows,
        Err(error) => return bad(probe, Grade::Warning, format!("could not be checked: {error}"), None),
    };
    if rows.is_empty() {
        return ok(probe, fine);
    }
    let mut names: Vec<String> =
        rows.iter().take(NAMES_MAX).filter_map(|row| row.first().cloned().flatten()).collect();
    if rows.len() > NAMES_MAX {
        names.push(format!("and {} more", rows.len() - NAMES_MAX));
    }
    let (found, fix) = say(&names.join(", "));
    bad(probe, Grade::Warning, found, Some(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers from a list: (part of the query, rows).
    struct Canned(Vec<(&'static str, Vec<&'static str>)>);

    impl Sql for Canned {
        fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
            Ok(self
                .0
                .iter()
                .find(|(part, _)| sql.contains(part))
                .map(|(_, rows)| rows.iter().map(|r| vec![Some((*r).to_string())]).collect())
                .unwrap_or_default())
        }
    }

    #[test]
    fn a_missing_privilege_is_answered_with_the_exact_grant() {
        let mut server = Canned(vec![
            (
                "SHOW GRANTS",
                vec![
                    "GRANT SELECT, RELOAD, PROCESS, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `bk`@`%`",
                    "GRANT ALL PRIVILEGES ON `shop`.* TO `bk`@`%`",
                ],
            ),
            ("CURRENT_USER()", vec!["bk@%"]),
        ]);
        let finding = privileges(&mut server, Family::MySql, (9, 7, 4));
        assert_eq!(finding.grade, Grade::Failed);
        assert_eq!(finding.fix.as_deref(), Some("GRANT BACKUP_ADMIN ON *.* TO 'bk'@'%';"));
    }

    #[test]
    fn all_privileges_on_everything_is_enough_and_on_one_schema_is_not() {
        let mut all =
            Canned(vec![("SHOW GRANTS", vec!["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost`"])]);
        assert_eq!(privileges(&mut all, Family::MariaDb, (10, 11, 0)).grade, Grade::Ok);
        let mut one = Canned(vec![("SHOW GRANTS", vec!["GRANT ALL PRIVILEGES ON `shop`.* TO `u`@`%`"])]);
        assert_eq!(privileges(&mut one, Family::MariaDb, (10, 11, 0)).grade, Grade::Failed);
    }

    #[test]
    fn a_server_without_binlog_fails_and_says_what_to_set() {
        let mut server = Canned(vec![("log_bin", vec!["0"])]);
        let findings = binlog(&mut server, Family::MySql);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].grade, Grade::Failed);
        assert!(findings[0].fix.as_deref().unwrap().contains("log_bin"));
    }

    /// A server that has these variables.
    struct Variables(Vec<(&'static str, &'static str)>);

    impl Sql for Variables {
        fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
            let wanted = sql.split('\'').nth(1).unwrap_or_default();
            let rows = self.0.iter().filter(|(name, _)| *name == wanted);
            Ok(rows.map(|(name, value)| vec![Some((*name).to_owned()), Some((*value).to_owned())]).collect())
        }
    }

    #[test]
    fn semi_sync_is_offered_where_it_is_off_and_mended_where_it_would_not_hold() {
        let off = semi_sync(&mut Variables(vec![]), Family::MySql);
        assert_eq!(off[0].grade, Grade::Ok);
        assert!(off[0].found.contains("INSTALL PLUGIN rpl_semi_sync_source"), "{}", off[0].found);

        let mut by_default = Variables(vec![
            ("rpl_semi_sync_master_enabled", "ON"),
            ("rpl_semi_sync_master_wait_point", "AFTER_COMMIT"),
            ("rpl_semi_sync_master_timeout", "10000"),
            ("rpl_semi_sync_master_wait_no_slave", "ON"),
        ]);
        let fixes: Vec<_> =
            semi_sync(&mut by_default, Family::MariaDb).into_iter().map(|f| f.fix.unwrap()).collect();
        assert_eq!(
            fixes,
            [
                "SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC';",
                "SET GLOBAL rpl_semi_sync_master_timeout = 1000;",
                "SET GLOBAL rpl_semi_sync_master_wait_no_slave = OFF;",
            ]
        );
        let mut well = Variables(vec![
            ("rpl_semi_sync_source_enabled", "ON"),
            ("rpl_semi_sync_source_wait_point", "AFTER_SYNC"),
            ("rpl_semi_sync_source_timeout", "1000"),
            ("rpl_semi_sync_source_wait_no_replica", "OFF"),
        ]);
        assert_eq!(semi_sync(&mut well, Family::MySql)[0].grade, Grade::Ok);
    }

    #[test]
    fn a_file_outside_of_the_datadir_is_named_and_none_is_no_finding() {
        let mut server = Canned(vec![("INNODB_SYS_TABLESPACES", vec!["/data2/shop/far.ibd"])]);
        let finding = files(&mut server, Family::MariaDb).unwrap();
        assert_eq!(finding.grade, Grade::Failed);
        assert!(finding.found.contains("/data2/shop/far.ibd"), "{}", finding.found);
        assert_eq!(files(&mut server, Family::MySql), None);
    }

    #[test]
    fn an_unloaded_clone_plugin_is_answered_with_the_install_line() {
        let mut server = Canned(vec![]);
        let findings = clone_plugin(&mut server, (8, 4, 0));
        assert_eq!(findings[0].fix.as_deref(), Some("INSTALL PLUGIN clone SONAME 'mysql_clone.so';"));
    }
}
