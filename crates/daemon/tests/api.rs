//! The API from outside: the socket, TLS, tokens, roles, the allow-list, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod bed;

use bed::{Bed, CERTIFICATE, KEY, converse};
use holdfast_daemon::config::Config;
use holdfast_daemon::daemon::Daemon;
use holdfast_daemon::tokens::Role;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Somebody outside, over TLS: takes every request but the first POST, which it answers with 500.
struct Receiver {
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone, Debug)]
struct Heard {
    line: String,
    head: String,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or("")
    }
}

impl Receiver {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(CERTIFICATE).unwrap()],
                rustls::pki_types::PrivateKeyDer::from_pem_file(KEY).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (all, flag) = (Arc::clone(&heard), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, stream);
                // A client that ends in the middle is none.
                let Some(request) = read_request(&mut stream) else { continue };
                let mut all = all.lock().unwrap();
                let first =
                    request.line.starts_with("POST") && !all.iter().any(|h| h.line.starts_with("POST"));
                let status = if first { "500 No" } else { "204 Yes" };
                all.push(request);
                let _ =
                    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { port, heard, stop, thread: Some(thread) }
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Messages of alerts of the server, as they came.
    fn alerts(&self) -> Vec<(Heard, Value)> {
        let posts = self.heard().into_iter().filter(|h| h.line.starts_with("POST /hook "));
        posts.map(|h| (h.clone(), serde_json::from_str(&h.body).unwrap())).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn read_request(stream: &mut impl Read) -> Option<Heard> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let (line, head) = head.split_once("\r\n")?;
            let heard = Heard { line: line.into(), head: head.into(), body: body.into() };
            if body.len() >= heard.header("content-length").parse().unwrap_or(0) {
                return Some(heard);
            }
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}

#[test]
fn an_alert_is_signed_tried_again_and_over_in_the_end_and_the_ping_is_heard() {
    let receiver = Receiver::start();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "only for this test\n").unwrap();
    let port = receiver.port;
    let bed = Bed::start_with(
        "",
        &format!(
            "[alerts]\nafter = 0\nping = 'https://127.0.0.1:{port}/ping/secret-part'\nping_every = '1s'\n\
             ca = '{CERTIFICATE}'\n[[alerts.webhook]]\nurl = 'https://127.0.0.1:{port}/hook'\nsecret_file = {secret:?}\n"
        ),
    );
    let wait = |event: &str, code: &str| {
        bed.until(&format!("{code} {event}"), || {
            receiver.alerts().iter().any(|(_, body)| body["event"] == event && body["code"] == code)
        });
    };
    // Without a backup that is the alert, paused or not.
    bed.until("the first base", || {
        bed.local("GET", "/api/v1/backups?server=files", None).1["backups"].as_array().unwrap().len() == 1
    });
    assert_eq!(bed.local("POST", "/api/v1/servers/files/pause", None).0, 200);
    wait("raised", "paused");
    assert_eq!(bed.local("POST", "/api/v1/servers/files/resume", None).0, 200);
    wait("resolved", "paused");
    let alerts = receiver.alerts();
    for (heard, body) in &alerts {
        let signed = holdfast_daemon::alerts::signature(
            b"only for this test",
            heard.header("x-holdfast-timestamp"),
            &heard.body,
        );
        assert_eq!(heard.header("x-holdfast-signature"), format!("sha256={signed}"), "{heard:?}");
        assert_eq!(heard.header("x-holdfast-delivery"), body["id"].as_str().unwrap());
        // The host's disk may be an alert of its own.
        assert!(body["server"] == "files" || body["code"] == "space", "{body}");
    }
    // The first one was refused: it came again, the same.
    bed.until("the first one again", || {
        receiver.alerts().iter().skip(1).any(|(heard, _)| heard.body == alerts[0].0.body)
    });
    bed.until("the ping", || receiver.heard().iter().any(|h| h.line == "GET /ping/secret-part HTTP/1.1"));
    bed.until("the metrics", || {
        let metrics = bed.local("GET", "/metrics", None).1;
        let metrics = metrics.as_str().unwrap();
        metrics.contains("holdfast_alert_outbox 0\n")
            && metrics.contains("\nholdfast_ping_last_success_timestamp_seconds ")
    });
    // Addresses may be secrets.
    let state = std::fs::read_to_string(bed.at("state/state.json")).unwrap();
    assert!(
        !state.contains("secret-part") && !state.contains("/hook") && !state.contains("only for this test")
    );
}

