//! Two persons, from outside: what takes something away waits for another administrator; a locked server gives nothing up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod bed;

use bed::{Bed, converse};
use holdfast_appliance::ServerKind;
use holdfast_appliance::server::{Added, add};
use holdfast_appliance::server_lock;
use holdfast_daemon::tokens::Role;
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;

const TWO: &str = "[approval]\nrequired = true\nwithin = '1h'\n";

impl Bed {
    fn backups(&self) -> Vec<String> {
        let answer = self.local("GET", "/api/v1/backups?server=files", None).1;
        let rows = answer["backups"].as_array().cloned().unwrap_or_default();
        rows.iter().map(|b| b["id"].as_str().unwrap().to_owned()).collect()
    }

    fn first_backup(&self) -> String {
        self.until("the first base", || self.backups().len() == 1);
        self.idle();
        self.backups().remove(0)
    }

    /// Until no job waits or runs.
    fn idle(&self) {
        self.until("the jobs' end", || {
            let jobs = self.local("GET", "/api/v1/jobs", None).1;
            let open = |job: &Value| job["standing"] == "queued" || job["standing"] == "running";
            !jobs["jobs"].as_array().unwrap().iter().any(open)
        });
    }

    /// Takes a backup; one that the schedule is just taking is waited for.
    fn take_backup(&self) {
        self.until("a backup", || {
            self.idle();
            let (status, job) = self.local("POST", "/api/v1/servers/files/backups", None);
            status == 202 && self.ended(&job)["standing"] == "done"
        });
        self.idle();
    }

    /// As the administrator `who`, over TLS.
    fn admin(&self, who: usize, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let token = if who == 1 { self.token(Role::Admin) } else { self.second() };
        self.network(method, &format!("/api/v1{path}"), Some(token), body)
    }

    /// The same with an idempotency key, over the socket.
    fn keyed(&self, who: usize, key: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let token = if who == 1 { self.token(Role::Admin) } else { self.second() };
        let stream = UnixStream::connect(self.at("socket")).unwrap();
        let header = format!("Authorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n");
        converse(stream, method, &format!("/api/v1{path}"), &header, body)
    }

    fn approve(&self, who: usize, id: &Value) -> (u16, Value) {
        self.admin(who, "POST", &format!("/approvals/{id}/approve"), None)
    }
}

