//! Statements that commit by themselves, each of them cut off twice: behind the note that it is under
//! way, and behind its effect, before the checkpoint moves on. The same call after that must know what
//! it finds: nothing may happen twice, nothing be left out, nothing refused.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use holdfast_mysql::Conn;
use holdfast_replay::serial::{Limit, Progress, replay};
use holdfast_replay::{Error, finish::finish, scan::scan};
use holdfast_tests::Engine;
use holdfast_tests::replaying::{Bed, SCHEMA};

/// Both families know these.
const COMMON: &[&str] = &[
    "CREATE DATABASE d1",
    "ALTER DATABASE d1 CHARACTER SET latin1",
    "CREATE DATABASE IF NOT EXISTS d1",
    "CREATE TABLE d1.t (id INT PRIMARY KEY, v INT)",
    "INSERT INTO d1.t VALUES (1, 1), (2, 2)",
    "CREATE TABLE IF NOT EXISTS d1.t (id INT)",
    "CREATE TABLE d1.twin LIKE d1.t",
    "INSERT INTO d1.twin VALUES (3, 3)",
    "CREATE TABLE d1.made AS SELECT * FROM d1.t",
    "CREATE TABLE IF NOT EXISTS d1.made AS SELECT * FROM d1.twin",
    // Each table is defined as the other, before and after.
    "RENAME TABLE d1.t TO d1.aside, d1.twin TO d1.t, d1.aside TO d1.twin",
    "INSERT INTO d1.t VALUES (4, 4)",
    "RENAME TABLE d1.made TO d1.renamed",
    "ALTER TABLE d1.renamed RENAME TO d1.made",
    "CREATE TABLE d1.parts (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) \
     (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20))",
    "INSERT INTO d1.parts VALUES (1, 1), (2, 2), (11, 11)",
    "CREATE TABLE d1.`odd n\u{e4}me` (id INT PRIMARY KEY, v INT)",
    "INSERT INTO d1.`odd n\u{e4}me` VALUES (5, 5)",
    // So it is here.
    "ALTER TABLE d1.parts EXCHANGE PARTITION p0 WITH TABLE d1.`odd n\u{e4}me`",
    "ALTER TABLE d1.parts ADD PARTITION (PARTITION p2 VALUES LESS THAN (30))",
    "ALTER TABLE d1.parts REORGANIZE PARTITION p1, p2 INTO (PARTITION p12 VALUES LESS THAN (30))",
    "ALTER TABLE d1.parts TRUNCATE PARTITION p0",
    "ALTER TABLE d1.parts DROP PARTITION p0",
    "ALTER TABLE d1.parts REBUILD PARTITION p12",
    "ALTER TABLE d1.parts REMOVE PARTITIONING",
    "ALTER TABLE d1.t ADD COLUMN w INT DEFAULT 3, ADD KEY (v)",
    "ALTER TABLE d1.t RENAME COLUMN v TO w, RENAME COLUMN w TO v",
    "ALTER TABLE d1.t ADD UNIQUE KEY (w)",
    "ALTER TABLE d1.t DROP KEY w",
    "ALTER TABLE d1.t MODIFY id INT AUTO_INCREMENT",
    "ALTER TABLE d1.t AUTO_INCREMENT = 70",
    "ALTER TABLE d1.t FORCE",
    "ALTER TABLE d1.t CONVERT TO CHARACTER SET utf8mb4",
    "ALTER TABLE d1.t ADD CONSTRAINT positive CHECK (w > 0)",
    "ALTER TABLE d1.t DROP CONSTRAINT positive",
    "CREATE INDEX i ON d1.t (w)",
    "DROP INDEX i ON d1.t",
    "TRUNCATE TABLE d1.twin",
    "ANALYZE TABLE d1.t",
    "OPTIMIZE TABLE d1.t",
    "CREATE VIEW d1.seen AS SELECT id FROM d1.t",
    "CREATE OR REPLACE VIEW d1.seen AS SELECT id, v FROM d1.t",
    "ALTER VIEW d1.seen AS SELECT v FROM d1.t",
    "CREATE VIEW d1.seen2 AS SELECT id FROM d1.t",
    "DROP VIEW d1.seen, d1.seen2",
    "CREATE TRIGGER d1.tick BEFORE INSERT ON d1.t FOR EACH ROW SET NEW.w = 1",
    "CREATE TRIGGER d1.tock BEFORE INSERT ON d1.t FOR EACH ROW PRECEDES tick SET NEW.w = 2",
    "DROP TRIGGER d1.tick",
    "CREATE TRIGGER d1.tick BEFORE INSERT ON d1.t FOR EACH ROW SET NEW.w = 5",
    "CREATE PROCEDURE d1.p() SELECT 1",
    "ALTER PROCEDURE d1.p COMMENT 'p'",
    "CREATE FUNCTION d1.f() RETURNS INT DETERMINISTIC RETURN 1",
    "DROP PROCEDURE d1.p",
    "DROP FUNCTION d1.f",
    "DROP FUNCTION IF EXISTS d1.f",
    "CREATE EVENT d1.e ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01' DO SELECT 1",
    "ALTER EVENT d1.e COMMENT 'e'",
    "ALTER EVENT d1.e RENAME TO d1.e2",
    "ALTER EVENT d1.e2 ON SCHEDULE EVERY 2 YEAR STARTS '2035-01-01' RENAME TO app.e2",
    "DROP EVENT app.e2",
    "CREATE USER 'u1'@'%' IDENTIFIED BY 'Secret-1', 'u2'@'%'",
    "CREATE USER IF NOT EXISTS 'u1'@'%', 'u3'@'%'",
    "ALTER USER 'u1'@'%' IDENTIFIED BY 'Secret-2'",
    "SET PASSWORD FOR 'u2'@'%' = {password}",
    "RENAME USER 'u3'@'%' TO 'u4'@'%'",
    // Who gets the name of another is told by nothing but the account itself.
    "GRANT SELECT ON app.* TO 'u1'@'%' WITH GRANT OPTION",
    "RENAME USER 'u1'@'%' TO 'u0'@'%', 'u2'@'%' TO 'u1'@'%', 'u0'@'%' TO 'u2'@'%'",
    "RENAME USER 'u1'@'%' TO 'u0'@'%', 'u2'@'%' TO 'u1'@'%', 'u0'@'%' TO 'u2'@'%'",
    "GRANT INSERT ON app.parent TO 'u1'@'%'",
    "GRANT UPDATE (name) ON app.parent TO 'u1'@'%'",
    "CREATE PROCEDURE d1.granted() SELECT 1",
    "GRANT EXECUTE ON PROCEDURE d1.granted TO 'u1'@'%'",
    "GRANT PROCESS ON *.* TO 'u1'@'%'",
    "CREATE ROLE r1, r2",
    "GRANT SELECT ON app.* TO r1",
    "GRANT r1 TO 'u1'@'%'",
    "GRANT r2 TO 'u1'@'%' WITH ADMIN OPTION",
    "GRANT r1 TO r2",
    "SET DEFAULT ROLE {default_role}",
    "REVOKE SELECT ON app.* FROM r1",
    "REVOKE r1 FROM r2",
    "REVOKE r2 FROM 'u1'@'%'",
    "DROP ROLE r2",
    "REVOKE INSERT ON app.parent FROM 'u1'@'%'",
    "REVOKE UPDATE (name) ON app.parent FROM 'u1'@'%'",
    "REVOKE EXECUTE ON PROCEDURE d1.granted FROM 'u1'@'%'",
    "REVOKE PROCESS ON *.* FROM 'u1'@'%'",
    "REVOKE GRANT OPTION ON app.* FROM 'u1'@'%'",
    "GRANT PROXY ON 'u2'@'%' TO 'u1'@'%'",
    "REVOKE PROXY ON 'u2'@'%' FROM 'u1'@'%'",
    "REVOKE ALL PRIVILEGES, GRANT OPTION FROM 'u4'@'%'",
    "DROP USER 'u4'@'%', 'u2'@'%'",
    "DROP USER IF EXISTS 'u4'@'%'",
    "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST 'far', DATABASE 'd')",
    "ALTER SERVER s OPTIONS (HOST 'farther')",
    "DROP SERVER s",
    "CREATE TABLE d1.x (id INT)",
    "CREATE TABLE d1.y (id INT)",
    "DROP TABLE d1.x, d1.y",
    "DROP TABLE IF EXISTS d1.x",
    "CREATE DATABASE d2",
    "CREATE TABLE d2.x (id INT)",
    "DROP DATABASE d2",
];