#[test]
fn roles_are_kept_over_tls_and_every_try_is_noted() {
    let bed = Bed::start("'127.0.0.0/8'");
    let requests: [(&str, &str, Role); 9] = [
        ("GET", "/api/v1/status", Role::Viewer),
        ("GET", "/metrics", Role::Viewer),
        ("GET", "/api/v1/jobs", Role::Viewer),
        ("GET", "/api/v1/servers/files/timeline", Role::Viewer),
        ("GET", "/api/v1/servers/files/doctor", Role::Operator),
        ("POST", "/api/v1/servers/files/pause", Role::Operator),
        ("POST", "/api/v1/servers/files/resume", Role::Operator),
        ("POST", "/api/v1/restore-plans", Role::Restorer),
        ("GET", "/api/v1/audit", Role::Admin),
    ];
    for (method, path, needs) in requests {
        assert_eq!(bed.network(method, path, None, None).0, 401, "{path} without a token");
        assert_eq!(bed.network(method, path, Some("hft_wrong"), None).0, 401, "{path} with a wrong one");
        for (role, token) in &bed.tokens {
            let (status, answer) = bed.network(method, path, Some(token), None);
            let refused = status == 403;
            assert_eq!(refused, !role.may(needs), "{method} {path} as {role:?}: {status} {answer}");
            if refused {
                assert_eq!(answer["code"], "forbidden");
            }
        }
    }
    let (_, audit) = bed.network("GET", "/api/v1/audit", Some(bed.token(Role::Admin)), None);
    assert_eq!(audit["intact"], true);
    let forbidden = audit["entries"].as_array().unwrap().iter().filter(|e| e["outcome"] == "forbidden");
    assert!(forbidden.count() >= 10, "{audit}");
    // No token is ever written anywhere.
    let token = bed.token(Role::Admin);
    for file in ["state/audit.log", "state/state.json", "tokens.toml"] {
        assert!(!std::fs::read_to_string(bed.at(file)).unwrap().contains(token), "{file}");
    }
    // The page and its kin need no token, and hold nothing.
    for path in [
        "/",
        "/app.js",
        "/style.css",
        "/timeline.js",
        "/restore.js",
        "/backups.js",
        "/icon.svg",
        "/healthz",
        "/readyz",
    ] {
        assert_eq!(bed.network("GET", path, None, None).0, 200, "{path}");
    }
}

#[test]
fn who_is_not_on_the_allow_list_gets_nothing_and_plain_text_gets_nothing() {
    let bed = Bed::start("'10.0.0.0/8'");
    assert_eq!(bed.network("GET", "/", None, None).0, 0);
    drop(bed);
    let bed = Bed::start("");
    let plain = TcpStream::connect(("127.0.0.1", bed.port)).unwrap();
    assert_eq!(converse(plain, "GET", "/", "", None).0, 0);
    assert_eq!(bed.network("GET", "/api/v1/me", Some(bed.token(Role::Viewer)), None).1["role"], "viewer");
}