#[test]
fn what_takes_something_away_waits_until_another_administrator_agrees() {
    let bed = Bed::start_with("", TWO);
    let id = bed.first_backup();
    let path = format!("/backups/{id}");
    // Behind the socket nobody can be told from anybody else.
    assert_eq!(bed.local("DELETE", &format!("/api/v1{path}"), None).0, 403);
    for role in [Role::Viewer, Role::Operator, Role::Restorer] {
        let token = Some(bed.token(role));
        for (method, path) in [
            ("DELETE", path.as_str()),
            ("DELETE", "/servers/files"),
            ("POST", "/servers/files/lock"),
            ("POST", "/servers/files/unlock"),
            ("POST", "/servers/files/undelete"),
            ("POST", "/prunes"),
            ("POST", "/approvals/1/approve"),
            ("POST", "/approvals/1/reject"),
        ] {
            let (status, answer) = bed.network(method, &format!("/api/v1{path}"), token, None);
            assert_eq!(status, 403, "{method} {path} as {role:?}: {answer}");
        }
    }
    let (status, request) = bed.admin(1, "DELETE", &path, Some(json!({ "reason": "a test" })));
    assert_eq!(
        (status, &request["decision"], &request["by"]),
        (202, &json!("waiting"), &json!("Admin")),
        "{request}"
    );
    assert_eq!(bed.admin(2, "DELETE", &path, Some(json!({ "reason": "a test" }))).0, 409, "it waits already");
    // Who asked does not agree himself; nor does the socket.
    let (status, answer) = bed.approve(1, &request["id"]);
    assert_eq!((status, &answer["code"]), (409, &json!("policy_forbids")), "{answer}");
    let local = format!("/api/v1/approvals/{}/approve", request["id"]);
    assert_eq!(bed.local("POST", &local, None).0, 403);
    assert_eq!(bed.backups(), std::slice::from_ref(&id));
    assert!(
        bed.local("GET", "/metrics", None).1.as_str().unwrap().contains("\nholdfast_approvals_waiting 1\n")
    );
    // A token counts over the socket, too, and for no more than it may.
    let over_socket = |token: &str, method: &str, path: &str| {
        let stream = UnixStream::connect(bed.at("socket")).unwrap();
        converse(stream, method, path, &format!("Authorization: Bearer {token}\r\n"), None)
    };
    assert_eq!(over_socket("hft_wrong", "GET", "/api/v1/status").0, 401);
    assert_eq!(over_socket(bed.token(Role::Viewer), "POST", &local).0, 403);
    let (status, done) = over_socket(bed.second(), "POST", &local);
    assert_eq!(
        (status, &done["decision"], &done["result"]["id"]),
        (200, &json!("approved"), &json!(id)),
        "{done}"
    );
    assert!(!bed.backups().contains(&id));
    assert_eq!(bed.approve(2, &request["id"]).0, 409, "once");
    assert_eq!(bed.approve(2, &json!(99)).0, 404);

    // Rejected, and taken back.
    for who in [2, 1] {
        let (status, request) = bed.admin(1, "DELETE", "/servers/files", None);
        assert_eq!(status, 202, "{request}");
        let (status, answer) = bed.admin(who, "POST", &format!("/approvals/{}/reject", request["id"]), None);
        assert_eq!((status, &answer["decision"]), (200, &json!("rejected")), "{answer}");
        assert_eq!(bed.approve(2, &request["id"]).0, 409);
    }
    // Agreed to: the server is gone, and comes back with what it had.
    bed.take_backup();
    let had = bed.backups();
    let (_, request) = bed.admin(2, "DELETE", "/servers/files", None);
    assert_eq!(bed.approve(1, &request["id"]).0, 200);
    let names = || bed.local("GET", "/api/v1/servers", None).1["servers"].as_array().unwrap().len();
    assert_eq!(names(), 0);
    let (status, back) = bed.admin(1, "POST", "/servers/files/undelete", None);
    assert_eq!((status, &back["name"]), (200, &json!("files")), "{back}");
    assert_eq!((names(), bed.backups()), (1, had));
    // A prune that a person asks for.
    let (status, request) = bed.admin(1, "POST", "/prunes", None);
    assert_eq!((status, &request["what"]["kind"]), (202, &json!("prune")), "{request}");
    let (_, done) = bed.approve(2, &request["id"]);
    let job = bed.ended(&json!({ "id": done["result"]["job"] }));
    assert_eq!((&job["kind"], &job["standing"]), (&json!("prune"), &json!("done")), "{job}");

    let (_, audit) = bed.admin(1, "GET", "/audit", None);
    let entries = audit["entries"].as_array().unwrap();
    assert_eq!(
        entries.iter().filter(|e| e["who"] == "Admin and Second" && e["outcome"] == "done").count(),
        2
    );
    assert_eq!(
        entries.iter().filter(|e| e["who"] == "Second and Admin" && e["outcome"] == "done").count(),
        1
    );
    let state = std::fs::read_to_string(bed.at("state/state.json")).unwrap();
    assert!(bed.tokens.iter().all(|(_, token)| !state.contains(token)));
}

