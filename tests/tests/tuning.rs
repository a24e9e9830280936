//! Settings that a server has for a replay alone: one that is left on the restored server is found.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use holdfast_mysql::Flavor;
use holdfast_restore::report::Verdict;
use holdfast_restore::tuning::{Facts, choose, put_back};
use holdfast_tests::{Engine, TestServer};

#[test]
fn a_setting_of_the_replay_that_is_left_is_found_and_no_other() {
    for (engine, flavor) in [(Engine::MySql, Flavor::MySql), (Engine::MariaDb, Flavor::MariaDb)] {
        let facts =
            Facts { log_bytes: 1 << 30, base_bytes: 1 << 30, disk_left: 1 << 40, memory_free: 1 << 34 };
        let server = TestServer::start_with(engine, &["--innodb-io-capacity=4000"]);
        let args = choose(&engine.programs().version, &facts).args;
        let all = put_back(&mut server.root(), flavor, &args).unwrap();
        assert!(
            all.failures.iter().any(|line| line.contains("innodb_io_capacity is set")),
            "{engine:?}: {all:?}"
        );
        assert_eq!(all.verdict, Verdict::Failed);
        assert!(!all.failures.iter().any(|line| line.contains("does not say")), "{engine:?}: {all:?}");
        // What a bed's server is started with is its own matter: all that it was not given is the program's.
        let others = ["innodb_flush_neighbors", "innodb_adaptive_hash_index", "transaction_isolation"];
        assert!(
            !all.failures.iter().any(|line| others.iter().any(|name| line.starts_with(name))),
            "{engine:?}: {all:?}"
        );
    }
}
