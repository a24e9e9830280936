//! The board: what can be restored now, computed from the repository in the background, so that every question is
//! answered at once.

mod reading;

use crate::alerts::Condition;
use crate::daemon::Daemon;
use crate::drills::{self, DrillBoard};
use crate::scheduler::{asked, fsck_due};
use crate::state::Checked;
use crate::streams::StreamView;
use holdfast_appliance::ServerRecord;
use holdfast_appliance::digest::Base;
use holdfast_appliance::error::Result;
use holdfast_appliance::measured::{EstimateView, to_the_end};
use holdfast_appliance::policy::{Next, Policy, Span, Why};
use holdfast_appliance::server::has_log;
use holdfast_appliance::time::{Micros, now, show_time};
use holdfast_appliance::trust::{self, TrustView};
use holdfast_appliance::views::{FoundView, StatusView, TimelineView};
use reading::Readings;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often it is computed, at most.
const EVERY: Duration = Duration::from_secs(2);
/// The shortest pause, whatever is asked for.
const PAUSE: Duration = Duration::from_millis(100);
/// It takes at most so much of the time: one part in this many.
const SHARE: u32 = 20;

/// The board.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Board {
    /// When it was computed; 0: not yet.
    #[serde(serialize_with = "crate::jobs::time")]
    pub at: Micros,
    /// The servers, in the order they were added.
    pub servers: Vec<ServerBoard>,
    /// The repository.
    pub repository: RepositoryBoard,
}

/// The repository.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RepositoryBoard {
    /// Where it is.
    pub place: String,
    /// Its id.
    pub id: String,
    /// What is wrong with its manifest.
    pub damage: Option<String>,
    /// Bytes free on its file system.
    pub free_bytes: u64,
    /// Bytes of its file system.
    pub total_bytes: u64,
    /// Backups in it.
    pub backups: u64,
    /// Bytes that they added.
    pub stored_bytes: u64,
    /// Bytes of the files they hold.
    pub data_bytes: u64,
    /// When the last whole check ended.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub checked: Option<Micros>,
    /// Whether it found nothing wrong.
    pub clean: Option<bool>,
    /// When the next one is due.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub check_due: Option<Micros>,
    /// When the last check of one block of 32 ended.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub canary: Option<Micros>,
    /// Whether it found nothing wrong.
    pub canary_clean: Option<bool>,
    /// When the last prune ended, and the bytes that it gave back.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub pruned: Option<Micros>,
    /// Bytes that it gave back.
    pub pruned_bytes: Option<u64>,
}

/// How much is to worry about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing.
    Green,
    /// Protection works; something about it wants a look.
    Amber,
    /// Something can't be restored that should be.
    Red,
}

/// One server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerBoard {
    /// What can be restored.
    #[serde(flatten)]
    pub status: StatusView,
    /// How much is to worry about.
    pub level: Level,
    /// One sentence for a person.
    pub headline: String,
    /// What to worry about, a sentence each.
    pub worries: Vec<String>,
    /// The same, each under a name that stays while it lasts.
    pub conditions: Vec<Condition>,
    /// The name of its policy.
    pub policy: String,
    /// The window that the policy promises, for example `7d`; `0` for all time.
    pub window: String,
    /// Neither it nor any of its backups may be taken away.
    pub locked: bool,
    /// Nothing is begun for it.
    pub paused: bool,
    /// Its next base.
    pub next_base: Next,
    /// Tries that failed since the last good base.
    pub failed_tries: u64,
    /// Bytes of log since the last base.
    pub log_bytes: u64,
    /// Bytes that its backups added to the repository.
    pub stored_bytes: u64,
    /// Bytes of the files that its backups hold.
    pub data_bytes: u64,
    /// Its stream.
    pub stream: StreamView,
    /// How its drills stand.
    pub drill: DrillBoard,
    /// How much there is to rely on; it could not be looked at: `null`.
    pub trust: Option<TrustView>,
    /// How long a restore to the last moment would take; no restore was proved yet: `null`.
    pub estimate: Option<EstimateView>,
    /// The same right behind a new base: without any log.
    pub estimate_fresh: Option<EstimateView>,
    /// Seconds that it is to take at most; the policy says nothing of that: `null`.
    pub rto_seconds: Option<f64>,
    /// Its history.
    #[serde(skip)]
    pub timeline: Arc<TimelineView>,
    /// Definitions and accounts that were changed, as flags on the timeline.
    #[serde(skip)]
    pub flags: Arc<Vec<FoundView>>,
}

