//! Names, own dates and holds of backups, on a real repository.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_appliance::ServerKind;
use holdfast_appliance::backup::{Options, backup};
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::error::Code;
use holdfast_appliance::init::init;
use holdfast_appliance::keep::{self, Wanted};
use holdfast_appliance::list::list;
use holdfast_appliance::own::{self, Own};
use holdfast_appliance::policy::{Keep, Policy, Reason, Span, expire};
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::prune;
use holdfast_appliance::server::{Added, add};
use holdfast_appliance::server_lock::{lock_server, remove, unlock_server};
use holdfast_appliance::settings::{Environment, Login};
use holdfast_format::record::{Record, ServerRecord};

const DAY: i64 = 86_400_000_000;

fn repository(dir: &std::path::Path) -> Catalogue {
    std::fs::write(dir.join("passphrase"), "only for tests\n").unwrap();
    let environment = Environment::of_daemon(dir.join("servers.toml"), Some(dir.join("spool"))).unwrap();
    let key = Key::PassphraseFile(dir.join("passphrase"));
    init(&environment, &dir.join("repository"), &key, "test").unwrap();
    let catalogue = Catalogue::open(environment, &dir.join("repository"), &key).unwrap();
    for name in ["files", "other"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
        std::fs::write(dir.join(name).join("file"), name).unwrap();
        let kind = ServerKind::Folder { path: dir.join(name).to_str().unwrap().to_owned() };
        add(&catalogue, Added { name: name.to_owned(), kind, login: Login::default(), rebuilt: false })
            .unwrap();
    }
    catalogue
}

fn take(catalogue: &Catalogue, server: &str, own: Own) -> holdfast_appliance::error::Result<String> {
    let options = Options { own, note: "a note".to_owned(), ..Options::default() };
    backup(catalogue, server, &options, &Unwatched).map(|view| view.id)
}

fn called(name: &str) -> Own {
    Own { name: Some(name.to_owned()), ..Own::default() }
}

#[test]
fn a_name_is_one_backups_of_its_server_and_stands_for_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = repository(dir.path());
    let first = take(&catalogue, "files", called("before-upgrade")).unwrap();
    let refused = take(&catalogue, "files", called("before-upgrade")).unwrap_err();
    assert!(refused.code == Code::Usage && refused.message.contains(&first), "{refused:?}");
    assert_eq!(take(&catalogue, "files", called("a name")).unwrap_err().code, Code::Usage);
    assert_eq!(catalogue.repository.backups().len(), 1, "nothing was copied");
    assert_eq!(keep::find(&catalogue, "before-upgrade").unwrap().id.to_string(), first);

    // Two that began at the same time: the second one's commit is refused, and nothing of it is listed.
    let writer = catalogue.repository.begin_backup(None).unwrap();
    let record = catalogue.repository.backups().remove(0);
    let draft = holdfast_store::BackupDraft {
        server: record.server,
        source: record.source,
        coordinates: record.coordinates,
        facts: record.facts,
        note: String::new(),
        warnings: Vec::new(),
    };
    let taken = writer.commit_unique(draft, own::NAME_FACT).unwrap_err();
    assert!(matches!(taken, holdfast_store::Error::FactTaken { .. }), "{taken}");
    assert_eq!(catalogue.repository.backups().len(), 1);

    // Another server may have one of this name; then the server says which.
    let second = take(&catalogue, "other", called("before-upgrade")).unwrap();
    assert!(keep::find(&catalogue, "before-upgrade").unwrap_err().next.unwrap().contains("/before-upgrade"));
    assert_eq!(keep::find(&catalogue, "other/before-upgrade").unwrap().id.to_string(), second);
    keep::forget(&catalogue, "files/before-upgrade", "", false).unwrap();
    assert_eq!(keep::find(&catalogue, "before-upgrade").unwrap().id.to_string(), second);
    take(&catalogue, "files", called("before-upgrade")).unwrap();

    // What is a name and the beginning of another one's id is neither.
    let begin = second.get(..4).unwrap();
    let both = take(&catalogue, "files", called(begin)).unwrap();
    let refused = keep::find(&catalogue, begin).unwrap_err();
    assert!(refused.next.unwrap().contains(&format!("files/{begin}")));
    assert_eq!(keep::find(&catalogue, &format!("files/{begin}")).unwrap().id.to_string(), both);
    assert_eq!(keep::find(&catalogue, &second).unwrap().id.to_string(), second);
}

