//! The API's operations. Looking reads the board; doing is a job.

use super::answer::{Answer, Outcome, Refusal, answer, json};
use super::body::Reply;
use super::once::{begun, keyed, once, turn};
use super::route::decoded;
use crate::board::{Board, RepositoryBoard, ServerBoard};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::jobs::{Moment, Work};
use crate::queue::JobView;
use crate::tokens::{Caller, Role};
use crate::{drills, expiry, metrics, report, runner};
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::find::{Wanted, find};
use holdfast_appliance::measured::{EstimateView, measured};
use holdfast_appliance::own::{self, Own};
use holdfast_appliance::policy::Span;
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::time::{now, parse_time_or_age, show_time};
use holdfast_appliance::{doctor as examine, list, restore};
use hyper::StatusCode;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// The API's description.
pub(super) const OPENAPI: &str = include_str!("../../page/openapi.json");
/// Rows of one answer.
const ROWS_MAX: u32 = 1000;
/// Listeners to events at the same time.
const LISTENERS_MAX: usize = 64;
/// A line now and then, so that whoever is gone is noticed.
const BEAT: Duration = Duration::from_secs(15);

/// What was asked.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) parts: Vec<String>,
    pub(super) query: String,
    pub(super) body: Bytes,
    pub(super) key: Option<String>,
    pub(super) caller: Caller,
    /// Method and path, for the audit log.
    pub(super) what: String,
}

impl Request {
    pub(super) fn part(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    /// A parameter of the query.
    pub(super) fn param(&self, name: &str) -> Result<Option<String>> {
        for pair in self.query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key == name {
                let value = decoded(&value.replace('+', " "));
                return value.map(Some).ok_or_else(|| Error::usage(format!("'{name}' is not valid UTF-8.")));
            }
        }
        Ok(None)
    }

    /// How many rows are asked for, at most.
    pub(super) fn limit(&self) -> Result<Option<u32>> {
        let Some(text) = self.param("limit")? else { return Ok(None) };
        let number = text.parse::<u32>().ok().filter(|n| (1..=ROWS_MAX).contains(n));
        number.map(Some).ok_or_else(|| Error::usage(format!("'limit' must be 1 to {ROWS_MAX}.")))
    }

    /// Whether something is asked for.
    fn flag(&self, name: &str) -> Result<bool> {
        match self.param(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(Error::usage(format!("'{name}' is true or false, not '{other}'."))),
        }
    }

    /// The body, which must be there.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let text: &[u8] = if self.body.is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(text)
            .map_err(|error| Error::usage(format!("The request's body is not as it should be: {error}.")))
    }
}

pub(super) fn openapi(_: &Daemon, _: &Request) -> Outcome {
    Ok(answer(StatusCode::OK, "application/json", OPENAPI))
}

/// The board, once there is one.
fn look(daemon: &Daemon) -> std::result::Result<Arc<Board>, Refusal> {
    let board = daemon.look();
    if board.at == 0 {
        return Err(Refusal::NotReady("The repository is being looked at for the first time.".to_owned()));
    }
    Ok(board)
}

fn on_board<'b>(board: &'b Board, name: &str) -> std::result::Result<&'b ServerBoard, Refusal> {
    board
        .servers
        .iter()
        .find(|s| s.status.server == name)
        .ok_or_else(|| Refusal::NotFound(format!("There is no server called '{name}'.")))
}

/// Refuses a server that is not there; the board may be a moment behind.
pub(super) fn known(daemon: &Daemon, name: &str) -> std::result::Result<(), Refusal> {
    daemon.catalogue.server(name).map(drop).map_err(|error| Refusal::NotFound(error.message))
}

pub(super) fn status(daemon: &Daemon, _: &Request) -> Outcome {
    let board = look(daemon)?;
    let config = daemon.config();
    let status = Status {
        at: board.at,
        now: now(),
        version: env!("CARGO_PKG_VERSION"),
        servers: &board.servers,
        repository: &board.repository,
        jobs: daemon.queue.open(),
        restore_into: &config.restore_into,
    };
    json(StatusCode::OK, &status)
}