#[test]
fn a_backup_and_a_restore_are_jobs_and_what_cant_be_is_refused_with_the_reason() {
    let bed = Bed::start("");
    // The schedule takes the first one by itself; it is listed before its job has ended.
    bed.until("the first base", || {
        bed.local("GET", "/api/v1/backups?server=files", None).1["backups"].as_array().unwrap().len() == 1
    });
    let jobs = bed.local("GET", "/api/v1/jobs", None).1;
    let scheduled = jobs["jobs"].as_array().unwrap().iter().find(|job| job["work"]["kind"] == "backup");
    bed.ended(scheduled.unwrap_or_else(|| panic!("a backup without a job: {jobs}")));
    let post = |path: &str, body: Value| bed.local("POST", &format!("/api/v1{path}"), Some(body));
    let (status, job) = post("/servers/files/backups", json!({ "note": "before v7" }));
    assert_eq!(status, 202, "{job}");
    let job = bed.ended(&job);
    assert_eq!((&job["standing"], &job["result"]["note"]), (&json!("done"), &json!("before v7")), "{job}");

    let into = bed.at("restored/one");
    let wanted = json!({ "server": "files", "to": "fastest", "into": into });
    let (status, plan) = post("/restore-plans", wanted.clone());
    assert_eq!(status, 200, "{plan}");
    assert!(!into.exists(), "a plan changes nothing");
    let (_, job) = post("/restores", wanted);
    let job = bed.ended(&job);
    assert_eq!(job["standing"], "done", "{job}");
    assert_eq!(std::fs::read(into.join("file")).unwrap(), vec![7; 100_000]);

    a_restore_over_a_folder_rewrites_what_differs(&bed, &into);
    a_drill_is_proved_kept_and_cleared_away_and_gives_an_estimate(&bed);
    the_history_of_this_minute_is_there(&bed);
    the_report_has_it_all_and_rows_are_not_for_everybody(&bed);
    a_prune_gives_space_back(&bed);

    let refused = |status: u16, code: &str, answer: (u16, Value)| {
        assert_eq!((answer.0, answer.1["code"].as_str().unwrap()), (status, code), "{}", answer.1);
        assert!(!answer.1["detail"].as_str().unwrap().is_empty());
    };
    refused(404, "not_found", post("/servers/nobody/backups", json!({})));
    refused(400, "usage", post("/servers/files/backups", json!({ "nota": 1 })));
    refused(405, "method_not_allowed", bed.local("PUT", "/api/v1/status", None));
    refused(404, "not_found", bed.local("GET", "/api/v1/nothing", None));
    refused(404, "not_found", bed.local("GET", "/api/v1/jobs/99999", None));
    refused(413, "usage", post("/servers/files/backups", json!({ "note": "x".repeat(70_000) })));
    refused(400, "usage", bed.local("GET", "/api/v1/servers/files/at?to=yesterday", None));
    std::os::unix::fs::symlink("/tmp", bed.at("restored/link")).unwrap();
    for into in ["/etc/x", "relative", &format!("{}/../x", bed.at("restored").display())] {
        refused(400, "usage", post("/restores", json!({ "server": "files", "to": "fastest", "into": into })));
    }
    for into in [bed.at("restored"), bed.at("restored/link/x")] {
        refused(400, "usage", post("/restores", json!({ "server": "files", "to": "fastest", "into": into })));
    }
    bed.until("the board shows it", || {
        let metrics = bed.local("GET", "/metrics", None).1;
        metrics.as_str().unwrap().contains("holdfast_protected{server=\"files\"} 1\n")
    });
    let metrics = bed.local("GET", "/metrics", None).1;
    for name in ["last_success_age_seconds", "repo_free_bytes", "http_request_seconds_count", "build_info"] {
        assert!(metrics.as_str().unwrap().contains(&format!("\nholdfast_{name}")), "{name}");
    }
    what_is_shipped_names_metrics_that_there_are(metrics.as_str().unwrap());
}

/// Over what a restore made, and over a folder of somebody else's with its name typed again.
fn a_restore_over_a_folder_rewrites_what_differs(bed: &Bed, made: &Path) {
    let post = |path: &str, body: Value| bed.local("POST", &format!("/api/v1{path}"), Some(body));
    let foreign = bed.at("restored/foreign");
    std::fs::create_dir(&foreign).unwrap();
    for into in [made, &foreign] {
        std::fs::write(into.join("file"), vec![9; 100_000]).unwrap();
        std::fs::write(into.join("litter"), "x").unwrap();
    }
    let wanted = |into: &Path, delta: Option<bool>, confirm: Option<&str>| {
        let mut wanted = json!({ "server": "files", "to": "fastest", "into": into });
        wanted.as_object_mut().unwrap().extend(delta.map(|delta| ("delta".to_owned(), json!(delta))));
        wanted.as_object_mut().unwrap().extend(confirm.map(|name| ("confirm".to_owned(), json!(name))));
        wanted
    };
    for (delta, confirm) in
        [(None, Some("foreign")), (Some(false), Some("foreign")), (Some(true), Some("other"))]
    {
        let (status, why) = post("/restores", wanted(&foreign, delta, confirm));
        assert_eq!((status, &why["code"]), (400, &json!("usage")), "{why}");
    }
    // Without the name typed again it may be looked at, and is not done.
    let (status, plan) = post("/restore-plans", wanted(&foreign, Some(true), None));
    assert_eq!((status, &plan["delta"]["removed"]), (200, &json!(["litter"])), "{plan}");
    let (status, job) = post("/restores", wanted(&foreign, Some(true), None));
    assert_eq!(status, 202, "{job}");
    assert_eq!(bed.ended(&job)["standing"], "failed", "{job}");
    assert_eq!(std::fs::read(foreign.join("litter")).unwrap(), b"x");
    for (into, confirm) in [(made, Some("one")), (&foreign, Some("foreign"))] {
        let (status, job) = post("/restores", wanted(into, Some(true), confirm));
        assert_eq!(status, 202, "{job}");
        let job = bed.ended(&job);
        assert_eq!((&job["standing"], &job["work"]["delta"]), (&json!("done"), &json!(true)), "{job}");
        assert_eq!(std::fs::read(into.join("file")).unwrap(), vec![7; 100_000]);
        assert!(!into.join("litter").exists(), "what is not in the backup is removed");
    }
}