#[test]
fn a_list_names_the_server_of_a_backup_after_it_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = repository(dir.path());
    take(&catalogue, "other", called("last-one")).unwrap();
    remove(&catalogue, "other", false).unwrap();
    let views = list(&catalogue, None).unwrap();
    assert_eq!((views[0].server.as_str(), views[0].name.as_deref()), ("other", Some("last-one")));
    assert_eq!(keep::find(&catalogue, "other/last-one").unwrap().id.to_string(), views[0].id);

    // Another server has its name: then the ids tell them apart, and nothing else.
    std::fs::create_dir_all(dir.path().join("third")).unwrap();
    let kind = ServerKind::Folder { path: dir.path().join("third").to_str().unwrap().to_owned() };
    add(&catalogue, Added { name: "other".to_owned(), kind, login: Login::default(), rebuilt: false })
        .unwrap();
    let second = take(&catalogue, "other", called("last-one")).unwrap();
    let refused = keep::find(&catalogue, "other/last-one").unwrap_err();
    assert!(refused.message.contains(&views[0].id) && refused.message.contains(&second), "{refused:?}");
}

#[test]
fn what_has_its_own_date_or_is_held_outlives_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = repository(dir.path());
    let dated = take(&catalogue, "files", Own { keep_for: Some(Span(30 * DAY)), ..Own::default() }).unwrap();
    let held = take(&catalogue, "files", Own { hold: true, ..called("for-the-court") }).unwrap();
    let plain = take(&catalogue, "files", Own::default()).unwrap();
    // Later, as far as retention is concerned: a backup of in a hundred days.
    let mut later = catalogue.repository.backups().remove(2);
    later.id = holdfast_format::ids::BackupId([9; 16]);
    later.started_us += 100 * DAY;
    later.finished_us += 100 * DAY;
    let now = later.finished_us + 1;
    catalogue.repository.append(Record::BackupCommitted(later.clone())).unwrap();
    later.id = holdfast_format::ids::BackupId([8; 16]);
    later.finished_us -= 50 * DAY;
    catalogue.repository.append(Record::BackupCommitted(later)).unwrap();
    let policy = Policy { window: Span(7 * DAY), ..Policy::default() };
    let at = |day: i64| {
        let shown =
            holdfast_appliance::policy::expiry(&catalogue, "files", &[&policy], now + (day - 100) * DAY);
        shown.unwrap()
    };
    let kept =
        |day: i64, id: &str| at(day).kept.iter().find(|kept| kept.id == id).map(|kept| kept.reasons.clone());
    assert_eq!(kept(29, &dated).unwrap(), [Reason::OwnDate]);
    assert_eq!(kept(31, &dated), None);
    assert_eq!(kept(29, &held).unwrap(), [Reason::Held]);
    assert_eq!(at(29).kept.iter().find(|kept| kept.id == held).unwrap().until, None);

    // The calendar of the command line, a person and the daemon's expiry: none takes away what is held.
    let wanted = Wanted { keep: Keep { last: Some(1), ..Keep::default() }, within: None };
    keep::expire(&catalogue, "files", wanted, true).unwrap();
    for dry_run in [true, false] {
        let refused = keep::forget(&catalogue, "for-the-court", "", dry_run).unwrap_err();
        assert_eq!(refused.code, Code::PolicyForbids);
        assert!(refused.next.unwrap().contains("unhold"));
    }
    let done = expire(&catalogue, "files", &[&policy], now).unwrap();
    assert!(done.forget.contains(&dated) && done.forget.contains(&plain) && !done.forget.contains(&held));

    // What was taken with a date is not forgotten by hand before it.
    let dated = take(&catalogue, "files", Own { keep_for: Some(Span(30 * DAY)), ..Own::default() }).unwrap();
    for dry_run in [true, false] {
        let refused = keep::forget(&catalogue, &dated, "", dry_run).unwrap_err();
        assert!(
            refused.code == Code::PolicyForbids && refused.message.contains("is kept until"),
            "{refused:?}"
        );
    }

    // What stands longest is what is told: a lock beyond that date, and a hold before either.
    let told =
        || [true, false].map(|dry_run| keep::forget(&catalogue, &dated, "", dry_run).unwrap_err().message);
    let today = holdfast_appliance::time::now();
    keep::lock(&catalogue, &dated, today + 20 * DAY).unwrap();
    assert!(told().iter().all(|message| message.contains("is kept until")), "{:?}", told());
    keep::lock(&catalogue, &dated, today + 60 * DAY).unwrap();
    assert!(told().iter().all(|message| message.contains("is locked until")), "{:?}", told());
    own::hold(&catalogue, &dated, "").unwrap();
    assert!(told().iter().all(|message| message.contains("is held")), "{:?}", told());
    own::release(&catalogue, &dated, "", false).unwrap();

    // Whatever program says that it is not wanted: its blocks stay.
    let id = keep::find(&catalogue, &held).unwrap().id;
    let gone = Record::BackupForgotten { backup: id, reason: "an older program".to_owned() };
    catalogue.repository.append(gone).unwrap();
    let stays = || catalogue.repository.retained(0).unwrap().iter().any(|b| b.id == id);
    prune::prune(&catalogue, prune::Options { dead_percent_max: 0, grace: Span(0) }, false, &Unwatched)
        .unwrap();
    assert!(stays());
}