/// The whole board: written straight into the answer, which may be long.
#[derive(Serialize)]
struct Status<'a> {
    #[serde(serialize_with = "crate::jobs::time")]
    at: i64,
    #[serde(serialize_with = "crate::jobs::time")]
    now: i64,
    version: &'a str,
    servers: &'a [ServerBoard],
    repository: &'a RepositoryBoard,
    jobs: Vec<JobView>,
    restore_into: &'a [PathBuf],
}

pub(super) fn servers(daemon: &Daemon, _: &Request) -> Outcome {
    let views = holdfast_appliance::server::list(&daemon.catalogue)?;
    json(StatusCode::OK, &serde_json::json!({ "servers": views }))
}

pub(super) fn server(daemon: &Daemon, asked: &Request) -> Outcome {
    let board = look(daemon)?;
    json(StatusCode::OK, on_board(&board, asked.part())?)
}

pub(super) fn timeline(daemon: &Daemon, asked: &Request) -> Outcome {
    let board = look(daemon)?;
    let server = on_board(&board, asked.part())?;
    let flags = &server.flags;
    json(
        StatusCode::OK,
        &serde_json::json!({
            "at": show_time(board.at),
            "timeline": *server.timeline,
            "flags": **flags,
            "stream": server.stream,
        }),
    )
}

pub(super) fn transactions(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    let time = |name: &str| -> Result<Option<i64>> {
        asked.param(name)?.map(|text| parse_time_or_age(&text, now())).transpose()
    };
    let limit = asked.limit()?.unwrap_or(100);
    let rows_over = asked.param("rows_over")?.map(|text| {
        text.parse::<u64>()
            .map_err(|_| Error::usage(format!("'rows_over' is a number of rows, not '{text}'.")))
    });
    let rows_over = rows_over.transpose()?;
    let wanted = Wanted {
        ddl: asked.flag("ddl")?,
        table: asked.param("table")?,
        like: asked.param("like")?,
        rows_over,
        since: time("since")?,
        until: time("until")?,
        limit,
        ..Wanted::default()
    };
    let found = find(&daemon.catalogue, asked.part(), &wanted, &Unwatched)?;
    json(StatusCode::OK, &serde_json::json!({ "found": found.found, "more": found.more }))
}

/// A point, and how long a restore to it would take.
#[derive(Serialize)]
struct Cut<'a> {
    #[serde(flatten)]
    plan: &'a restore::Plan,
    estimate: Option<&'a EstimateView>,
}

/// The point that a moment means: what a restore would keep last and leave out first.
pub(super) fn at(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    let moment =
        Moment { to: asked.param("to")?, before: asked.param("before")?, after: asked.param("after")? };
    let options = runner::restore_options(daemon, asked.part(), &moment, Path::new("/"), false, "standard")?;
    // `latest` would fetch from the source first: a look does not.
    let view = restore::look(&daemon.catalogue, asked.part(), &options)?;
    json(StatusCode::OK, &Cut { plan: &view.plan, estimate: view.estimate.as_ref() })
}

pub(super) fn retention(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    let config = daemon.config();
    let (name, policy) = config.policy_of(asked.part());
    let view = expiry::shown(&daemon.catalogue, &daemon.state, asked.part(), &policy, now())?;
    json(StatusCode::OK, &serde_json::json!({ "policy": name, "terms": policy, "retention": view }))
}

pub(super) fn doctor(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    let findings = examine::doctor(&daemon.catalogue, asked.part())?;
    json(StatusCode::OK, &serde_json::json!({ "server": asked.part(), "findings": findings }))
}

pub(super) fn backups(daemon: &Daemon, asked: &Request) -> Outcome {
    let server = asked.param("server")?;
    if let Some(server) = &server {
        known(daemon, server)?;
    }
    let views = list::list(&daemon.catalogue, server.as_deref())?;
    json(StatusCode::OK, &serde_json::json!({ "backups": views }))
}

