//! Expiry on a real repository: what is shown is what goes, and what a promise needs stays.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_appliance::ServerKind;
use holdfast_appliance::backup::{Options, backup, taken_by};
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::init::init;
use holdfast_appliance::policy::{Keep, Policy, Reason, Span, expire, expiry};
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::server::{Added, add};
use holdfast_appliance::settings::{Environment, Login};
use holdfast_format::ids::BackupId;
use holdfast_format::record::Record;

const DAY: i64 = 86_400_000_000;

fn repository(dir: &std::path::Path) -> Catalogue {
    std::fs::write(dir.join("passphrase"), "only for tests\n").unwrap();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("data/file"), "content").unwrap();
    let environment = Environment::of_daemon(dir.join("servers.toml"), Some(dir.join("spool"))).unwrap();
    let key = Key::PassphraseFile(dir.join("passphrase"));
    init(&environment, &dir.join("repository"), &key, "test").unwrap();
    let catalogue = Catalogue::open(environment, &dir.join("repository"), &key).unwrap();
    let kind = ServerKind::Folder { path: dir.join("data").to_str().unwrap().to_owned() };
    add(&catalogue, Added { name: "files".to_owned(), kind, login: Login::default(), rebuilt: false })
        .unwrap();
    catalogue
}

#[test]
fn what_is_shown_is_what_goes_and_what_a_promise_needs_stays() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = repository(dir.path());
    let options = Options { job: Some("state/7".to_owned()), ..Options::default() };
    let newest = backup(&catalogue, "files", &options, &Unwatched).unwrap();
    assert_eq!(taken_by(&catalogue, "state/7").unwrap().map(|b| b.id), Some(newest.id.clone()));
    assert!(taken_by(&catalogue, "state/8").unwrap().is_none());

    // A month of daily backups before it.
    let real = catalogue.repository.backups().remove(0);
    for day in 1..=30_u8 {
        let mut old = real.clone();
        old.id = BackupId([day; 16]);
        old.started_us -= i64::from(31 - day) * DAY;
        old.finished_us -= i64::from(31 - day) * DAY;
        catalogue.repository.append(Record::BackupCommitted(old)).unwrap();
    }
    // The oldest one is locked: neither policy would keep it.
    let locked = BackupId([1; 16]);
    let now = real.finished_us + 1;
    catalogue.repository.lock_backup(locked, now + DAY).unwrap();
    let policy = Policy {
        window: Span(7 * DAY),
        keep: Keep { last: Some(12), ..Keep::default() },
        ..Policy::default()
    };
    let longer = Policy { window: Span(20 * DAY), ..Policy::default() };

    let shown = expiry(&catalogue, "files", &[&policy], now).unwrap();
    assert_eq!(shown.kept.len() + shown.forget.len(), 31);
    assert_eq!(shown.kept.len(), 13);
    assert_eq!((&shown.kept[0].id, &shown.kept[0].reasons), (&locked.to_string(), &vec![Reason::OwnDate]));
    let reasons = &shown.kept.last().unwrap().reasons;
    assert!(reasons.contains(&Reason::Window), "{reasons:?}");
    assert_eq!(catalogue.repository.backups().len(), 31, "looking forgets nothing");

    // While the grace of a longer one runs, it counts.
    let graced = expire(&catalogue, "files", &[&policy, &longer], now).unwrap();
    // Twenty days and the day before, and the one that the window begins behind.
    assert_eq!(graced.kept.len(), 23);
    assert_eq!(catalogue.repository.backups().len(), 23);

    let shown = expiry(&catalogue, "files", &[&policy], now).unwrap();
    let done = expire(&catalogue, "files", &[&policy], now).unwrap();
    assert_eq!(shown, done);
    let left: Vec<String> = catalogue.repository.backups().iter().map(|b| b.id.to_string()).collect();
    assert_eq!(left.len(), 13);
    assert!(left.contains(&newest.id) && done.forget.iter().all(|id| !left.contains(id)));
    let again = expire(&catalogue, "files", &[&policy], now).unwrap();
    assert!(again.forget.is_empty(), "{again:?}");
}