#[test]
fn a_hold_begins_and_ends_by_a_persons_word_and_survives_a_reader_of_today() {
    let dir = tempfile::tempdir().unwrap();
    let catalogue = repository(dir.path());
    let id = take(&catalogue, "files", Own { hold: true, ..Own::default() }).unwrap();
    let newer = take(&catalogue, "files", Own::default()).unwrap();
    let is_held = |id: &str| {
        let views = list(&catalogue, Some("files")).unwrap();
        let view = views.iter().find(|view| view.id == id).unwrap().held;
        assert_eq!(view, catalogue.repository.is_held(keep::find(&catalogue, id).unwrap().id));
        view
    };
    let records = || catalogue.repository.records().len();
    assert!(is_held(&id) && !is_held(&newer));
    let before = records();
    assert!(own::hold(&catalogue, &id, "again").unwrap().held);
    assert_eq!(records(), before, "it is held already");
    assert!(own::release(&catalogue, &id, "", true).unwrap().held, "a dry run");
    // Of a locked server nothing that protects is taken away.
    lock_server(&catalogue, "files", &[], "").unwrap();
    assert_eq!(own::release(&catalogue, &id, "", false).unwrap_err().code, Code::PolicyForbids);
    assert!(own::hold(&catalogue, &newer, "too").unwrap().held);
    unlock_server(&catalogue, "files", "").unwrap();
    // What was asked of one hold is not done to the next one.
    let asked_of = own::hold_number(&catalogue, &id).unwrap();
    assert!(!own::release(&catalogue, &id, "", false).unwrap().held);
    assert_eq!(own::hold_number(&catalogue, &id).unwrap(), None);
    assert!(own::hold(&catalogue, &id, "court case 17").unwrap().held);
    for other in [asked_of, None] {
        assert_eq!(own::release_from(&catalogue, &id, other, "").unwrap_err().code, Code::PolicyForbids);
    }
    assert!(is_held(&id));
    let now = own::hold_number(&catalogue, &id).unwrap();
    assert!(now.is_some() && !own::release_from(&catalogue, &id, now, "").unwrap().held);
    own::hold(&catalogue, &id, "again").unwrap();
    assert!(!own::release(&catalogue, &id, "it is over", false).unwrap().held);
    assert!(!is_held(&id) && is_held(&newer));
    assert_eq!(keep::forget(&catalogue, &newer, "", false).unwrap_err().code, Code::PolicyForbids);
    keep::forget(&catalogue, &id, "", false).unwrap();
    let server: ServerRecord = catalogue.server("files").unwrap();
    assert_eq!(catalogue.backups_of(&server).len(), 1);
}