/// Accepts a job: noted first, so that nothing is done that is not noted. `work` says what is to be done, or why not; it is
/// not asked where the same request began a job before.
fn submit(
    daemon: &Daemon,
    asked: &Request,
    work: impl FnOnce() -> std::result::Result<Work, Refusal>,
) -> Outcome {
    // First: what the same request has begun by now must not be what it is refused for.
    let _turn = turn(daemon, asked)?;
    if let Some(view) = begun(daemon, asked) {
        daemon.audit.note(&asked.caller.name, &asked.what, &format!("job {}", view.id))?;
        return accepted(&view);
    }
    let work = work()?;
    daemon.audit.note(&asked.caller.name, &format!("{} {}", asked.what, words(&work)), "asked")?;
    let submitted = daemon.queue.submit(work, &asked.caller.name, keyed(asked));
    let outcome = match &submitted {
        Ok(view) => format!("job {}", view.id),
        Err(error) => crate::jobs::code_word(error.code),
    };
    daemon.audit.note(&asked.caller.name, &asked.what, &outcome)?;
    accepted(&submitted?)
}

fn accepted(view: &JobView) -> Outcome {
    let place = format!("/api/v1/jobs/{}", view.id);
    let mut answer = json(StatusCode::ACCEPTED, view)?;
    if let Ok(place) = place.parse() {
        answer.headers_mut().insert(hyper::header::LOCATION, place);
    }
    Ok(answer)
}

