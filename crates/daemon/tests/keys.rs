//! Idempotency keys: a request that was answered is answered the same again, whatever is gone since.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod bed;

use bed::{Bed, converse};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;

fn ask(bed: &Bed, method: &str, path: &str, key: &str, body: Option<&Value>) -> (u16, Value) {
    let stream = UnixStream::connect(bed.at("socket")).unwrap();
    converse(stream, method, &format!("/api/v1{path}"), &format!("Idempotency-Key: {key}\r\n"), body.cloned())
}

fn idle(bed: &Bed) {
    bed.until("the jobs' end", || {
        let jobs = bed.local("GET", "/api/v1/jobs", None).1;
        let open = |job: &Value| job["standing"] == "queued" || job["standing"] == "running";
        !jobs["jobs"].as_array().unwrap().iter().any(open)
    });
}

#[test]
fn what_was_answered_is_answered_the_same_again_before_anything_else_is_looked_up() {
    let bed = Bed::start("");
    bed.until("the first base", || {
        bed.local("GET", "/api/v1/backups?server=files", None).1["backups"].as_array().unwrap().len() == 1
    });
    let restore = json!({ "server": "files", "to": "fastest", "into": bed.at("restored/one") });
    let note = json!({ "note": "once" });
    let requests = [
        ("/servers/files/backups", "backup", Some(&note)),
        ("/servers/files/drills", "drill", None),
        ("/restores", "restore", Some(&restore)),
    ];
    let mut begun = Vec::new();
    for (path, key, body) in requests {
        idle(&bed);
        let (status, job) = ask(&bed, "POST", path, key, body);
        assert_eq!(status, 202, "{path}: {job}");
        begun.push(job["id"].clone());
    }
    idle(&bed);
    // A check may have ended before it is stopped; then the next one is.
    let mut tries = 0;
    let (stopped, key, answer) = loop {
        let job = bed.local("POST", "/api/v1/canaries", None).1;
        let key = format!("stop-{tries}");
        let (status, answer) = ask(&bed, "DELETE", &format!("/jobs/{}", job["id"]), &key, None);
        if status == 200 {
            break (job["id"].as_u64().unwrap(), key, answer);
        }
        tries += 1;
        assert!(tries < 50, "{answer}");
    };
    idle(&bed);

    // The server is protected no more, no restore may be made where that one was, and the job has left the list.
    assert_eq!(bed.local("DELETE", "/api/v1/servers/files", None).0, 200);
    std::fs::rename(bed.at("restored"), bed.at("moved")).unwrap();
    bed.daemon().state.change(|content| content.jobs.retain(|job| job.id != stopped)).unwrap();
    assert_eq!(bed.local("GET", &format!("/api/v1/jobs/{stopped}"), None).0, 404);
    for ((path, key, body), id) in requests.iter().zip(&begun) {
        let (status, again) = ask(&bed, "POST", path, key, *body);
        assert_eq!((status, &again["id"]), (202, id), "{path}: {again}");
        // A new one, and one of somebody else, are refused by what is there.
        assert_eq!(ask(&bed, "POST", path, "new", *body).0, 404, "{path}");
        let other = bed.token(holdfast_daemon::tokens::Role::Admin);
        let stream = UnixStream::connect(bed.at("socket")).unwrap();
        let header = format!("Authorization: Bearer {other}\r\nIdempotency-Key: {key}\r\n");
        let (status, refused) =
            converse(stream, "POST", &format!("/api/v1{path}"), &header, body.map(Value::clone));
        assert_eq!(status, 404, "{refused}");
        // And another request with the same key.
        let (status, refused) = ask(&bed, "POST", "/checks", key, None);
        assert_eq!(status, 400, "{refused}");
    }
    let path = format!("/jobs/{stopped}");
    assert_eq!(ask(&bed, "DELETE", &path, &key, None), (200, answer));
    assert_eq!(ask(&bed, "DELETE", &path, "new", None).0, 404);
}