/// In a session that sends and takes Latin-1, and one that shows definitions in other words.
const LATIN: &[&str] = &[
    "SET NAMES latin1",
    "CREATE DATABASE `d\u{fc}`",
    "USE `d\u{fc}`",
    "CREATE TABLE `t\u{fc}` (id INT PRIMARY KEY, v INT, c VARCHAR(10) DEFAULT '\u{df}')",
    "CREATE TABLE `d\u{fc}`.twin LIKE `t\u{fc}`",
    "INSERT INTO twin (id) VALUES (1)",
    // A second key of the same columns would get another name.
    "ALTER TABLE `t\u{fc}` ADD KEY (v)",
    "ALTER TABLE twin ADD KEY (v)",
    "RENAME TABLE `t\u{fc}` TO aside, twin TO `t\u{fc}`, aside TO twin",
    "USE app",
    "SET SESSION sql_mode = 'ANSI_QUOTES'",
    "CREATE TABLE `d\u{fc}`.shown (id INT)",
    "SET SESSION sql_mode = DEFAULT",
    "ALTER TABLE `d\u{fc}`.shown ADD v INT",
    "USE `d\u{fc}`",
    "CREATE TABLE `\u{e4}` AS SELECT 1 AS `\u{e7}`",
    "DROP TABLE twin",
];