/// The rules and the dashboard in tools/packaging ask for nothing that nobody tells.
fn what_is_shipped_names_metrics_that_there_are(metrics: &str) {
    let rules = include_str!("../../../tools/packaging/prometheus-rules.yaml");
    let dashboard = include_str!("../../../tools/packaging/grafana-dashboard.json");
    let panels: Value = serde_json::from_str(dashboard).unwrap();
    assert!(panels["panels"].as_array().unwrap().len() >= 8);
    for (file, text, least) in [("rules", rules, 15), ("dashboard", dashboard, 12)] {
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = text.split(|c: char| !of_name(c)).filter(|word| word.starts_with("holdfast_"));
        let names: std::collections::BTreeSet<&str> = words.collect();
        assert!(names.len() >= least, "{file}: {names:?}");
        for name in names {
            let family = name.trim_end_matches("_sum").trim_end_matches("_count");
            let told = [name, family].iter().any(|n| metrics.contains(&format!("\n# TYPE {n} ")));
            assert!(told, "{file} asks for {name}, which is not told");
        }
    }
}

fn a_drill_is_proved_kept_and_cleared_away_and_gives_an_estimate(bed: &Bed) {
    // What a drill that died left behind.
    let id: Value = serde_json::from_slice(&std::fs::read(bed.at("state/state.json")).unwrap()).unwrap();
    let left = bed.at(&format!("drills/drill-{}-0", id["id"].as_str().unwrap()));
    let stranger = bed.at("drills/drill-other-0");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::create_dir_all(&stranger).unwrap();
    let (status, job) = bed.local("POST", "/api/v1/servers/files/drills", None);
    assert_eq!(status, 202, "{job}");
    let job = bed.ended(&job);
    assert_eq!((&job["standing"], &job["result"]["proved"]), (&json!("done"), &json!(true)), "{job}");
    let names = std::fs::read_dir(bed.at("drills")).unwrap().map(|e| e.unwrap().path());
    assert_eq!(names.collect::<Vec<_>>(), [stranger], "only what is not ours stays");
    let (_, answer) = bed.local("GET", "/api/v1/servers/files/drills", None);
    assert_eq!((&answer["drills"][0]["proved"], &answer["drills"][0]["drill"]), (&json!(true), &json!(true)));
    assert_eq!(answer["drills"][0]["bytes"], 100_000, "{answer}");
    bed.until("the board shows the drill and the estimate", || {
        let server = bed.local("GET", "/api/v1/servers/files", None).1;
        server["drill"]["last"]["proved"] == true
            && server["drill"]["due"].is_string()
            && server["estimate"]["restores"].as_u64() >= Some(1)
            // A folder has no log; its parts are drills, base and check.
            && server["trust"]["parts"].as_array().is_some_and(|parts| parts.len() == 4 && parts[0]["points"] == 25.0)
    });
    let metrics = bed.local("GET", "/metrics", None).1;
    assert!(metrics.as_str().unwrap().contains("holdfast_drill_proved{server=\"files\"} 1\n"));
    assert!(metrics.as_str().unwrap().contains("holdfast_trust{server=\"files\"} "));
}