/// Computes the board until the daemon ends.
pub(crate) fn keep_board(daemon: &Arc<Daemon>) {
    let mut said = String::new();
    let mut readings = Readings::default();
    loop {
        let begun = Instant::now();
        match look(daemon, &mut readings) {
            Ok(board) => {
                said.clear();
                if let Ok(mut shown) = daemon.board.write() {
                    *shown = Arc::new(board);
                }
                daemon.events.send("board", &serde_json::json!({ "at": show_time(now()) }));
            }
            Err(error) if error.message != said => {
                tracing::error!("the board: {}", error.message);
                said = error.message;
            }
            Err(_) => {}
        }
        let rest = begun.elapsed() * SHARE;
        let until = Instant::now() + EVERY.max(rest);
        // Something ended: it is looked at sooner, but not without a pause.
        let soon = Instant::now() + rest.min(EVERY).max(PAUSE);
        let asked = || daemon.look_again.load(Ordering::Relaxed);
        if !daemon.sleep_unless(soon, || false) || !daemon.sleep_unless(until, asked) {
            return;
        }
        daemon.look_again.store(false, Ordering::Relaxed);
    }
}

fn look(daemon: &Daemon, readings: &mut Readings) -> Result<Board> {
    let catalogue = &daemon.catalogue;
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let mut servers = Vec::new();
    let known = catalogue.servers();
    readings.keep(&known);
    for server in known {
        match look_at(daemon, &server, readings) {
            Ok(seen) => servers
                .push(ServerBoard { locked: catalogue.known(|known| known.is_locked(server.id)), ..seen }),
            // One server's trouble hides no other one; of this one, what was known last is shown with it.
            Err(error) => {
                tracing::warn!(server = %server.name, "can't be looked at: {}", error.message);
                let known = daemon.look().servers.iter().find(|s| s.status.server == server.name).cloned();
                servers.push(ServerBoard {
                    level: Level::Red,
                    headline: error.message.clone(),
                    conditions: vec![Condition {
                        server: Some(server.name.clone()),
                        code: "unreadable".to_owned(),
                        level: Level::Red,
                        text: error.message.clone(),
                    }],
                    worries: vec![format!("it can't be looked at: {}", error.message)],
                    ..known.unwrap_or_else(|| unseen(daemon, &server.name, &error.message))
                });
            }
        }
        if daemon.is_stopping() {
            break;
        }
    }
    Ok(Board { at: now(), servers, repository: repository(daemon) })
}