#[test]
fn a_locked_server_gives_nothing_up_and_two_persons_end_the_lock() {
    let bed = Bed::start_with("", TWO);
    let id = bed.first_backup();
    let (status, lock) = bed.admin(1, "POST", "/servers/files/lock", Some(json!({ "reason": "a dispute" })));
    assert_eq!(
        (status, &lock["locked"], &lock["reason"]),
        (200, &json!(true), &json!("a dispute")),
        "{lock}"
    );
    assert_eq!(lock["terms"][0]["window"], "7d", "{lock}");
    let forbidden = |method: &str, path: &str| {
        let (status, answer) = bed.admin(1, method, path, None);
        assert_eq!((status, &answer["code"]), (409, &json!("policy_forbids")), "{method} {path}: {answer}");
    };
    forbidden("DELETE", &format!("/backups/{id}"));
    forbidden("DELETE", "/servers/files");
    // Asked for before the lock, agreed to after it.
    assert_eq!(bed.admin(1, "POST", "/servers/files/lock", None).0, 400, "it is locked");
    bed.until("the board", || bed.local("GET", "/api/v1/servers/files", None).1["locked"] == true);
    let (status, request) =
        bed.admin(1, "POST", "/servers/files/unlock", Some(json!({ "reason": "settled" })));
    assert_eq!(status, 202, "{request}");
    forbidden("DELETE", &format!("/backups/{id}"));
    assert_eq!(bed.approve(2, &request["id"]).1["result"]["locked"], false);
    let (status, request) = bed.admin(1, "DELETE", &format!("/backups/{id}"), None);
    assert_eq!(status, 202);
    assert_eq!(bed.admin(2, "POST", "/servers/files/lock", Some(json!({ "everything": true }))).0, 200);
    let (status, done) = bed.approve(2, &request["id"]);
    assert_eq!((status, &done["failure"]["code"]), (200, &json!("policy_forbids")), "{done}");
    assert_eq!(bed.backups(), [id]);
}

#[test]
fn without_a_second_person_one_administrator_is_enough_and_a_lock_holds_all_the_same() {
    let bed = Bed::start("");
    let id = bed.first_backup();
    assert_eq!(bed.local("POST", "/api/v1/servers/files/lock", Some(json!({ "everything": true }))).0, 200);
    assert_eq!(bed.local("GET", "/api/v1/servers/files/lock", None).1["terms"], Value::Null);
    assert_eq!(bed.local("DELETE", &format!("/api/v1/backups/{id}"), None).0, 409);
    assert_eq!(bed.local("POST", "/api/v1/servers/files/unlock", None).1["locked"], false);
    assert_eq!(bed.local("DELETE", &format!("/api/v1/backups/{id}"), None).1["id"], json!(id));
    assert_eq!(bed.local("DELETE", &format!("/api/v1/backups/{id}"), None).0, 404);
    assert!(bed.backups().iter().all(|left| *left != id));
}

#[test]
fn a_shorter_window_takes_nothing_away_until_a_second_person_agrees() {
    let bed = Bed::start_with("", &format!("{TWO}[policy.default]\nwindow = '35d'\n"));
    bed.first_backup();
    let written = std::fs::read_to_string(bed.at("holdfast.toml")).unwrap();
    let shorten = |window: &str| {
        let text = written.replace("window = '35d'", &format!("window = '{window}'"));
        std::fs::write(bed.at("holdfast.toml"), text).unwrap();
        assert!(bed.daemon().reload().unwrap().is_empty());
        // What no promise needs is looked for after each backup.
        bed.take_backup();
    };
    let requests = || bed.admin(1, "GET", "/approvals", None).1["requests"].as_array().unwrap().clone();
    let kept = |what: fn(&holdfast_daemon::state::ServerState) -> Option<String>| {
        bed.daemon().state.read(|c| c.servers.get("files").and_then(what))
    };
    let before = || kept(|s| s.before.as_ref().map(|(policy, _)| policy.window.to_string()));
    bed.until("a look at the policy", || kept(|s| s.policy.as_ref().map(|p| p.window.to_string())).is_some());
    assert!(requests().is_empty() && before().is_none());
    shorten("7d");
    bed.until("the request", || requests().len() == 1);
    assert_eq!(before().as_deref(), Some("35d"));
    let asked = requests();
    assert_eq!(
        (&asked[0]["what"]["kind"], &asked[0]["what"]["terms"]["window"], &asked[0]["by"]),
        (&json!("shorten_retention"), &json!("7d"), &json!("configuration"))
    );
    // Changed again: the older request is not the one to agree to.
    shorten("9d");
    bed.until("the second request", || requests().len() == 2);
    let asked = requests();
    assert_eq!(
        asked.iter().map(|r| r["decision"].as_str().unwrap()).collect::<Vec<_>>(),
        ["waiting", "withdrawn"],
        "{asked:?}"
    );
    assert_eq!(bed.approve(2, &asked[1]["id"]).0, 409);
    assert_eq!(before().as_deref(), Some("35d"));
    let (_, done) = bed.approve(2, &asked[0]["id"]);
    assert_eq!((&done["failure"], before()), (&Value::Null, None), "{done}");
    // Rejected: it is not asked for again, and the longer one goes on to count.
    shorten("2d");
    bed.until("the third request", || requests().len() == 3);
    let asked = requests();
    bed.admin(2, "POST", &format!("/approvals/{}/reject", asked[0]["id"]), None);
    bed.take_backup();
    assert_eq!((requests().len(), before().as_deref()), (asked.len(), Some("9d")));
}