/// A server's and the repository's; what is not kept is refused by name.
fn the_history_of_this_minute_is_there(bed: &Bed) {
    let known = |path: &str, metric: &str| {
        let (status, view) =
            bed.local("GET", &format!("/api/v1/{path}?metric={metric}&from=-1h&points=7"), None);
        assert_eq!(status, 200, "{view}");
        let series = view["series"][0].clone();
        assert_eq!(series["metric"], metric);
        let points = series["max"].as_array().unwrap();
        assert!(points.len() <= 7 && view["step_seconds"].as_u64() >= Some(540), "{view}");
        points
            .iter()
            .filter_map(Value::as_f64)
            .fold(None, |most: Option<f64>, v| Some(most.unwrap_or(v).max(v)))
    };
    // The first record is of the first board, which knew of no backup yet or of one: a whole minute is not waited for.
    bed.until("the first minute is kept", || known("history", "free_bytes").is_some());
    assert!(known("history", "free_bytes").unwrap() > 0.0);
    bed.until("and the server's", || known("servers/files/history", "backups").is_some());
    assert_eq!(known("servers/files/history", "lag_seconds"), None, "a folder has no log");
    let (_, all) = bed.local("GET", "/api/v1/servers/files/history", None);
    assert_eq!(all["series"].as_array().unwrap().len(), holdfast_daemon::history::OF_SERVER.len());
    for (path, status) in [
        ("servers/nobody/history", 404),
        ("servers/files/history?metric=nothing", 400),
        ("servers/files/history?from=yesterday", 400),
        ("history?points=0", 400),
        ("history?points=x", 400),
        ("history?from=-1h&to=-2h", 400),
    ] {
        let (got, why) = bed.local("GET", &format!("/api/v1/{path}"), None);
        assert_eq!(got, status, "{path}: {why}");
    }
}

/// What was promised, kept and proved; a viewer sees neither it nor rows.
fn the_report_has_it_all_and_rows_are_not_for_everybody(bed: &Bed) {
    let (status, report) = bed.local("GET", "/api/v1/report?from=-7d", None);
    assert_eq!(status, 200, "{report}");
    let server = &report["servers"][0];
    assert_eq!(
        (&report["schema"], &server["server"], &server["policy"]),
        (&json!(1), &json!("files"), &json!("default"))
    );
    assert!(
        !server["backups"].as_array().unwrap().is_empty() && server["terms"]["window"].is_string(),
        "{server}"
    );
    let proofs = server["proofs"].as_array().unwrap();
    assert!(proofs.iter().any(|p| p["drill"] == true && p["proved"] == true), "{server}");
    assert!((7..=8).contains(&server["days"].as_array().unwrap().len()), "{server}");
    assert!(report["jobs"]["drill"]["done"].as_u64() >= Some(1), "{report}");
    assert_eq!(
        (&report["audit"]["intact"], report["audit"]["hash"].as_str().unwrap().len()),
        (&json!(true), 64)
    );
    let asked = report["audit"]["entries"][0]["what"].as_str().unwrap();
    assert_eq!(asked, "GET /report", "that it was asked for is noted before it is made");
    for path in [
        "/api/v1/report",
        "/api/v1/servers/files/diff?table=a.b&from=-1h",
        "/api/v1/servers/files/transactions/x",
    ] {
        assert_eq!(bed.network("GET", path, Some(bed.token(Role::Viewer)), None).0, 403, "{path}");
    }
    // The restored server would hold the account's password.
    let replica =
        json!({ "server": "files", "to": "fastest", "into": bed.at("restored/t"), "as_replica_of": "db1" });
    for (role, status) in [(Role::Restorer, 403), (Role::Admin, 400)] {
        let path = "/api/v1/restore-plans";
        assert_eq!(
            bed.network("POST", path, Some(bed.token(role)), Some(replica.clone())).0,
            status,
            "{role:?}"
        );
    }
    for path in [
        "report?from=-401d",
        "report?from=-1h&to=-2h",
        "servers/files/diff?table=a.b",
        "servers/files/transactions/x?limit=0",
    ] {
        assert_eq!(bed.local("GET", &format!("/api/v1/{path}"), None).0, 400, "{path}");
    }
    let (status, why) = bed.local(
        "POST",
        "/api/v1/restore-plans",
        Some(json!({ "server": "files", "to": "fastest", "into": bed.at("restored/t"), "tables": ["nonsense"] })),
    );
    assert_eq!((status, &why["code"]), (400, &json!("usage")), "{why}");
}

