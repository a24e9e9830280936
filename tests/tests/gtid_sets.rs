//! `--to gtid-set:SET` on real servers: the state with exactly these transactions, or a refusal that says what is in the way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::ledger::{Held, check};
use holdfast_tests::{Engine, Ledger, LedgerOptions, Random};

/// A server that this one never was.
const OTHER: &str = "0f0f0f0f-0000-0000-0000-00000000000f";

/// A moment: what the source had executed, its ledger, and the rows beside it.
struct Noted {
    set: String,
    held: Held,
    rows: String,
}

fn noted(bed: &Bed, seed: u64) -> Noted {
    let variable = match bed.server.engine() {
        Engine::MySql => "gtid_executed",
        Engine::MariaDb => "gtid_binlog_pos",
    };
    Noted {
        // As the server prints it, line breaks included.
        set: bed.server.value(&format!("SELECT @@GLOBAL.{variable}")).unwrap(),
        held: check(&mut bed.server.root(), seed).unwrap(),
        rows: rows(&mut bed.server.root()),
    }
}

fn rows(conn: &mut Conn) -> String {
    conn.query_text("SELECT GROUP_CONCAT(id ORDER BY id) FROM side.t").unwrap().unwrap_or_default()
}

/// Writes a row under a name that is not the server's next one: of another source with a tag, or in another domain.
fn foreign(bed: &Bed, number: u64) {
    let insert = format!("INSERT INTO side.t VALUES ({number})");
    let mut conn = bed.server.root();
    match bed.server.engine() {
        Engine::MySql => {
            conn.execute(format!("SET gtid_next = '{OTHER}:odd:{number}'")).unwrap();
            conn.execute(&insert).unwrap();
            conn.execute("SET gtid_next = AUTOMATIC").unwrap();
        }
        Engine::MariaDb => {
            conn.execute("SET SESSION gtid_domain_id = 8").unwrap();
            conn.execute(&insert).unwrap();
        }
    }
}

fn connect(into: &Path) -> Conn {
    let options = ConnectOptions::new(Endpoint::Unix(into.join(SOCKET)), "root").tls_mode(TlsMode::Disabled);
    Conn::connect(&options).unwrap()
}

fn restored_is(bed: &Bed, moment: &Noted, seed: u64, more: &[&str]) {
    let (into, engine, to) =
        (bed.text("restored"), bed.server.engine().dir(), format!("gtid-set:{}", moment.set));
    let mut args = vec!["restore", "shop", "--to", &to, "--into", &into, "--start", "--engine-dir"];
    args.push(engine.to_str().unwrap());
    args.extend(more);
    let _ = bed.user.run(&args).accepted();
    let mut conn = connect(&bed.path("restored"));
    assert_eq!(check(&mut conn, seed).unwrap(), moment.held, "{}", moment.set);
    assert_eq!(rows(&mut conn), moment.rows, "{}", moment.set);
}

fn a_gtid_set_leads_to_the_state_that_had_exactly_its_transactions(engine: Engine) {
    let (_, seed) = Random::from_environment("a_gtid_set_leads_to_the_state");
    let seed = seed % 1_000_000;
    let bed = Bed::new(engine, &[]);
    Ledger::create_schema(&bed.server);
    bed.server.run(&["CREATE DATABASE side", "CREATE TABLE side.t (id INT PRIMARY KEY)"]);
    let write = |count| {
        let options = LedgerOptions { seed, threads: 2, pause: Duration::from_millis(1) };
        let ledger = Ledger::start(&bed.server, options);
        ledger.wait_for(count);
        ledger.stop();
    };
    write(20);
    let too_early = noted(&bed, seed);
    write(20);
    bed.backup();
    write(30);
    let first = noted(&bed, seed);
    write(10);
    foreign(&bed, 5);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    foreign(&bed, 2);
    write(20);
    let second = noted(&bed, seed);
    write(20);
    bed.plan("latest").ok();

    // The plan says what it is about, and where it leads.
    let plan = bed.plan(&format!("gtid-set:{}", first.set)).ok().stdout;
    assert!(plan.contains("the point with exactly "), "{plan}");
    restored_is(&bed, &first, seed, &[]);
    restored_is(&bed, &second, seed, &["--continue"]);
    stop_server_on(&bed.path("restored"), Duration::from_secs(60)).unwrap();

    refused(bed.plan(&format!("gtid-set:{}", too_early.set)), 20, &["before the first backup"]);
    refused(bed.plan("gtid-set:"), 2, &["is not a GTID set", "gtid-set:UUID:1-5"]);
    // What the log never had just like that; and where all of it is, which is a point that is taken.
    let (torn, named) = match engine {
        // Two was executed behind five.
        Engine::MySql => (format!("{},{OTHER}:odd:2", set_before(&bed, 5)), format!("{OTHER}:odd:5 is, too")),
        Engine::MariaDb => {
            let domains = second.set.split(',').filter(|gtid| !gtid.starts_with("8-"));
            (domains.collect::<Vec<_>>().join(","), "is, too, which it lacks".to_owned())
        }
    };
    let refusal = refused(bed.plan(&format!("gtid-set:{torn}")), 20, &["no beginning of the log", &named]);
    let points = refusal.stderr.split("the nearest points are ").nth(1).unwrap();
    let points: Vec<&str> = points.lines().next().unwrap().trim_end_matches('.').split(" and ").collect();
    assert_eq!(points.len(), 2, "{}", refusal.stderr);
    for point in points {
        bed.plan_of(&point.split_whitespace().collect::<Vec<_>>()).ok();
    }
    // What it does not know at all is named.
    let unknown = match engine {
        Engine::MySql => format!("{OTHER}:never:1-3"),
        Engine::MariaDb => "9-9-3".to_owned(),
    };
    let more = format!("gtid-set:{},{unknown}", first.set.trim());
    refused(bed.plan(&more), 20, &[&unknown, "of it is not in the archive"]);
    let other = if engine == Engine::MySql { "0-1-5".to_owned() } else { format!("{OTHER}:1-5") };
    refused(bed.plan(&format!("gtid-set:{other}")), 20, &["t is a set of", "and the log is one of"]);
}

/// What MySQL had executed before the foreign transaction of this number.
fn set_before(bed: &Bed, number: u64) -> String {
    let id = format!("gtid:{OTHER}:odd:{number}");
    let plan = bed.plan_of(&["--before", &id, "--json"]).ok().json();
    let last = plan["last_kept"]["gtid"].as_str().unwrap().to_owned();
    let (uuid, number) = last.rsplit_once(':').unwrap();
    format!("{uuid}:1-{number}")
}

#[test]
fn a_gtid_set_leads_to_the_state_that_had_exactly_its_transactions_mysql() {
    a_gtid_set_leads_to_the_state_that_had_exactly_its_transactions(Engine::MySql);
}

#[test]
fn a_gtid_set_leads_to_the_state_that_had_exactly_its_transactions_mariadb() {
    a_gtid_set_leads_to_the_state_that_had_exactly_its_transactions(Engine::MariaDb);
}