fn words(work: &Work) -> String {
    serde_json::to_string(work).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupAsked {
    #[serde(default)]
    note: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    keep_for: Option<Span>,
    #[serde(default)]
    hold: bool,
}

pub(super) fn take_backup(daemon: &Daemon, asked: &Request) -> Outcome {
    submit(daemon, asked, || {
        known(daemon, asked.part())?;
        let BackupAsked { note, name, keep_for, hold } = asked.read()?;
        if note.len() > 1000 {
            return Err(Error::usage("A note has 1000 bytes at most.").into());
        }
        let own = Own { name, keep_for, hold };
        own.check()?;
        let work = Work::Backup { server: asked.part().to_owned(), note, why: "on_demand".into(), own };
        // The same request in other words is the same job, whose backup has the name.
        if !daemon.queue.knows(asked.key.as_deref(), &work)
            && let Work::Backup { own, .. } = &work
        {
            own::refuse_taken(&daemon.catalogue, daemon.catalogue.server(asked.part())?.id, own)?;
        }
        Ok(work)
    })
}

pub(super) fn begin_check(daemon: &Daemon, asked: &Request) -> Outcome {
    submit(daemon, asked, || Ok(Work::Fsck {}))
}

pub(super) fn begin_canary(daemon: &Daemon, asked: &Request) -> Outcome {
    submit(daemon, asked, || Ok(Work::Canary {}))
}

pub(super) fn begin_prune(daemon: &Daemon, asked: &Request) -> Outcome {
    submit(daemon, asked, || Ok(Work::Prune { now: true }))
}

/// Drills of a server that came to a verdict, newest first, and how they stand.
pub(super) fn drills(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    let board = look(daemon)?;
    let standing = on_board(&board, asked.part()).ok().map(|server| server.drill.clone());
    let mut all = measured(&daemon.catalogue, &daemon.catalogue.server(asked.part())?);
    all.retain(|m| m.drill);
    all.truncate(ROWS_MAX as usize);
    json(StatusCode::OK, &serde_json::json!({ "server": asked.part(), "standing": standing, "drills": all }))
}

pub(super) fn begin_drill(daemon: &Daemon, asked: &Request) -> Outcome {
    submit(daemon, asked, || {
        known(daemon, asked.part())?;
        Ok(drills::work(daemon, asked.part())?)
    })
}

pub(super) fn pause(daemon: &Daemon, asked: &Request) -> Outcome {
    set_paused(daemon, asked, true)
}

pub(super) fn resume(daemon: &Daemon, asked: &Request) -> Outcome {
    set_paused(daemon, asked, false)
}

fn set_paused(daemon: &Daemon, asked: &Request, paused: bool) -> Outcome {
    once(daemon, asked, || {
        known(daemon, asked.part())?;
        daemon.audit.note(&asked.caller.name, &asked.what, "done")?;
        daemon.state.change(|content| {
            content.servers.entry(asked.part().to_owned()).or_default().paused = paused;
        })?;
        daemon.look_soon();
        json(StatusCode::OK, &serde_json::json!({ "server": asked.part(), "paused": paused }))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreAsked {
    server: String,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    before: Option<String>,
    #[serde(default)]
    after: Option<String>,
    into: PathBuf,
    #[serde(default)]
    start: bool,
    #[serde(default = "standard")]
    prove: String,
    #[serde(default)]
    delta: bool,
    #[serde(default)]
    confirm: Option<String>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    databases: Vec<String>,
    #[serde(default)]
    as_replica_of: Option<String>,
    #[serde(default)]
    with_config: bool,
}

fn standard() -> String {
    "standard".to_owned()
}

/// A place that the configuration allows restores into.
///
/// # Errors
/// `Usage` for every other one.
pub(crate) fn restore_place(config: &Config, into: &Path) -> Result<()> {
    let refuse = |why: &str| {
        let places: Vec<String> = config.restore_into.iter().map(|p| p.display().to_string()).collect();
        let next = if places.is_empty() {
            "name the folders that restores may be made below in the configuration: restore_into = [\"/srv/restored\"]"
                .to_owned()
        } else {
            format!("name a folder below {}", places.join(" or "))
        };
        Err(Error::usage(format!("The daemon restores nothing into {}: {why}.", into.display()))
            .with_next(next))
    };
    if into.components().any(|c| matches!(c, Component::ParentDir)) || !into.is_absolute() {
        return refuse("the path is not a plain absolute one");
    }
    let Some(allowed) = config.restore_into.iter().find(|place| into.starts_with(place) && into != *place)
    else {
        return refuse("no restore may be made there");
    };
    // No link on the way may lead out of it: what exists of the path is looked at whole.
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let existing = into.ancestors().find_map(real);
    let inside = real(allowed).is_some_and(|place| existing.is_some_and(|e| e.starts_with(place)));
    if !inside {
        return refuse("the allowed folder is not there, or a link leads out of it");
    }
    Ok(())
}

/// What was asked, and the same as the appliance takes it: what can't be understood is refused now, not by the job.
fn wanted_restore(
    daemon: &Daemon,
    asked: &Request,
) -> std::result::Result<(Work, restore::Options), Refusal> {
    let wanted: RestoreAsked = asked.read()?;
    known(daemon, &wanted.server)?;
    // The restored server holds the password of the protected server's account then, for whoever gets into it.
    let Caller { name, role, .. } = &asked.caller;
    if wanted.as_replica_of.is_some() && !role.may(Role::Admin) {
        daemon.audit.note(name, &asked.what, "forbidden")?;
        return Err(Refusal::Forbidden(format!(
            "The token '{name}' may not let a restored server replicate."
        )));
    }
    restore_place(&daemon.config(), &wanted.into)?;
    let work = Work::Restore {
        server: wanted.server,
        target: Moment { to: wanted.to, before: wanted.before, after: wanted.after },
        into: wanted.into,
        start: wanted.start,
        prove: wanted.prove,
        delta: wanted.delta,
        confirm: wanted.confirm,
        tables: wanted.tables,
        databases: wanted.databases,
        as_replica_of: wanted.as_replica_of,
        with_config: wanted.with_config,
    };
    let options = runner::asked_options(daemon, &work)?;
    Ok((work, options))
}

pub(super) fn plan_restore(daemon: &Daemon, asked: &Request) -> Outcome {
    let (work, options) = wanted_restore(daemon, asked)?;
    let server = work.server().unwrap_or_default();
    json(StatusCode::OK, &restore::plan(&daemon.catalogue, server, &options, &Unwatched)?)
}

pub(super) fn begin_restore(daemon: &Daemon, asked: &Request) -> Outcome {
    submit(daemon, asked, || {
        let (work, options) = wanted_restore(daemon, asked)?;
        restore::refuse_delta(&daemon.catalogue, &options)?;
        Ok(work)
    })
}

pub(super) fn jobs(daemon: &Daemon, asked: &Request) -> Outcome {
    let limit = asked.limit()?.unwrap_or(100);
    json(StatusCode::OK, &serde_json::json!({ "jobs": daemon.queue.list(limit as usize) }))
}

fn job_number(asked: &Request) -> std::result::Result<u64, Refusal> {
    asked.part().parse().map_err(|_| Refusal::NotFound(format!("'{}' is not a job.", asked.part())))
}

fn find_job(daemon: &Daemon, asked: &Request) -> std::result::Result<crate::queue::JobView, Refusal> {
    daemon.queue.get(job_number(asked)?).map_err(|error| Refusal::NotFound(error.message))
}

pub(super) fn job(daemon: &Daemon, asked: &Request) -> Outcome {
    json(StatusCode::OK, &find_job(daemon, asked)?)
}

pub(super) fn cancel(daemon: &Daemon, asked: &Request) -> Outcome {
    once(daemon, asked, || {
        let job = find_job(daemon, asked)?;
        let needs = if matches!(job.work, Work::Restore { .. }) { Role::Restorer } else { Role::Operator };
        let (who, what) = (&asked.caller.name, &asked.what);
        if !asked.caller.role.may(needs) {
            daemon.audit.note(who, what, "forbidden")?;
            return Err(Refusal::Forbidden(format!("The token '{who}' may not stop that job.")));
        }
        daemon.audit.note(who, what, "asked")?;
        json(StatusCode::OK, &daemon.queue.cancel(job.id)?)
    })
}

pub(super) fn audit(daemon: &Daemon, _: &Request) -> Outcome {
    json(StatusCode::OK, &daemon.audit.view()?)
}

/// What was promised, kept and proved, in one document; that it was asked for is noted before it is made.
pub(super) fn report(daemon: &Daemon, asked: &Request) -> Outcome {
    look(daemon)?;
    // First: what is asked for now lies in the time that ends now.
    daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
    let time =
        |name: &str, else_: &str| parse_time_or_age(asked.param(name)?.as_deref().unwrap_or(else_), now());
    let (from, to) = (time("from", "-92d")?, time("to", "-0s")?);
    json(StatusCode::OK, &report::report(daemon, &asked.caller.name, from, to)?)
}

pub(super) fn me(_: &Daemon, asked: &Request) -> Outcome {
    json(StatusCode::OK, &serde_json::json!({ "name": asked.caller.name, "role": asked.caller.role }))
}

pub(super) fn metrics(daemon: &Daemon) -> Outcome {
    Ok(answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::page(daemon)))
}

/// Whether the process is worth keeping.
pub(super) fn healthz(daemon: &Daemon) -> Outcome {
    if daemon.is_alive() {
        return Ok(answer(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"));
    }
    Err(Refusal::NotReady("A part of the daemon has been silent for too long.".to_owned()))
}

/// Whether it can answer.
pub(super) fn readyz(daemon: &Daemon) -> Outcome {
    let board = look(daemon)?;
    if let Some(damage) = &board.repository.damage {
        return Err(Refusal::NotReady(format!("The repository is damaged: {damage}")));
    }
    Ok(answer(StatusCode::OK, "text/plain; charset=utf-8", "ready\n"))
}

/// Server-sent events until the listener goes or the daemon ends.
pub(super) fn events(daemon: &Arc<Daemon>) -> Outcome {
    static LISTENERS: AtomicUsize = AtomicUsize::new(0);
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            LISTENERS.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = LISTENERS.fetch_add(1, Ordering::Relaxed);
    let place = Place;
    if before >= LISTENERS_MAX {
        return Err(Refusal::NotReady(format!("{LISTENERS_MAX} listen already.")));
    }
    let mut heard = daemon.events.listen();
    let (sender, pieces) = mpsc::channel(16);
    let daemon = Arc::clone(daemon);
    tokio::spawn(async move {
        let _place = place;
        let mut text = "retry: 2000\n\n".to_owned();
        while !daemon.is_stopping() {
            if sender.send(Bytes::from(text)).await.is_err() {
                return;
            }
            text = match tokio::time::timeout(BEAT, heard.recv()).await {
                Err(_) => ": alive\n\n".to_owned(),
                Ok(Ok(event)) => {
                    format!("id: {}\nevent: {}\ndata: {}\n\n", event.number, event.kind, event.data)
                }
                // Whoever was too slow looks at everything anew.
                Ok(Err(RecvError::Lagged(missed))) => format!("event: missed\ndata: {missed}\n\n"),
                Ok(Err(RecvError::Closed)) => return,
            };
        }
    });
    let mut events: Answer = answer(StatusCode::OK, "text/event-stream", "");
    *events.body_mut() = Reply::Stream(pieces);
    Ok(events)
}