const MYSQL: &[&str] = &[
    "CREATE USER 'two'@'%' IDENTIFIED WITH caching_sha2_password BY 'Secret-1'",
    // A second time, the new password would be kept as the one before.
    "ALTER USER 'two'@'%' IDENTIFIED BY 'Secret-2' RETAIN CURRENT PASSWORD",
    "ALTER USER 'two'@'%' DISCARD OLD PASSWORD",
    "ALTER USER 'two'@'%' PASSWORD HISTORY 3",
    "ALTER USER 'two'@'%' IDENTIFIED BY 'Secret-3' RETAIN CURRENT PASSWORD",
    "SET PASSWORD FOR 'two'@'%' = 'Secret-4' RETAIN CURRENT PASSWORD",
    "GRANT BACKUP_ADMIN ON *.* TO 'two'@'%'",
    "REVOKE BACKUP_ADMIN ON *.* FROM 'two'@'%'",
    "GRANT SELECT, INSERT ON *.* TO 'two'@'%'",
    "REVOKE INSERT ON *.* FROM 'two'@'%'",
    "REVOKE IF EXISTS INSERT ON app.* FROM 'two'@'%' IGNORE UNKNOWN USER",
    "CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd'",
    "CREATE TABLE d1.inside (id INT PRIMARY KEY) TABLESPACE ts",
    "ALTER TABLESPACE ts RENAME TO ts2",
    "DROP TABLE d1.inside",
    "DROP TABLESPACE ts2",
    "CREATE SPATIAL REFERENCE SYSTEM 990001 NAME 'flat' DEFINITION 'PROJCS[\"x\",GEOGCS[\"y\",DATUM[\"z\",SPHEROID[\"s\",6378137,298.25]],\
     PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.017453292519943278],AXIS[\"Lat\",NORTH],AXIS[\"Lon\",EAST]],\
     PROJECTION[\"Popular Visualisation Pseudo Mercator\"],PARAMETER[\"Latitude of natural origin\",0],\
     PARAMETER[\"Longitude of natural origin\",0],PARAMETER[\"False easting\",0],PARAMETER[\"False northing\",0],\
     UNIT[\"metre\",1],AXIS[\"X\",EAST],AXIS[\"Y\",NORTH]]'",
    "DROP SPATIAL REFERENCE SYSTEM 990001",
    "ALTER TABLE d1.t RENAME INDEX v TO v2",
    "ALTER TABLE d1.t ALTER INDEX v2 INVISIBLE",
    "CREATE TABLE d1.made_too (KEY (id)) AS SELECT id FROM d1.made",
];

