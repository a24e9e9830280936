//! What all parts share, and their life: start, run, end.

use crate::audit::Audit;
use crate::board::{Board, keep_board};
use crate::config::Config;
use crate::events::Events;
use crate::metrics::Counters;
use crate::queue::Queue;
use crate::state::State;
use crate::streams::{Streams, keep_streams};
use crate::tokens::Tokens;
use crate::{alerts, files, history, http, notify, runner, scheduler};
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::error::{Code, Error, Result};
use holdfast_appliance::policy::bandwidth_at;
use holdfast_appliance::rate::Rate;
use holdfast_appliance::settings::Environment;
use holdfast_appliance::time::{Micros, now};
use holdfast_io::FileLock;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a part may be silent before the watchdog is left to bite.
const SILENT_MAX: Duration = Duration::from_secs(120);
/// How often it is looked whether a signal came.
const SIGNAL_TICK: Duration = Duration::from_millis(100);
/// How long the end of the daemon waits for jobs and streams to come to a safe point.
const STOP_WAIT: Duration = Duration::from_secs(80);

/// What all parts of the daemon share.
#[derive(Debug)]
pub struct Daemon {
    /// What a person wrote, as it was read last.
    config: Arc<RwLock<Arc<Config>>>,
    /// How fast backups may read, all of them together.
    pub rate: Arc<Rate>,
    /// The repository.
    pub catalogue: Catalogue,
    /// The daemon's own state.
    pub state: Arc<State>,
    /// Jobs.
    pub queue: Queue,
    /// Whoever listens.
    pub events: Arc<Events>,
    /// Who asked for what.
    pub audit: Audit,
    /// Who may ask for what over the network.
    tokens: RwLock<Arc<Tokens>>,
    /// The last look at all servers.
    pub board: RwLock<Arc<Board>>,
    /// Something ended that the board does not show yet.
    pub look_again: AtomicBool,
    /// How the streams are.
    pub streams: Streams,
    /// Idempotency keys of the requests that are being answered.
    pub(crate) answering: http::Answering,
    /// Tests of alerts that were begun lately.
    pub(crate) tested: alerts::Tests,
    /// Held while something is carried out that two persons agreed to.
    pub approving: Mutex<()>,
    /// What is counted.
    pub counters: Counters,
    /// The daemon ends.
    pub stopping: Arc<AtomicBool>,
    /// When the scheduler was last alive.
    pub scheduler_alive: AtomicI64,
    /// When the API's threads were last alive.
    pub api_alive: AtomicI64,
    /// Somebody asked for the configuration to be read again: SIGHUP.
    pub hangup: Arc<AtomicBool>,
    /// How that went.
    pub reloads: Reloads,
    /// What sleepers wait on.
    bell: Bell,
    /// Held for as long as the daemon lives.
    _only_one: FileLock,
}

/// Wakes whoever sleeps.
#[derive(Debug, Default)]
struct Bell {
    turn: Mutex<()>,
    rung: Condvar,
}

impl Daemon {
    /// Opens the repository and the state.
    ///
    /// # Errors
    /// `Locked` when another daemon has this state; `NoRepository`, `WrongKey`, and what the state says.
    pub fn open(config: Config) -> Result<Self> {
        files::private_folder(&config.state)?;
        let only_one = only_one(&config.state)?;
        let environment = Environment::of_daemon(config.logins(), config.spool.clone())?;
        let key = Key::PassphraseFile(config.passphrase_file.clone());
        let catalogue = Catalogue::open(environment, &config.repository, &key)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let events = Arc::new(Events::default());
        let state = Arc::new(State::open(&config.state, now())?);
        let tokens = match &config.listen {
            Some(listen) => Tokens::load(&listen.tokens)?,
            None => Tokens::default(),
        };
        let audit = Audit::open(&config.state)?;
        let config = Arc::new(RwLock::new(Arc::new(config)));
        Ok(Self {
            queue: Queue::new(Arc::clone(&state), Arc::clone(&events), Arc::clone(&stopping))?,
            audit,
            board: RwLock::default(),
            look_again: AtomicBool::new(false),
            streams: Streams::default(),
            answering: Mutex::default(),
            tested: alerts::Tests::default(),
            approving: Mutex::default(),
            counters: Counters::new()?,
            scheduler_alive: AtomicI64::new(now()),
            api_alive: AtomicI64::new(now()),
            hangup: Arc::default(),
            bell: Bell::default(),
            reloads: Reloads::begun(now()),
            _only_one: only_one,
            rate: Arc::new(rate_of(&config)),
            config,
            catalogue,
            state,
            events,
            tokens: RwLock::new(Arc::new(tokens)),
            stopping,
        })
    }

    /// The configuration that holds now. Whoever does one thing asks once.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The tokens that hold now.
    #[must_use]
    pub fn tokens(&self) -> Arc<Tokens> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts others in their place.
    pub(crate) fn replace(&self, config: Arc<Config>, tokens: Arc<Tokens>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens;
    }

    /// Whether the daemon ends.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The last look at all servers.
    #[must_use]
    pub fn look(&self) -> Arc<Board> {
        self.board.read().map(|board| Arc::clone(&board)).unwrap_or_default()
    }

    /// Sleeps, but not into the end of the daemon. Gives whether it goes on.
    #[must_use]
    pub fn sleep(&self, time: Duration) -> bool {
        self.sleep_unless(Instant::now() + time, || false)
    }

