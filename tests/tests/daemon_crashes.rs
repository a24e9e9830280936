//! `holdfastd` killed in the middle of a drill, and in the middle of telling an alert.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use holdfast_tests::Holdfast;
use holdfast_tests::daemon_bed::DaemonBed;
use holdfast_tests::server::scratch;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A user who protects one folder with so many bytes in it.
fn bed(name: &str, bytes: usize) -> DaemonBed {
    let dir = tempfile::Builder::new().prefix(name).tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for at in 0..8_u8 {
        // No two blocks are alike: all of it is stored, and read again by a restore.
        let block = |number: usize| (number as u64 * 8 + u64::from(at)).to_le_bytes();
        let content: Vec<u8> = (0..bytes / 64).flat_map(block).collect();
        std::fs::write(data.join(format!("file-{at}")), content).unwrap();
    }
    let kit = dir.path().join("kit");
    let _ = user.run(&["init", "--kit", kit.to_str().unwrap()]).ok();
    let _ = user.run(&["server", "add", "files", "--folder", data.to_str().unwrap()]).ok();
    let _ = user.run(&["backup", "files"]).ok();
    DaemonBed::new(user, dir, 0)
}

/// Folders of drills, with something in them or not.
fn drills(dir: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(dir.join("drills")).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// The job goes on in its folder and is proved, once, however often the daemon dies under it; nothing is left of it. One
/// that is stopped after such a death leaves nothing either.
#[test]
fn a_drill_that_is_killed_goes_on_and_leaves_nothing() {
    let mut bed = bed("drill-crash-", 96 << 20);
    bed.configure("[policy.default]\ndrill = 0\n[checks]\ncanary = '30d'\nscrub = '30d'\n");
    bed.start();
    bed.until("the board", |bed| bed.ask("GET", "/status", None).is_some_and(|(code, _)| code == 200));
    let (status, job) = bed.ask("POST", "/servers/files/drills", None).unwrap();
    assert_eq!(status, 202, "{job}");
    let path = format!("/jobs/{}", job["id"]);
    let (mut killed_in_the_middle, mut ended) = (0, false);
    for turn in 0..6_u64 {
        bed.until("the drill works, or is over", |bed| {
            ended = bed.ask("GET", &path, None).is_some_and(|(_, job)| job["standing"] == "done");
            ended || !drills(bed.dir.path()).is_empty()
        });
        if ended {
            break;
        }
        std::thread::sleep(Duration::from_millis(turn * 60));
        bed.kill();
        killed_in_the_middle += u32::from(!drills(bed.dir.path()).is_empty());
        bed.start();
    }
    assert!(killed_in_the_middle > 0, "no kill met the drill");
    let job = bed.until_ended(&job["id"]);
    assert_eq!((&job["standing"], &job["result"]["proved"]), (&json!("done"), &json!(true)), "{job}");
    assert!(job["tries"].as_u64().unwrap() > 1, "{job}");
    assert!(drills(bed.dir.path()).is_empty(), "{:?}", drills(bed.dir.path()));
    let (_, kept) = bed.ask("GET", "/servers/files/drills", None).unwrap();
    assert_eq!(kept["drills"].as_array().unwrap().len(), 1, "one report of one drill: {kept}");

    // Killed in the middle, begun again, and taken back.
    let (_, job) = bed.ask("POST", "/servers/files/drills", None).unwrap();
    bed.until("the second drill works", |bed| !drills(bed.dir.path()).is_empty());
    bed.kill();
    bed.start();
    let path = format!("/jobs/{}", job["id"]);
    bed.until("the second drill is stopped, or was through before", |bed| {
        let asked = bed.ask("DELETE", &path, None);
        asked.is_some_and(|(code, _)| code == 200 || code == 400)
    });
    let job = bed.until_ended(&job["id"]);
    assert!(job["standing"] == "cancelled" || job["standing"] == "done", "{job}");
    bed.until("its folder is gone", |bed| drills(bed.dir.path()).is_empty());
    bed.kill();
    let _ = bed.user.fsck().ok();
}

/// A webhook: what it heard, in order. While it holds on, it answers nobody.
struct Hook {
    port: u16,
    heard: Arc<Mutex<Vec<Value>>>,
    holds: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, holds, stop) = (Arc::default(), Arc::new(AtomicBool::new(true)), Arc::default());
        let hook = Self { port, heard, holds, stop, thread: None };
        let (heard, holds, stop) = (Arc::clone(&hook.heard), Arc::clone(&hook.holds), Arc::clone(&hook.stop));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                if let Some(message) = message(&mut stream) {
                    heard.lock().unwrap().push(message);
                }
                while holds.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) && is_open(&mut stream) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                // Whoever was killed hears nothing.
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            }
        });
        Self { thread: Some(thread), ..hook }
    }

    fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds(&self.heard()) {
            assert!(Instant::now() < deadline, "not in time: {what}; heard {:?}", self.heard());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Whether the other end is still there.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let open = !matches!(stream.read(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    open
}

/// The body of a request, which is JSON.
fn message(stream: &mut TcpStream) -> Option<Value> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
            if body.len() >= length.trim().parse::<usize>().ok()? {
                let at = head.len() + 4;
                return serde_json::from_slice(&bytes[at..]).ok();
            }
        }
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

/// Killed while the receiver has the message and has not answered, the daemon tells it again after its start, as the same
/// message; killed before the alert was due, it tells it then. Once it was taken, it is not told again.
#[test]
fn an_alert_is_told_although_the_daemon_is_killed_while_it_tells_it() {
    let mut hook = Hook::start();
    let mut bed = bed("alert-crash-", 1 << 20);
    let secret = bed.dir.path().join("secret");
    std::fs::write(&secret, "only for a test\n").unwrap();
    bed.configure(&format!(
        "[alerts]\nafter = '1s'\n[[alerts.webhook]]\nurl = 'http://127.0.0.1:{}/hook'\nsecret_file = {secret:?}\n\
         [policy.default]\ndrill = 0\n",
        hook.port
    ));
    bed.start();
    bed.until("it is paused", |bed| {
        bed.ask("POST", "/servers/files/pause", None).is_some_and(|(code, _)| code == 200)
    });
    // Before anything is told, most likely: what is durable is that it is paused.
    bed.kill();
    bed.start();
    let paused = |m: &Value| m["code"] == "paused" && m["event"] == "raised";
    let count = |heard: &[Value]| heard.iter().filter(|m| paused(m)).count();
    for kill in 1..=3 {
        hook.until("the alert is told", |heard| count(heard) >= kill);
        bed.kill();
        bed.start();
    }
    hook.until("the alert is told once more", |heard| count(heard) >= 4);
    let ids: std::collections::BTreeSet<String> =
        hook.heard().iter().filter(|m| paused(m)).map(|m| m["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "it is the same message each time: {ids:?}");
    hook.holds.store(false, Ordering::Relaxed);
    bed.until("it was taken", |bed| {
        let state = std::fs::read_to_string(bed.dir.path().join("state/state.json")).unwrap();
        let state: Value = serde_json::from_str(&state).unwrap();
        state["outbox"].as_array().unwrap().is_empty() && !state["alerts"].as_object().unwrap().is_empty()
    });
    let told = count(&hook.heard());
    bed.kill();
    bed.start();
    bed.until("it is resumed", |bed| {
        bed.ask("POST", "/servers/files/resume", None).is_some_and(|(code, _)| code == 200)
    });
    hook.until("the end is told", |heard| {
        heard.iter().any(|m| m["code"] == "paused" && m["event"] == "resolved")
    });
    assert_eq!(count(&hook.heard()), told, "what was taken is not told again");
    hook.end();
}