const MARIADB: &[&str] = &[
    "CREATE OR REPLACE TABLE d1.r (a INT)",
    "INSERT INTO d1.r VALUES (1)",
    "CREATE OR REPLACE TABLE d1.r (a INT, b INT)",
    "CREATE OR REPLACE TABLE d1.r SELECT * FROM d1.made",
    "CREATE OR REPLACE TABLE d1.r LIKE d1.t",
    // Its rows stay when a call is cut off. Under this name it is cut off once more: see below.
    "CREATE TABLE d1.alone ENGINE=MyISAM AS SELECT * FROM d1.made",
    "RENAME TABLE d1.alone TO d1.kept",
    "CREATE OR REPLACE TRIGGER d1.tick BEFORE INSERT ON d1.t FOR EACH ROW SET NEW.w = 7",
    "CREATE OR REPLACE EVENT d1.e ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01' DO SELECT 1",
    "CREATE OR REPLACE EVENT d1.e ON SCHEDULE EVERY 2 YEAR STARTS '2035-01-01' DO SELECT 1",
    "CREATE OR REPLACE PROCEDURE d1.p() SELECT 2",
    "CREATE OR REPLACE FUNCTION d1.f() RETURNS INT DETERMINISTIC RETURN 2",
    "CREATE OR REPLACE USER 'u1'@'%' IDENTIFIED BY 'Secret-3'",
    "CREATE OR REPLACE ROLE r1",
    "CREATE OR REPLACE DATABASE d3",
    "GRANT SELECT ON app.* TO 'new'@'%' IDENTIFIED BY 'Secret-1'",
    "GRANT r1 TO 'new'@'%' WITH ADMIN OPTION",
    "REVOKE ADMIN OPTION FOR r1 FROM 'new'@'%'",
    "REVOKE r1 FROM 'new'@'%'",
    "GRANT SELECT, INSERT ON *.* TO 'new'@'%'",
    "REVOKE INSERT ON *.* FROM 'new'@'%'",
    "CREATE SEQUENCE d1.s START WITH 10",
    "SELECT NEXTVAL(d1.s)",
    "CREATE SEQUENCE d1.s2 START WITH 30",
    "ALTER SEQUENCE d1.s RESTART 50",
    "ALTER SEQUENCE d1.s MAXVALUE 900",
    "CREATE OR REPLACE SEQUENCE d1.s START WITH 5",
    "RENAME TABLE d1.s TO d1.s_aside",
    "DROP SEQUENCE d1.s_aside",
    "DROP SEQUENCE IF EXISTS d1.s_aside",
    "DROP SEQUENCE d1.s2",
    "ALTER TABLE d1.made ADD SYSTEM VERSIONING",
    "ALTER TABLE d1.made DROP SYSTEM VERSIONING",
    "ALTER TABLE d1.t RENAME INDEX v TO v2",
    "ALTER TABLE IF EXISTS d1.none ADD COLUMN a INT",
    "ALTER TABLE d1.t ADD COLUMN IF NOT EXISTS w INT",
    "CREATE INDEX IF NOT EXISTS i ON d1.t (w)",
    "SET SESSION sql_mode = 'ORACLE'",
    "CREATE PACKAGE d1.pack AS FUNCTION one RETURN INT; END",
    "CREATE PACKAGE BODY d1.pack AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END",
    "DROP PACKAGE BODY d1.pack",
    "DROP PACKAGE d1.pack",
    "SET SESSION sql_mode = DEFAULT",
];

/// The checkpoint does not move behind the statement whose number is not `@through`.
const CUT_BEHIND: &str = "CREATE TRIGGER __holdfast.cut BEFORE UPDATE ON __holdfast.replay FOR EACH ROW \
     BEGIN IF OLD.intent IS NOT NULL AND NEW.intent IS NULL AND OLD.intent <> COALESCE(@through, -1) THEN \
     SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'cut off here'; END IF; END";

/// What of accounts no SHOW tells.
fn secrets(conn: &mut Conn, engine: Engine) -> Vec<String> {
    let query = match engine {
        Engine::MySql => {
            "SELECT CONCAT_WS('|', user, host, authentication_string, user_attributes) FROM mysql.user \
             UNION ALL SELECT CONCAT_WS('|', 'history', user, host, HEX(password)) FROM mysql.password_history"
        }
        Engine::MariaDb => {
            "SELECT CONCAT_WS('|', user, host, JSON_REMOVE(priv, '$.version_id', '$.password_last_changed')) \
             FROM mysql.global_priv"
        }
    };
    let found = conn.query(query).unwrap();
    let rows = (0..found.rows.len()).map(|row| found.text(row, 0).unwrap());
    let mut rows: Vec<String> = rows.filter(|row| !row.starts_with("holdfast_private_")).collect();
    rows.sort();
    rows
}

