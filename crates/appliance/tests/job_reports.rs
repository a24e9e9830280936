//! The report of a job that its daemon did not live to see.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_appliance::ServerKind;
use holdfast_appliance::backup::{self, backup};
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::drill::{self, drill};
use holdfast_appliance::error::Code;
use holdfast_appliance::init::init;
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::reports;
use holdfast_appliance::restore::{self, Options, Target, restore};
use holdfast_appliance::server::{Added, add};
use holdfast_appliance::settings::{Environment, Login};
use holdfast_format::record::{Record, ReportRecord};

#[test]
fn a_job_finds_the_report_that_it_left_whatever_the_verdict_and_no_other_jobs() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("passphrase"), "only for tests\n").unwrap();
    let spool = Some(dir.path().join("spool"));
    let environment = Environment::of_daemon(dir.path().join("servers.toml"), spool).unwrap();
    let key = Key::PassphraseFile(dir.path().join("passphrase"));
    init(&environment, &dir.path().join("repository"), &key, "test").unwrap();
    let catalogue = Catalogue::open(environment, &dir.path().join("repository"), &key).unwrap();
    std::fs::create_dir(dir.path().join("files")).unwrap();
    std::fs::write(dir.path().join("files/file"), "content").unwrap();
    let kind = ServerKind::Folder { path: dir.path().join("files").to_str().unwrap().to_owned() };
    add(&catalogue, Added { name: "files".to_owned(), kind, login: Login::default(), rebuilt: false })
        .unwrap();
    backup(&catalogue, "files", &backup::Options::default(), &Unwatched).unwrap();

    let of = |kind, job| reports::of_job(&catalogue, kind, job);
    let options = |into: &str, job: Option<&str>| {
        let target = Target::parse("fastest").unwrap();
        Options { job: job.map(str::to_owned), ..Options::new(target, dir.path().join(into)) }
    };
    drill(&catalogue, "files", &options("drill", Some("d/7")), 0, &Unwatched).unwrap();
    restore(&catalogue, "files", &options("by-hand", None), &Unwatched).unwrap();
    let told = of(drill::KIND, "d/7").unwrap().unwrap();
    assert_eq!(
        (&told["job"], &told["proved"], &told["server"]),
        (&"d/7".into(), &true.into(), &"files".into())
    );
    assert_eq!(of(drill::KIND, "d/8").unwrap(), None);
    assert_eq!(of(restore::KIND, "d/7").unwrap(), None, "of another kind");
    // The name is signed like the rest.
    let kept = reports::list(&catalogue, None).unwrap();
    assert!(kept.len() == 2 && kept.iter().all(|report| report.signature == "good"), "{kept:?}");

    // A verdict of no is one, too: the job is not done again.
    let json = serde_json::json!({"kind": "drill", "job": "d/8", "server": "files", "proved": false});
    let backup = catalogue.repository.backups()[0].id;
    let report = ReportRecord { backup, kind: drill::KIND.into(), at_us: 1, json: json.to_string().into() };
    let number = catalogue.repository.append(Record::Report(report)).unwrap().number;
    let failed = of(drill::KIND, "d/8").unwrap_err();
    assert_eq!(failed.code, Code::ProofFailed);
    assert!(failed.next.unwrap().contains(&format!("report show {number}")));
}