#[test]
fn a_named_backup_is_taken_once_and_its_hold_ends_when_two_persons_agree() {
    let bed = Bed::start_with("", TWO);
    bed.first_backup();
    let path = "/api/v1/servers/files/backups";
    let wish = json!({ "name": "before-upgrade", "keep_for": "30d", "hold": true, "note": "why" });
    let with_key = |key: &str, body: &Value| {
        let stream = UnixStream::connect(bed.at("socket")).unwrap();
        converse(stream, "POST", path, &format!("Idempotency-Key: {key}\r\n"), Some(body.clone()))
    };
    bed.idle();
    let (status, job) = with_key("k1", &wish);
    assert_eq!((status, &job["work"]["name"]), (202, &json!("before-upgrade")), "{job}");
    let done = bed.ended(&job);
    let backup = &done["result"];
    assert_eq!((&done["standing"], &backup["held"]), (&json!("done"), &json!(true)), "{done}");
    assert!(backup["keep_until"].is_string());
    bed.idle();
    // The same request is the same job, though its name is taken by now; with another key it is refused, and so is a name
    // that can't be one.
    assert_eq!(with_key("k1", &wish).1["id"], job["id"]);
    let (status, refused) = with_key("k2", &wish);
    assert_eq!(status, 400, "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("before-upgrade"), "{refused}");
    for wrong in [json!({ "name": "a b" }), json!({ "name": "abc/d" }), json!({ "keep_for": "0" })] {
        assert_eq!(with_key("k3", &wrong).0, 400, "{wrong}");
    }
    let listed = bed.local("GET", "/api/v1/backups?server=files", None).1;
    assert_eq!(listed["backups"][1]["name"], "before-upgrade", "{listed}");
    let retention = bed.local("GET", "/api/v1/servers/files/retention", None).1;
    let kept = retention["retention"]["kept"].as_array().unwrap().clone();
    let kept = kept.iter().find(|kept| kept["id"] == backup["id"]).unwrap();
    assert_eq!(kept["until"], Value::Null, "{kept}");
    assert!(kept["reasons"].as_array().unwrap().contains(&json!("held")), "{kept}");

    // By its name; and nobody forgets it, not even two persons, as long as it is held.
    let named = "/backups/before-upgrade";
    let (status, answer) = bed.admin(1, "DELETE", named, None);
    assert_eq!((status, &answer["code"]), (409, &json!("policy_forbids")), "{answer}");
    assert_eq!(
        bed.network("POST", &format!("/api/v1{named}/hold"), Some(bed.token(Role::Operator)), None).0,
        403
    );
    let (status, request) =
        bed.admin(1, "POST", &format!("{named}/unhold"), Some(json!({ "reason": "over" })));
    assert_eq!((status, &request["what"]["kind"]), (202, &json!("release")), "{request}");
    assert_eq!(bed.admin(1, "DELETE", named, None).0, 409);
    let (_, done) = bed.approve(2, &request["id"]);
    assert_eq!((&done["result"]["held"], &done["failure"]), (&json!(false), &Value::Null), "{done}");
    // Its own date lies ahead.
    let (status, refused) = bed.admin(1, "DELETE", named, None);
    assert_eq!((status, &refused["code"]), (409, &json!("policy_forbids")), "{refused}");
    let plain = format!("/backups/{}", listed["backups"][0]["id"].as_str().unwrap());
    let (status, request) = bed.admin(1, "DELETE", &plain, None);
    assert_eq!(status, 202, "{request}");
    // Held again before the other one agreed: it stays.
    let court = || bed.admin(2, "POST", &format!("{plain}/hold"), Some(json!({ "reason": "court case 17" })));
    assert_eq!(court().1["held"], true);
    assert_eq!(bed.approve(2, &request["id"]).1["failure"]["code"], "policy_forbids");
    // The log says which backup is held, and why.
    let log = bed.admin(1, "GET", "/audit", None).1.to_string();
    let id = listed["backups"][0]["id"].as_str().unwrap();
    assert!(log.contains(&format!("hold the backup {id} of 'files': court case 17")), "{log}");
    // An approved release ends the hold that it was asked for, and no later one.
    let release = |who| bed.admin(who, "POST", &format!("{plain}/unhold"), None).1;
    let (first, second) = (release(1), release(2));
    assert_eq!(second["code"], "locked", "{second}");
    let id = holdfast_appliance::keep::find(&bed.daemon().catalogue, id).unwrap().id;
    assert!(bed.daemon().catalogue.repository.held_by(id).is_some());
    holdfast_appliance::own::release(&bed.daemon().catalogue, &id.to_string(), "", false).unwrap();
    assert_eq!(court().1["held"], true);
    assert_eq!(bed.approve(2, &first["id"]).1["failure"]["code"], "policy_forbids");
    assert!(bed.daemon().catalogue.repository.is_held(id));
    // A lock has a date and no end before it.
    let until = json!({ "until": "2099-01-01T00:00:00Z" });
    let (status, locked) = bed.admin(1, "POST", &format!("{named}/lock"), Some(until));
    assert_eq!((status, &locked["locked_until"]), (200, &json!("2099-01-01T00:00:00.000Z")), "{locked}");
    assert_eq!(bed.admin(1, "POST", &format!("{named}/lock"), None).0, 400);
    assert_eq!(bed.admin(1, "POST", "/backups/nobody/hold", None).0, 404);
    assert_eq!(bed.backups().len(), 2);
}

#[test]
fn a_request_with_a_key_is_done_once_and_answered_as_before() {
    let bed = Bed::start_with("", TWO);
    let id = bed.first_backup();
    let audited = || bed.admin(1, "GET", "/audit", None).1["entries"].as_array().unwrap().len();
    let twice = |who: usize, key: &str, method: &str, path: &str, body: Option<Value>| {
        let first = bed.keyed(who, key, method, path, body.clone());
        let entries = audited();
        assert_eq!(bed.keyed(who, key, method, path, body), first, "{method} {path}");
        assert_eq!(audited(), entries, "nothing was done: {method} {path}");
        first
    };
    let reason = Some(json!({ "reason": "a test" }));
    let path = format!("/backups/{id}");
    let (status, request) = twice(1, "f", "DELETE", &path, reason.clone());
    assert_eq!(status, 202, "{request}");
    assert_eq!(request["text"], format!("forget the backup {id} of 'files': a test"), "{request}");
    // A key is one request's, and one person's.
    assert_eq!(bed.keyed(1, "f", "DELETE", &path, Some(json!({ "reason": "another" }))).0, 400);
    assert_eq!(bed.keyed(2, "f", "DELETE", &path, reason).0, 400);
    assert_eq!(bed.keyed(1, "f", "POST", "/servers/files/backups", None).0, 400);
    let job = bed.keyed(1, "j", "POST", "/checks", None);
    assert_eq!((job.0, bed.keyed(1, "j", "POST", "/servers/files/lock", None).0), (202, 400), "{}", job.1);
    // A refusal is not kept: it was done by nobody.
    let approve = format!("/approvals/{}/approve", request["id"]);
    assert_eq!(bed.keyed(1, "a", "POST", &approve, None).0, 409);
    let (status, done) = twice(2, "b", "POST", &approve, None);
    assert_eq!((status, &done["result"]["id"]), (200, &json!(id)), "{done}");
    // What is gone by now is no reason to answer otherwise.
    assert_eq!(twice(1, "f", "DELETE", &path, Some(json!({ "reason": "a test" }))), (202, request));
    for (key, path) in [("l", "/servers/files/lock"), ("p", "/servers/files/pause")] {
        assert_eq!(twice(1, key, "POST", path, None).0, 200, "{path}");
    }
    let (_, request) = twice(1, "u", "POST", "/servers/files/unlock", None);
    let reject = format!("/approvals/{}/reject", request["id"]);
    assert_eq!(twice(1, "r", "POST", &reject, None).1["decision"], "rejected");
    // What is looked up is looked up behind the key: the server is gone by now, and the answer is the same.
    let unlocked = twice(1, "v", "POST", "/servers/files/unlock", None);
    assert_eq!(unlocked.0, 202, "{}", unlocked.1);
    bed.idle();
    let resumed = twice(1, "q", "POST", "/servers/files/resume", None);
    let catalogue = &bed.daemon().catalogue;
    server_lock::unlock_server(catalogue, "files", "").unwrap();
    server_lock::remove(catalogue, "files", false).unwrap();
    for (key, path, answer) in
        [("v", "/servers/files/unlock", &unlocked), ("q", "/servers/files/resume", &resumed)]
    {
        assert_eq!(&bed.keyed(1, key, "POST", path, None), answer, "{path}");
    }
    assert_eq!(bed.keyed(1, "new", "POST", "/servers/files/resume", None).0, 404);
    // Another person hears that the key was used, and not for what.
    let (status, refused) = bed.keyed(2, "v", "POST", "/servers/files/resume", None);
    assert_eq!(status, 400);
    assert!(!refused.to_string().contains("unlock"), "{refused}");
    // The daemon's next life knows the answers.
    let before = bed.keyed(1, "l", "POST", "/servers/files/lock", None);
    let bed = bed.again();
    assert_eq!(bed.keyed(1, "l", "POST", "/servers/files/lock", None), before);
}

#[test]
fn an_approval_is_for_the_server_and_the_lock_that_it_was_asked_for() {
    let bed = Bed::start_with("", TWO);
    bed.first_backup();
    let catalogue = &bed.daemon().catalogue;
    let (status, removal) = bed.admin(1, "DELETE", "/servers/files", None);
    assert_eq!((status, &removal["text"]), (202, &json!("protect the server 'files' no more")), "{removal}");
    assert_eq!(bed.admin(1, "POST", "/servers/files/lock", None).0, 200);
    let (_, unlock) = bed.admin(1, "POST", "/servers/files/unlock", Some(json!({ "reason": "over" })));
    assert_eq!(unlock["text"], "end the lock of the server 'files': over", "{unlock}");
    // On the repository itself, past the daemon: the lock is another one, and then the server.
    server_lock::unlock_server(catalogue, "files", "").unwrap();
    server_lock::lock_server(catalogue, "files", &[], "a new one").unwrap();
    let refused = |id: &Value, word: &str| {
        let (status, done) = bed.approve(2, id);
        assert_eq!((status, &done["failure"]["code"]), (200, &json!("policy_forbids")), "{done}");
        assert!(done["failure"]["message"].as_str().unwrap().contains(word), "{done}");
    };
    refused(&unlock["id"], "locked anew");
    assert!(server_lock::lock_of(catalogue, "files").unwrap().locked);
    server_lock::unlock_server(catalogue, "files", "").unwrap();
    server_lock::remove(catalogue, "files", false).unwrap();
    let kind = ServerKind::Folder { path: bed.at("data").to_str().unwrap().to_owned() };
    let again = Added { name: "files".to_owned(), kind, login: Default::default(), rebuilt: false };
    add(catalogue, again).unwrap();
    refused(&removal["id"], "another one has its name");
    assert!(catalogue.server("files").is_ok());
}