fn look_at(daemon: &Daemon, server: &ServerRecord, readings: &mut Readings) -> Result<ServerBoard> {
    let (name, has_log) = (server.name.as_str(), has_log(server));
    let reading = readings.of(daemon, server, has_log)?;
    let (facts, next) = asked(daemon, name)?;
    let config = daemon.config();
    let (policy, terms) = config.policy_of(name);
    let stream = daemon.streams.view(name, has_log, facts.paused);
    let (estimate, estimate_fresh) = to_the_end(&reading.reports, &reading.status);
    let drill = drills::board(daemon, name, &terms, &reading.reports);
    let broken_off = drills::broken_off(daemon, server, &reading.reports);
    let facts_of_trust = trust::Facts {
        now: now(),
        has_log,
        status: &reading.status,
        reports: &reading.reports,
        broken_off: Some(&broken_off),
        begun: trust::begun(&daemon.catalogue, server),
        // Of a log that is not ours to follow, we know no more than anybody.
        follows: matches!(stream.state, "following" | "broken").then_some(stream.state == "following"),
        checked: checked(daemon),
    };
    let trust = trust::trust(&facts_of_trust, &trust::Terms::of(&terms, config.checks.fsck.0));
    let sum = |bytes: fn(&Base) -> u64| {
        daemon.catalogue.known(|known| known.of(server.id).map_or(0, |of| of.bases.iter().map(bytes).sum()))
    };
    let mut board = ServerBoard {
        level: Level::Green,
        headline: String::new(),
        worries: Vec::new(),
        conditions: Vec::new(),
        policy: policy.to_owned(),
        window: terms.window.to_string(),
        locked: false,
        paused: facts.paused,
        failed_tries: facts.failed.len() as u64,
        log_bytes: facts.log_bytes,
        stored_bytes: sum(|base| base.stored_bytes),
        data_bytes: sum(|base| base.data_bytes),
        next_base: next,
        stream,
        drill,
        trust: Some(trust),
        estimate,
        estimate_fresh,
        rto_seconds: (terms.rto.0 > 0).then_some(terms.rto.0 as f64 / 1e6),
        timeline: Arc::clone(&reading.timeline),
        flags: Arc::clone(&reading.flags),
        status: reading.status.clone(),
    };
    let window = if terms.window.0 == 0 { i64::MIN } else { now().saturating_sub(terms.window.0) };
    judge(&mut board, window, &terms, now());
    Ok(board)
}

/// When everything was read last, by a whole check of ours or by scrubs, and whether it was whole.
fn checked(daemon: &Daemon) -> Option<(Micros, bool)> {
    let fsck = daemon.state.read(|content| content.fsck.as_ref().map(|checked| (checked.at, checked.clean)));
    // A scrub reads segments. What else a whole check has found wrong, no scrub finds whole again.
    if fsck.is_some_and(|(_, clean)| !clean) {
        return fsck;
    }
    let scrub = daemon.catalogue.known(|known| known.scrubbed());
    fsck.into_iter().chain(scrub).max_by_key(|(at, _)| *at)
}

/// A server that could not be looked at even once.
fn unseen(daemon: &Daemon, name: &str, why: &str) -> ServerBoard {
    let config = daemon.config();
    let (policy, terms) = config.policy_of(name);
    ServerBoard {
        status: StatusView::unknown(name, why),
        level: Level::Red,
        headline: why.to_owned(),
        worries: Vec::new(),
        conditions: Vec::new(),
        policy: policy.to_owned(),
        window: terms.window.to_string(),
        locked: false,
        paused: false,
        next_base: Next { at: None, why: Why::Age, retry: false, capped: false, moved: false },
        failed_tries: 0,
        log_bytes: 0,
        stored_bytes: 0,
        data_bytes: 0,
        stream: StreamView::default(),
        drill: DrillBoard::default(),
        trust: None,
        estimate: None,
        estimate_fresh: None,
        rto_seconds: None,
        timeline: Arc::new(TimelineView {
            fail_overs: Vec::new(),
            server: name.to_owned(),
            backups: Vec::new(),
            spans: Vec::new(),
            gaps: Vec::new(),
            zero_loss: Vec::new(),
        }),
        flags: Arc::default(),
    }
}