/// The statement that is noted as under way.
fn under_way(conn: &mut Conn) -> Option<u64> {
    let found = conn.query_text("SELECT intent FROM __holdfast.replay").unwrap();
    found.map(|number| number.parse().unwrap())
}

fn each_is_cut_off_twice(engine: Engine, own: &[&str], password: &str, default_role: &str) {
    let written = |text: &&str| text.replace("{password}", password).replace("{default_role}", default_role);
    let statements: Vec<String> = COMMON.iter().chain(own).map(written).collect();
    let bed = Bed::make(engine, &[], SCHEMA, |source| {
        let mut conn = source.root();
        let refused: Vec<String> = statements
            .iter()
            .filter_map(|sql| conn.execute(sql).err().map(|error| format!("{sql}: {error}")))
            .collect();
        assert!(refused.is_empty(), "{}", refused.join("\n"));
        for sql in LATIN {
            let bytes: Vec<u8> = sql.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
            conn.execute(bytes).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    });
    scan(&bed.log).unwrap().check().unwrap();
    let server = bed.start(&bed.copy("cut"));
    // The checkpoint is made by a call that is cut off before anything else.
    let stopped =
        replay(&mut server.connect().unwrap(), &bed.log, &bed.options(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Stopped(_))), "{stopped:?}");
    let mut watch = server.connect().unwrap();
    watch.execute(CUT_BEHIND).unwrap();
    let (mut before, mut behind) = (BTreeSet::new(), BTreeSet::new());
    let (mut wrong, mut alone) = (Vec::new(), 0);
    let outcome = loop {
        let mut conn = server.connect().unwrap();
        let noted = under_way(&mut watch);
        if let Some(number) = noted.filter(|number| behind.contains(number)) {
            conn.execute(format!("SET @through = {number}")).unwrap();
        }
        let interrupter = conn.interrupter();
        let ended = replay(&mut conn, &bed.log, &bed.options(), &mut |p: &Progress| {
            if p.limit == Limit::Definition && before.insert(p.transactions) {
                interrupter.interrupt();
            }
            ControlFlow::Continue(())
        });
        let now = under_way(&mut watch);
        match ended {
            Ok(outcome) => break outcome,
            Err(Error::Server { source, .. }) if source.to_string().contains("cut off here") => {
                assert!(!behind.contains(&now.unwrap()), "{now:?} went through before");
                let there = "SELECT COUNT(*) FROM information_schema.tables \
                     WHERE table_schema = 'd1' AND table_name = 'alone'";
                let is_alone = watch.query_text(there).unwrap().as_deref() == Some("1");
                alone += u32::from(is_alone);
                if !is_alone || alone == 2 {
                    behind.insert(now.unwrap());
                }
            }
            Err(Error::Server { .. }) if now.is_some() && !behind.contains(&now.unwrap()) => {}
            Err(error) => {
                wrong.push(format!("{now:?} {noted:?}: {error}"));
                assert!(now.is_some(), "{}", wrong.join("\n"));
                let mut conn = server.connect().unwrap();
                conn.execute(format!("SET @through = {}", now.unwrap())).unwrap();
                conn.execute("UPDATE __holdfast.replay SET done = intent + 1, intent = NULL").unwrap();
            }
        }
    };
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(alone, if engine == Engine::MariaDb { 2 } else { 0 });
    assert!(behind.len() > COMMON.len() / 2 && before.len() >= behind.len(), "{before:?} {behind:?}");
    finish(&mut server.connect().unwrap(), &outcome.gtids, &outcome.binlog_state).unwrap();
    bed.compare(&server, &format!("{engine:?}"));
    let (expected, found) =
        (secrets(&mut bed.source.root(), engine), secrets(&mut server.connect().unwrap(), engine));
    assert_eq!(expected, found);
}

#[test]
fn each_definition_of_mysql_is_done_once_when_a_call_is_cut_off_before_and_behind_it() {
    each_is_cut_off_twice(Engine::MySql, MYSQL, "'Secret-4'", "r1 TO 'u1'@'%'");
}

#[test]
fn each_definition_of_mariadb_is_done_once_when_a_call_is_cut_off_before_and_behind_it() {
    each_is_cut_off_twice(Engine::MariaDb, MARIADB, "PASSWORD('Secret-4')", "r1 FOR 'u1'@'%'");
}