    /// Sleeps until a moment, or until something was woken by that makes `enough` true; not into the end of the daemon.
    /// Gives whether it goes on.
    #[must_use]
    pub fn sleep_unless(&self, until: Instant, enough: impl Fn() -> bool) -> bool {
        let mut turn = self.bell.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.is_stopping() || left.is_zero() || enough() {
                return !self.is_stopping();
            }
            turn = self.bell.rung.wait_timeout(turn, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets whoever sleeps look whether it is what he waits for.
    pub fn wake(&self) {
        // Whoever is between his look and his sleep holds this: he is not missed.
        drop(self.bell.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.rung.notify_all();
    }

    /// Something changed that the board is to show soon.
    pub fn look_soon(&self) {
        self.look_again.store(true, Ordering::Relaxed);
        self.wake();
    }

    /// Whether all parts were alive lately.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let most = SILENT_MAX.as_micros() as Micros;
        [&self.scheduler_alive, &self.api_alive]
            .iter()
            .all(|alive| now().saturating_sub(alive.load(Ordering::Relaxed)) < most)
    }
}

/// What the configuration of the moment says of this hour.
fn rate_of(config: &Arc<RwLock<Arc<Config>>>) -> Rate {
    let config = Arc::clone(config);
    Rate::new(move || {
        let config = Arc::clone(&config.read().unwrap_or_else(PoisonError::into_inner));
        bandwidth_at(&config.limits.bandwidth, &config.limits.timezone, now())
    })
}

/// How the last reading of the configuration went.
#[derive(Debug)]
pub struct Reloads {
    ok: AtomicBool,
    last_good: AtomicI64,
}

impl Reloads {
    fn begun(now: Micros) -> Self {
        Self { ok: AtomicBool::new(true), last_good: AtomicI64::new(now) }
    }

    pub(crate) fn note(&self, ok: bool, now: Micros) {
        self.ok.store(ok, Ordering::Relaxed);
        if ok {
            self.last_good.store(now, Ordering::Relaxed);
        }
    }

    /// Whether the last one went well, and when one last did.
    #[must_use]
    pub fn last(&self) -> (bool, Micros) {
        (self.ok.load(Ordering::Relaxed), self.last_good.load(Ordering::Relaxed))
    }
}

/// The lock that keeps a second daemon off this state.
fn only_one(state: &std::path::Path) -> Result<FileLock> {
    let path: PathBuf = state.join("lock");
    match FileLock::take(&path) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(Error::new(
            Code::Locked,
            format!("Another holdfastd works with the state in {}.", state.display()),
        )
        .with_next("stop it first, or give this one a state of its own")),
        Err(error) => Err(Error::failed(format!("The file {} can't be locked: {error}.", path.display()))),
    }
}

/// Reads the configuration again and says how that went.
fn read_again(daemon: &Daemon) {
    notify::reloading();
    match daemon.reload() {
        Ok(waiting) if waiting.is_empty() => tracing::info!("the configuration was read again"),
        Ok(waiting) => tracing::warn!(
            "the configuration was read again; these keys wait for the next start: {}",
            waiting.join(", ")
        ),
        Err(error) => tracing::error!("the configuration stays as it was: {}", error.message),
    }
    daemon.look_soon();
    notify::notify("READY=1");
}

/// Runs until `stop` is set; then ends everything at its next safe point.
///
/// # Errors
/// When the API can't be offered, or a part can't be started.
pub fn run(daemon: &Arc<Daemon>, stop: &AtomicBool) -> Result<()> {
    let api = http::serve(daemon)?;
    let mut parts: Vec<(String, JoinHandle<()>)> = Vec::new();
    let mut start = |name: String, part: fn(&Arc<Daemon>)| -> Result<()> {
        let shared = Arc::clone(daemon);
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || part(&shared));
        let thread =
            thread.map_err(|error| Error::failed(format!("The thread {name} can't be started: {error}.")))?;
        parts.push((name, thread));
        Ok(())
    };
    start("board".into(), keep_board)?;
    start("scheduler".into(), scheduler::run)?;
    start("streams".into(), keep_streams)?;
    start("alerts".into(), alerts::run)?;
    start("history".into(), history::run)?;
    for slot in 0..daemon.config().jobs {
        start(format!("job-{slot}"), runner::run)?;
    }
    tracing::info!(
        repository = %daemon.config().repository.display(),
        socket = %daemon.config().socket.display(),
        "holdfastd {} is ready",
        env!("CARGO_PKG_VERSION")
    );
    notify::notify("READY=1");
    let watchdog = notify::watchdog_interval();
    let mut fed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(SIGNAL_TICK);
        if watchdog.is_some_and(|every| fed.elapsed() >= every) && daemon.is_alive() {
            notify::notify("WATCHDOG=1");
            fed = Instant::now();
        }
        if daemon.hangup.swap(false, Ordering::Relaxed) {
            read_again(daemon);
        }
        if let Some((name, _)) = parts.iter().find(|(_, thread)| thread.is_finished()) {
            tracing::error!(part = %name, "a part of the daemon has ended by itself; all end, to begin anew");
            break;
        }
    }
    tracing::info!("holdfastd ends");
    notify::notify("STOPPING=1");
    daemon.stopping.store(true, Ordering::Relaxed);
    daemon.wake();
    daemon.queue.stop();
    api.stop();
    let deadline = Instant::now() + STOP_WAIT;
    let mut died = !stop.load(Ordering::Relaxed);
    for (name, thread) in parts {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !thread.is_finished() {
            // As after a kill: what was acknowledged is durable, what runs begins anew.
            tracing::warn!(part = %name, "did not come to a safe point in time");
        } else if thread.join().is_err() {
            died = true;
        }
    }
    // Last: until here, another daemon finds the address taken.
    let _ = std::fs::remove_file(&daemon.config().socket);
    if died { Err(Error::failed("A part of the daemon died; the log says which one.")) } else { Ok(()) }
}