/// Says what is to worry about, and the one sentence.
fn judge(board: &mut ServerBoard, window: Micros, terms: &Policy, now: Micros) {
    let mut level = Level::Green;
    let mut worries = Vec::new();
    let mut conditions = Vec::new();
    let name = board.status.server.clone();
    let mut worry = |code: &str, at: Level, text: String| {
        if at == Level::Red || level == Level::Green {
            level = at;
        }
        worries.push(text.clone());
        conditions.push(Condition { server: Some(name.clone()), code: code.to_owned(), level: at, text });
    };
    let status = &board.status;
    let Some(last) = &status.last_backup else {
        worry("no_backup", Level::Red, "there is no backup of it yet".to_owned());
        (board.level, board.worries, board.conditions) = (level, worries, conditions);
        board.headline = match board.failed_tries {
            0 => "not protected yet: its first backup is on the way".to_owned(),
            tries => format!("not protected: its first backup failed {tries} time(s)"),
        };
        return;
    };
    if now.saturating_sub(last.started) > terms.max_age.0 && !board.paused {
        worry("backup_old", Level::Red, format!("the last backup is of {}", show_time(last.completed)));
    }
    if board.failed_tries > 0 {
        worry("backup_failed", Level::Amber, format!("the last {} backup(s) failed", board.failed_tries));
    }
    if board.next_base.capped {
        worry("capped", Level::Amber, "a day has no more backups than it may have: replay grows".to_owned());
    }
    if last.proof.as_deref() == Some("failed") {
        worry("not_proved", Level::Red, "the last backup could not be proved".to_owned());
    }
    match (&board.drill.last, &board.drill.trouble) {
        (Some(drill), _) if !drill.proved => {
            worry(
                "drill_not_proved",
                Level::Red,
                match drill.failed_queries.as_slice() {
                    [] => format!("the last drill, of {}, could not be proved", show_time(drill.at)),
                    failed => format!(
                        "in the last drill, of {}, these queries did not give what was expected: {}",
                        show_time(drill.at),
                        failed.join(", ")
                    ),
                },
            );
        }
        (_, Some(trouble)) => {
            worry("drill_failed", Level::Amber, format!("the last drill failed: {trouble}"))
        }
        _ => {}
    }
    if let Some(text) = too_slow(board.rto_seconds, board.estimate.as_ref(), board.estimate_fresh.as_ref()) {
        worry("rto", Level::Amber, text);
    }
    if let Some(text) = board.trust.as_ref().and_then(|trust| too_little(trust, terms.trust_min)) {
        worry("trust", Level::Amber, text);
    }
    for gap in status.gaps.iter().filter(|gap| gap.noticed.is_none_or(|at| at >= window)) {
        worry("hole", Level::Amber, format!("a hole after {}: {}", gap.after, gap.reason));
    }
    match board.stream.state {
        "broken" => {
            let why = board.stream.trouble.clone().unwrap_or_default();
            worry("stream_broken", Level::Red, format!("its log is not followed: {why}"));
        }
        "paused" => worry("paused", Level::Amber, "it is paused: nothing later is covered".to_owned()),
        // A folder has no stream that could say so.
        _ if board.paused => {
            worry("paused", Level::Amber, "it is paused: no backup of it is begun".to_owned());
        }
        _ => {}
    }
    board.headline = match status.spans.last() {
        Some(span) if board.stream.state == "following" => {
            let earlier = status.spans.len() - 1;
            let more =
                if earlier == 0 { String::new() } else { format!(", and in {earlier} earlier stretch(es)") };
            format!("restorable to any second since {}{more}", show_time(span.from))
        }
        _ => status.sentence.clone(),
    };
    (board.level, board.worries, board.conditions) = (level, worries, conditions);
}

/// What is to be said of a figure below the policy's: what costs most.
fn too_little(trust: &TrustView, least: u8) -> Option<String> {
    if trust.figure >= least {
        return None;
    }
    let lost = |part: &&trust::PartView| ((part.of - part.points) * 10.0) as u32;
    let why =
        trust.limited.clone().or_else(|| trust.parts.iter().max_by_key(lost).map(|part| part.says.clone()));
    // Without the figure, which moves with every hour.
    Some(format!("less can be relied on than {least} of 100: {}", why.unwrap_or_default()))
}

