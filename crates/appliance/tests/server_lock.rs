//! A locked server on a real repository: nobody takes anything away, retention no more than the lock's terms allow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_appliance::ServerKind;
use holdfast_appliance::backup::{Options, backup};
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::error::Code;
use holdfast_appliance::init::init;
use holdfast_appliance::keep::{self, Wanted};
use holdfast_appliance::policy::{Keep, Policy, Span, expire, expiry};
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::server::{Added, add};
use holdfast_appliance::server_lock::{lock_of, lock_server, remove, removed, undelete, unlock_server};
use holdfast_appliance::settings::{Environment, Login};
use holdfast_format::ids::BackupId;
use holdfast_format::record::{Record, ServerLockRecord};

const DAY: i64 = 86_400_000_000;

fn opened(dir: &std::path::Path) -> Catalogue {
    let environment = Environment::of_daemon(dir.join("servers.toml"), Some(dir.join("spool"))).unwrap();
    Catalogue::open(environment, &dir.join("repository"), &Key::PassphraseFile(dir.join("passphrase")))
        .unwrap()
}

/// A folder with a backup of now, and one of each of the thirty days before.
fn repository(dir: &std::path::Path) -> (Catalogue, i64) {
    std::fs::write(dir.join("passphrase"), "only for tests\n").unwrap();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("data/file"), "content").unwrap();
    let environment = Environment::of_daemon(dir.join("servers.toml"), Some(dir.join("spool"))).unwrap();
    init(&environment, &dir.join("repository"), &Key::PassphraseFile(dir.join("passphrase")), "test")
        .unwrap();
    let catalogue = opened(dir);
    let kind = ServerKind::Folder { path: dir.join("data").to_str().unwrap().to_owned() };
    add(&catalogue, Added { name: "files".to_owned(), kind, login: Login::default(), rebuilt: false })
        .unwrap();
    backup(&catalogue, "files", &Options::default(), &Unwatched).unwrap();
    let real = catalogue.repository.backups().remove(0);
    for day in 1..=30_u8 {
        let mut old = real.clone();
        old.id = BackupId([day; 16]);
        old.started_us -= i64::from(31 - day) * DAY;
        old.finished_us -= i64::from(31 - day) * DAY;
        catalogue.repository.append(Record::BackupCommitted(old)).unwrap();
    }
    let now = real.finished_us + 1;
    (catalogue, now)
}

fn window(days: i64) -> Policy {
    Policy { window: Span(days * DAY), ..Policy::default() }
}

#[test]
fn of_a_locked_server_only_what_its_terms_allow_is_forgotten_and_only_by_retention() {
    let dir = tempfile::tempdir().unwrap();
    let (catalogue, now) = repository(dir.path());
    assert!(!lock_of(&catalogue, "files").unwrap().locked);
    let view = lock_server(&catalogue, "files", &[window(20)], "an audit").unwrap();
    assert!(view.locked && view.since.is_some() && view.reason == "an audit");
    // Whoever opens the repository is held by it.
    let other = opened(dir.path());
    let id = BackupId([3; 16]).to_string();
    for dry_run in [true, false] {
        assert_eq!(keep::forget(&other, &id, "x", dry_run).unwrap_err().code, Code::PolicyForbids);
        let wanted = Wanted { keep: Keep { last: Some(1), ..Keep::default() }, within: None };
        assert_eq!(keep::expire(&other, "files", wanted, dry_run).unwrap_err().code, Code::PolicyForbids);
        assert_eq!(remove(&other, "files", dry_run).unwrap_err().code, Code::PolicyForbids);
    }
    assert_eq!(other.repository.backups().len(), 31);
    let again = lock_server(&other, "files", &[window(1)], "weaker").unwrap_err();
    assert_eq!(again.code, Code::Usage);

    // A window that was made shorter meanwhile: the lock's own counts.
    let shown = expiry(&other, "files", &[&window(7)], now).unwrap();
    assert!(shown.kept.iter().all(|kept| kept.until.is_some_and(|until| until >= now - DAY)), "{shown:?}");
    let done = expire(&other, "files", &[&window(7)], now).unwrap();
    // Twenty days and the day before, and the one that the window begins behind.
    assert_eq!((done.kept.len(), done.forget.len()), (22, 9));
    assert_eq!(shown, done);
    catalogue.repository.refresh().unwrap();
    assert_eq!(catalogue.repository.backups().len(), 22);

    assert!(!unlock_server(&catalogue, "files", "it is over").unwrap().locked);
    assert_eq!(unlock_server(&catalogue, "files", "").unwrap_err().code, Code::Usage);
    assert_eq!(expire(&other, "files", &[&window(7)], now).unwrap().kept.len(), 9);
}

#[test]
fn without_terms_and_with_terms_that_are_not_understood_nothing_is_forgotten_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (catalogue, now) = repository(dir.path());
    lock_server(&catalogue, "files", &[], "").unwrap();
    let nothing_goes = || {
        let done = expire(&catalogue, "files", &[&window(7)], now).unwrap();
        assert!(done.forget.is_empty() && done.kept.iter().all(|kept| kept.until.is_none()), "{done:?}");
    };
    nothing_goes();
    unlock_server(&catalogue, "files", "").unwrap();
    // Of a later program.
    let server = catalogue.server("files").unwrap().id;
    for terms in ["[{\"windov\": 1}]", "{}", "[]"] {
        let lock = ServerLockRecord { server, terms: Some(terms.to_owned()), reason: String::new() };
        catalogue.repository.append(Record::ServerLocked(lock)).unwrap();
        nothing_goes();
    }
}

#[test]
fn a_removed_server_comes_back_with_its_backups_and_a_name_that_is_taken_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (catalogue, _) = repository(dir.path());
    let gone = remove(&catalogue, "files", false).unwrap();
    assert_eq!(gone.backups, 31);
    assert!(catalogue.server("files").is_err());
    assert_eq!(removed(&catalogue).unwrap().len(), 1);
    assert_eq!(catalogue.repository.backups().len(), 31, "they stay");
    assert_eq!(undelete(&catalogue, "files").unwrap().backups, 31);
    assert!(removed(&catalogue).unwrap().is_empty());
    assert!(undelete(&catalogue, "files").is_err() && undelete(&catalogue, "shop").is_err());
    remove(&catalogue, "files", false).unwrap();
    let kind = ServerKind::Folder { path: dir.path().join("data").to_str().unwrap().to_owned() };
    add(&catalogue, Added { name: "files".to_owned(), kind, login: Login::default(), rebuilt: false })
        .unwrap();
    assert_eq!(undelete(&catalogue, "files").unwrap_err().code, Code::Usage, "another one has the name");
}
