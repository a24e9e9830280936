//! Drills of a daemon with the check queries of its configuration, asked for by the command line, on real servers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_tests::bed::refused;
use holdfast_tests::daemon_bed::DaemonBed;
use holdfast_tests::server::scratch;
use holdfast_tests::{Engine, Holdfast, Outcome, TestServer};
use serde_json::json;

/// Besides the places: no drill but one that is asked for, `shop`'s queries from both places, and one that is wrong.
fn configuration(file: &str, wrong: &str) -> String {
    format!(
        "[policy.default]\ndrill = 0\n\
         [[server]]\nname = 'shop'\n\
         check_queries = [\"SELECT COUNT(*) FROM shop.orders -- expect: = 2\", \"SHOW TABLES IN shop\"]\n\
         check_file = {file:?}\n\
         [[server]]\nname = 'crm'\ncheck_queries = [\"{wrong}\"]\n"
    )
}

fn drill(bed: &DaemonBed, name: &str, more: &[&str]) -> Outcome {
    let socket = bed.socket();
    let daemon = ["--daemon", socket.to_str().unwrap(), "drill", name];
    bed.user.run(&[&daemon[..], more].concat())
}

#[test]
fn the_command_line_has_the_daemon_drill_with_the_queries_of_its_configuration() {
    let dir = tempfile::Builder::new().prefix("daemon-drills-").tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let sources = [("shop", TestServer::start(Engine::MySql)), ("crm", TestServer::start(Engine::MariaDb))];
    for (name, source) in &sources {
        // All of it before the first backup: whatever moment the daemon picks has it.
        source.run(&[
            &format!("CREATE DATABASE {name}"),
            &format!("CREATE TABLE {name}.orders (id INT PRIMARY KEY, state VARCHAR(10))"),
            &format!("INSERT INTO {name}.orders VALUES (1, 'open'), (2, 'shut')"),
        ]);
    }
    user.protect(&sources[0].1);
    user.add("crm", &sources[1].1);
    let file = dir.path().join("checks.sql");
    std::fs::write(
        &file,
        "-- name: the first one is open\nSELECT state FROM shop.orders WHERE id = 1; -- expect: 'open'\n",
    )
    .unwrap();
    let file = file.to_str().unwrap().to_owned();
    let mut bed = DaemonBed::new(user, dir, 2);
    bed.configure(&configuration(&file, "SELECT COUNT(*) FROM crm.orders -- expect: >= 1000"));
    bed.start();
    bed.until_following();

    // Each query is asked, and the answer says how many rows came; their values are the command line's alone.
    let text = drill(&bed, "shop", &[]).ok().stdout;
    assert!(text.contains("Drilled 'shop' to "), "{text}");
    for line in ["query 1: 1 rows (= 2)", "query 2: 1 rows", "the first one is open: 1 rows (= open)"] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let view = drill(&bed, "shop", &["--json"]).ok().json();
    let queries = view["report"]["queries"].as_array().unwrap();
    assert_eq!(view["proved"], true, "{view}");
    assert_eq!(queries.len(), 3, "{view}");
    assert!(queries.iter().all(|query| query["verdict"] == "ok"), "{view}");

    // One that does not give what is expected fails the drill, by name, here and on the board.
    refused(drill(&bed, "crm", &[]), 22, &["'query 1' did not give what is expected"]);
    let (_, told) = bed.ask("GET", "/servers/crm/drills", None).unwrap();
    let last = &told["drills"][0];
    assert_eq!((&last["proved"], &last["failed_queries"]), (&json!(false), &json!(["query 1"])), "{told}");
    bed.until("the board has the drill that failed", |bed| {
        let Some((200, server)) = bed.ask("GET", "/servers/crm", None) else { return false };
        server["drill"]["last"]["proved"] == false && server["level"] != "green"
    });
    let folder = bed.dir.path().join("drills");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "no folder stays");

    // A reload takes the mended query; what only the daemon decides is refused.
    bed.configure(&configuration(&file, "SELECT COUNT(*) FROM crm.orders -- expect: >= 2"));
    let pid = rustix::process::Pid::from_child(bed.child());
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    bed.until("a drill with the new query", |bed| drill(bed, "crm", &[]).code == Some(0));
    for more in [&["--at", "latest"][..], &["--check-query", "SELECT 1"], &["--prove", "full"]] {
        refused(drill(&bed, "shop", more), 2, &["The daemon picks the moment", "[drills]"]);
    }
    refused(drill(&bed, "nobody", &[]), 2, &["'nobody'"]);
    bed.kill();
    let _ = bed.user.fsck().ok();
}