/// What is to be said of a restore that would take longer than the policy allows.
fn too_slow(
    rto_seconds: Option<f64>,
    estimate: Option<&EstimateView>,
    fresh: Option<&EstimateView>,
) -> Option<String> {
    let (most, now) = (rto_seconds?, estimate?.seconds);
    if now <= most {
        return None;
    }
    // Minutes, where there are some: a figure that changes with every look is read by nobody.
    let unit = if most >= 120.0 { 60.0 } else { 1.0 };
    let span = |seconds: f64| Span(((seconds / unit).ceil() * unit * 1e6) as Micros);
    let hope = match fresh {
        Some(fresh) if fresh.seconds <= most => {
            format!("behind a new base it would take {}", span(fresh.seconds))
        }
        _ => "a new base would not be enough: faster storage, or less data, would".to_owned(),
    };
    Some(format!("a restore would take about {}, and may take {}: {hope}", span(now), span(most)))
}

fn repository(daemon: &Daemon) -> RepositoryBoard {
    let repository = &daemon.catalogue.repository;
    let sums = |bytes: fn(&Base) -> u64| daemon.catalogue.known(|known| known.bases().map(bytes).sum());
    let space = rustix::fs::statvfs(&daemon.config().repository).ok();
    let bytes = |blocks: fn(&rustix::fs::StatVfs) -> u64| {
        space.as_ref().map_or(0, |s| blocks(s).saturating_mul(s.f_frsize))
    };
    let checked: Option<Checked> = daemon.state.read(|content| content.fsck.clone());
    let canary: Option<Checked> = daemon.state.read(|content| content.canary.clone());
    let pruned = daemon.state.read(|content| content.prune.clone());
    RepositoryBoard {
        canary: canary.as_ref().map(|c| c.at),
        canary_clean: canary.map(|c| c.clean),
        pruned: pruned.as_ref().map(|p| p.at),
        pruned_bytes: pruned.map(|p| p.freed_bytes),
        place: daemon.config().repository.display().to_string(),
        id: repository.id().to_string(),
        damage: repository.damage(),
        free_bytes: bytes(|s| s.f_bavail),
        total_bytes: bytes(|s| s.f_blocks),
        backups: sums(|_| 1),
        stored_bytes: sums(|base| base.stored_bytes),
        data_bytes: sums(|base| base.data_bytes),
        checked: checked.as_ref().map(|c| c.at),
        clean: checked.map(|c| c.clean),
        check_due: fsck_due(daemon),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_below_the_policys_is_said_with_what_costs_most() {
        let part =
            |name, points, says: &str| trust::PartView { name, points, of: 20.0, says: says.to_owned() };
        let parts = vec![part("coverage", 19.0, "nearly all"), part("drills_passed", 3.0, "few drills")];
        let view = TrustView { figure: 55, parts, limited: None };
        assert_eq!(too_little(&view, 55), None);
        assert_eq!(too_little(&view, 0), None);
        assert!(too_little(&view, 56).unwrap().ends_with("than 56 of 100: few drills"));
        let limited = TrustView { limited: Some("at most 40".to_owned()), ..view };
        assert!(too_little(&limited, 56).unwrap().ends_with(": at most 40"));
    }

    #[test]
    fn a_restore_that_would_take_longer_than_it_may_is_said_with_what_helps() {
        let takes = |seconds: f64| EstimateView {
            seconds,
            seconds_min: seconds,
            seconds_max: seconds,
            restores: 3,
            leaves_out: None,
            by: Vec::new(),
        };
        let said = |now: f64, fresh: f64| too_slow(Some(1800.0), Some(&takes(now)), Some(&takes(fresh)));
        assert_eq!(said(1800.0, 60.0), None);
        let text = said(1801.0, 61.0).unwrap();
        assert!(text.contains("about 31m, and may take 30m") && text.contains("it would take 2m"), "{text}");
        assert!(said(4000.0, 1801.0).unwrap().contains("would not be enough"));
        assert_eq!(too_slow(None, Some(&takes(9e9)), None), None);
        assert_eq!(too_slow(Some(60.0), None, None), None, "nothing was measured");
        assert!(
            too_slow(Some(60.0), Some(&takes(61.0)), None).unwrap().contains("about 61s, and may take 1m")
        );
    }
}