fn a_prune_gives_space_back(bed: &Bed) {
    let (status, job) = bed.local("POST", "/api/v1/prunes", None);
    assert_eq!(status, 202, "{job}");
    let job = bed.ended(&job);
    assert_eq!((&job["standing"], &job["result"]["dry_run"]), (&json!("done"), &json!(false)), "{job}");
    bed.until("the board shows it", || {
        bed.local("GET", "/api/v1/status", None).1["repository"]["pruned"].is_string()
    });
}

#[test]
fn a_drill_without_room_is_refused_by_name() {
    let bed = Bed::start("");
    bed.until("the first base", || {
        bed.local("GET", "/api/v1/backups?server=files", None).1["backups"].as_array().unwrap().len() == 1
    });
    let text = std::fs::read_to_string(bed.at("holdfast.toml")).unwrap();
    let drill = || bed.local("POST", "/api/v1/servers/files/drills", None);
    std::fs::write(bed.at("holdfast.toml"), text.replace("[drills]", "[drills]\nspace = '1KiB'")).unwrap();
    assert!(bed.daemon().reload().unwrap().is_empty());
    let job = bed.ended(&drill().1);
    assert_eq!((&job["standing"], &job["failure"]["code"]), (&json!("failed"), &json!("usage")), "{job}");
    let message = job["failure"]["message"].as_str().unwrap();
    assert!(
        message.contains("'files'") && message.contains("100000") && message.contains("1024"),
        "{message}"
    );
    bed.until("the board says so", || {
        let server = bed.local("GET", "/api/v1/servers/files", None).1;
        server["level"] == "amber" && server["worries"].to_string().contains("the last drill failed")
    });

    // A file that can't be used changes nothing, and shows; one without drills takes them away.
    std::fs::write(bed.at("holdfast.toml"), "nonsense").unwrap();
    assert!(bed.daemon().reload().unwrap_err().message.contains("holdfast.toml"));
    let metrics = || bed.local("GET", "/metrics", None).1.as_str().unwrap().to_owned();
    assert!(metrics().contains("holdfast_config_last_reload_successful 0\n"));
    assert_eq!(bed.ended(&drill().1)["failure"]["code"], "usage");
    let (head, tail) = text.split_once("[drills]").unwrap();
    let (_, tail) = tail.split_once("[listen]").unwrap();
    std::fs::write(bed.at("holdfast.toml"), format!("jobs = 7\n{head}[listen]{tail}")).unwrap();
    assert_eq!(bed.daemon().reload().unwrap(), ["jobs"]);
    assert!(metrics().contains("holdfast_config_last_reload_successful 1\n"));
    let (status, refused) = drill();
    assert_eq!(status, 400, "{refused}");
    assert!(refused["next"].as_str().unwrap().contains("[drills]"), "{refused}");
    let (_, audit) = bed.local("GET", "/api/v1/audit", None);
    let read: Vec<&str> = audit["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|e| e["who"] == "SIGHUP")
        .map(|e| e["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(read.len(), 3, "{audit}");
    assert_eq!(read.iter().filter(|o| **o == "refused").count(), 1, "{audit}");
    // What changed is in the entry.
    for what in ["drills.space 0 -> 1KiB", "jobs 2 -> 7 (from the next start on)"] {
        assert!(audit.to_string().contains(what), "{what}: {audit}");
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_socket_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let bed = Bed::start("");
    let mode = std::fs::metadata(bed.at("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Daemon::open(Config::load(Path::new(&bed.at("holdfast.toml"))).unwrap());
    assert_eq!(again.unwrap_err().code, holdfast_appliance::error::Code::Locked);
}

#[test]
fn events_are_heard_as_they_happen() {
    let bed = Bed::start("");
    let mut stream = UnixStream::connect(bed.at("socket")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut heard = String::new();
    let mut buffer = [0; 4096];
    while !heard.contains("retry: 2000") {
        let read = stream.read(&mut buffer).unwrap();
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    let (_, job) = bed.local("POST", "/api/v1/servers/files/backups", Some(json!({ "note": "heard" })));
    while !(heard.contains("event: job") && heard.contains("\"standing\":\"done\"")) {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{job}: {heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(heard.to_lowercase().contains("content-type: text/event-stream"));
}
