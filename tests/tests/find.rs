//! What `find` says of transactions beside what the server's own `mysqlbinlog` prints of the same files: which there are, where
//! each begins, which rows of which tables it changed. The log holds all that a server can write; the printed seed repeats it.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on has failed")]

use std::collections::BTreeMap;
use std::process::Command;

use holdfast_tests::bed::Bed;
use holdfast_tests::mixed_work::{mixed, options};
use holdfast_tests::replaying::{SCHEMA, binlogs};
use holdfast_tests::{Engine, Random};

/// Rows inserted, updated and deleted, by table.
type Counts = BTreeMap<String, [u64; 3]>;

/// GTIDs of a file in their order, and rows with the place of the GTID before them.
struct Printed {
    gtids: Vec<(u64, String)>,
    rows: Vec<(u64, String, usize)>,
}

fn printed(bed: &Bed, file: &str) -> Printed {
    let engine = bed.server.engine();
    let program = match engine {
        Engine::MySql => "bin/mysqlbinlog",
        Engine::MariaDb => "bin/mariadb-binlog",
    };
    let output = Command::new(engine.dir().join(program))
        .args(["--no-defaults", "-v", "--base64-output=decode-rows"])
        .arg(bed.server.datadir().join(file))
        .output()
        .unwrap();
    assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    let mut found = Printed { gtids: Vec::new(), rows: Vec::new() };
    let mut place = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(at) = line.strip_prefix("# at ") {
            place = at.parse().unwrap();
        } else if let Some(gtid) = line.strip_prefix("SET @@SESSION.GTID_NEXT= '") {
            let gtid = gtid.split('\'').next().unwrap();
            if gtid != "AUTOMATIC" {
                found.gtids.push((place, gtid.to_owned()));
            }
        } else if let Some((head, gtid)) = line.split_once("\tGTID ")
            && engine == Engine::MariaDb
            && head.starts_with('#')
        {
            found.gtids.push((place, gtid.split_whitespace().next().unwrap().to_owned()));
        } else if let Some(row) = line.strip_prefix("### ") {
            let changes = ["INSERT INTO ", "UPDATE ", "DELETE FROM "];
            for (kind, change) in changes.into_iter().enumerate() {
                if let Some(table) = row.strip_prefix(change) {
                    // What is in a packed transaction has places of its own.
                    let since = found.gtids.last().map_or(0, |(at, _)| *at);
                    found.rows.push((since, table.trim().replace('`', ""), kind));
                }
            }
        }
    }
    found
}

fn find_and_the_servers_reader_agree(engine: Engine) {
    let (mut random, _) = Random::from_environment("find");
    let bed = Bed::new(engine, &options(engine, &mut random));
    bed.server.run(SCHEMA);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    bed.backup();
    mixed(&bed.server, &mut random, 150);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    mixed_again(&bed);
    bed.plan("latest").ok();

    let found = bed.user.run(&["find", "shop", "--limit", "100000", "--json"]).ok().json();
    let found = found["found"].as_array().unwrap().clone();
    // Which transaction begins where, by file.
    let mut starts: BTreeMap<String, BTreeMap<u64, (String, Counts)>> = BTreeMap::new();
    for one in &found {
        let (file, offset) = one["position"].as_str().unwrap().rsplit_once(':').unwrap();
        let file = file.rsplit('/').next().unwrap();
        let mut counts = Counts::new();
        for table in one["tables"].as_array().unwrap() {
            let of = |what: &str| table[what].as_u64().unwrap();
            let rows = [of("inserted"), of("updated"), of("deleted")];
            if rows.iter().sum::<u64>() > 0 {
                counts.insert(table["table"].as_str().unwrap().to_owned(), rows);
            }
        }
        let id = one["id"].as_str().unwrap().strip_prefix("gtid:").unwrap().to_owned();
        starts.entry(file.to_owned()).or_default().insert(offset.parse().unwrap(), (id, counts));
    }
    let (mut transactions, mut rows) = (0, 0);
    let first_file = starts.keys().next().unwrap().clone();
    for file in binlogs(bed.server.datadir()).into_iter().filter(|file| *file >= first_file) {
        let printed = printed(&bed, &file);
        let none = BTreeMap::new();
        let ours = starts.get(&file).unwrap_or(&none);
        let first = ours.keys().next().copied().unwrap_or(0);
        let ids: Vec<(u64, String)> = ours.iter().map(|(at, (id, _))| (*at, id.clone())).collect();
        let theirs: Vec<(u64, String)> = printed.gtids.into_iter().filter(|(at, _)| *at >= first).collect();
        assert_eq!(ids, theirs, "{file}");
        let mut counted: BTreeMap<u64, Counts> = ids.iter().map(|(at, _)| (*at, Counts::new())).collect();
        for (place, table, kind) in printed.rows.into_iter().filter(|(place, ..)| *place >= first) {
            let counts = counted.get_mut(&place).unwrap();
            counts.entry(table).or_default()[kind] += 1;
            rows += 1;
        }
        for (at, (id, counts)) in ours {
            assert_eq!(counts, &counted[at], "{id} at {file}:{at}");
        }
        transactions += ids.len();
    }
    println!("{engine:?}: {transactions} transactions, {rows} rows");
    assert_eq!(transactions, found.len());
    assert!(transactions > 60 && rows > 30, "{transactions} transactions, {rows} rows: little to compare");
}

/// Something in the file behind.
fn mixed_again(bed: &Bed) {
    bed.server.run(&[
        "CREATE TABLE app.behind (id INT PRIMARY KEY, v INT)",
        "INSERT INTO app.behind VALUES (1, 1), (2, 2), (3, 3)",
        "UPDATE app.behind SET v = v + 1 WHERE id < 3",
        "DELETE FROM app.behind WHERE id = 3",
    ]);
}

#[test]
fn find_tells_of_a_mysql_what_its_own_reader_tells() {
    find_and_the_servers_reader_agree(Engine::MySql);
}

#[test]
fn find_tells_of_a_mariadb_what_its_own_reader_tells() {
    find_and_the_servers_reader_agree(Engine::MariaDb);
}
