//! Restores that are asked of a daemon through its API: what they may bring along, and where they may lead.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_tests::daemon_bed::DaemonBed;
use holdfast_tests::server::{BACKUP_PASSWORD, scratch};
use holdfast_tests::{Engine, Holdfast, TestServer};
use serde_json::json;

#[test]
fn a_restore_by_the_daemon_brings_settings_along_and_replicates_from_the_servers_own_hosts_alone() {
    let dir = tempfile::Builder::new().prefix("daemon-restores-").tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let source = TestServer::start_with(Engine::MySql, &["--max-connections=77"]);
    source.run(&["CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)"]);
    user.protect(&source);
    let mut bed = DaemonBed::new(user, dir, 1);
    bed.configure("[policy.default]\ndrill = 0\n");
    bed.start();
    bed.until_following();
    source.run(&["INSERT INTO shop.orders VALUES (1)"]);
    let (set, port) = (source.gtids(), source.port());
    source.run(&["INSERT INTO shop.orders VALUES (2)"]);
    bed.until_caught_up();

    let into = bed.dir.path().join("restored/by-api");
    let wanted = |more: serde_json::Value| {
        let mut wanted =
            json!({ "server": "shop", "to": format!("gtid-set:{set}"), "into": into, "prove": "quick" });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        wanted
    };
    // Whoever else is named would be shown the password of the account.
    for (host, words) in [("203.0.113.1:3306", "no host of 'shop'"), ("127.0.0.1:1", "no host of 'shop'")] {
        let (status, told) =
            bed.ask("POST", "/restores", Some(wanted(json!({ "as_replica_of": host })))).unwrap();
        assert_eq!(status, 400, "{told}");
        assert!(told.to_string().contains(words), "{told}");
        assert!(told.to_string().contains(&format!("name 127.0.0.1:{port}")), "{told}");
    }
    let both = wanted(json!({ "as_replica_of": "127.0.0.1", "tables": ["shop.orders"] }));
    let (status, told) = bed.ask("POST", "/restores", Some(both)).unwrap();
    assert!(status == 400 && told.to_string().contains("Some tables alone"), "{told}");
    let (status, plan) = bed.ask("POST", "/restore-plans", Some(wanted(json!({})))).unwrap();
    assert!(
        status == 200 && plan["target"].as_str().unwrap().starts_with("the point with exactly"),
        "{plan}"
    );
    let more = json!({ "as_replica_of": "127.0.0.1", "with_config": true });
    let (status, job) = bed.ask("POST", "/restores", Some(wanted(more))).unwrap();
    assert_eq!(status, 202, "{job}");
    let job = bed.until_ended(&job["id"]);
    assert_eq!((&job["standing"], &job["result"]["proved"]), (&json!("done"), &json!(true)), "{job}");
    let evidence = job["result"]["evidence"].to_string();
    assert!(evidence.contains("replica: ") && evidence.contains(&port.to_string()), "{evidence}");
    let settings = std::fs::read_to_string(into.join("holdfast-source.cnf")).unwrap();
    assert!(settings.contains("max_connections") && settings.contains("77"), "{settings}");
    assert!(!job.to_string().contains(BACKUP_PASSWORD), "{job}");
    bed.kill();
    let _ = bed.user.fsck().ok();
}
