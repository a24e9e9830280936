//! Writers on a live server, and the record outside it of what was acknowledged when.
//!
//! Each transaction does some work in the shop and appends its own number, the time and a hash to
//! `shop.ledger`. Which transactions a restored server holds is read from its ledger; what the shop
//! must look like then is worked out by `Model`; which ones it must hold is in the record here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};

use crate::model::{Model, SCHEMA};
use crate::server::{Engine, TestServer};

/// How the ledger is written.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// What all transactions follow from.
    pub seed: u64,
    /// Writers at the same time, 1 to 16.
    pub threads: u64,
    /// Pause of each writer between two transactions.
    pub pause: Duration,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self { seed: 1, threads: 3, pause: Duration::from_millis(2) }
    }
}

/// A transaction whose commit the server acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// Its number in the ledger.
    pub no: u64,
    /// The writer.
    pub thread: u64,
    /// Its number among the writer's own.
    pub seq: u64,
    /// Our clock before COMMIT was sent.
    pub sent: SystemTime,
    /// Our clock when the answer was there.
    pub acked: SystemTime,
    /// Its GTID, where the server tells (MariaDB).
    pub gtid: Option<String>,
}

/// Writers at work.
#[derive(Debug)]
pub struct Ledger {
    options: LedgerOptions,
    stop: Arc<AtomicBool>,
    record: Arc<Mutex<Vec<Ack>>>,
    writers: Vec<JoinHandle<Result<(), holdfast_mysql::Error>>>,
}

impl Ledger {
    /// Makes the shop.
    pub fn create_schema(server: &TestServer) {
        server.run(&SCHEMA);
    }

    /// Sets writers to work. They go on where the shop's ledger ends; give the seed that it began with.
    #[must_use]
    pub fn start(server: &TestServer, options: LedgerOptions) -> Self {
        assert!((1..=16).contains(&options.threads), "1 to 16 writers");
        let stop = Arc::new(AtomicBool::new(false));
        let record = Arc::new(Mutex::new(Vec::new()));
        let mut conn = server.root();
        let last = conn.query_text("SELECT COALESCE(MAX(no), 0) FROM shop.ledger").unwrap().unwrap();
        let no = Arc::new(AtomicU64::new(last.parse().unwrap()));
        let done = sequences(&mut conn).unwrap();
        let writers = (0..options.threads).map(|thread| {
            let seq = done.iter().find(|(t, _)| *t == thread).map_or(0, |(_, seq)| *seq);
            let mut writer = Writer {
                model: Model::after(options.seed, thread, seq),
                thread,
                engine: server.engine(),
                no: Arc::clone(&no),
                record: Arc::clone(&record),
            };
            let connect = ConnectOptions::new(Endpoint::Unix(server.socket().to_path_buf()), "root")
                .tls_mode(TlsMode::Disabled);
            let (stop, pause) = (Arc::clone(&stop), options.pause);
            std::thread::spawn(move || {
                let mut conn = Conn::connect(&connect)?;
                while !stop.load(Ordering::Relaxed) {
                    writer.transaction(&mut conn)?;
                    std::thread::sleep(pause);
                }
                Ok(())
            })
        });
        let writers = writers.collect();
        Self { options, stop, record, writers }
    }

    /// What was acknowledged so far, in the order of the acknowledgements.
    #[must_use]
    pub fn acks(&self) -> Vec<Ack> {
        self.record.lock().unwrap().clone()
    }

    /// Waits until `more` further transactions are acknowledged.
    pub fn wait_for(&self, more: usize) {
        let goal = self.record.lock().unwrap().len() + more;
        let deadline = Instant::now() + Duration::from_secs(300);
        while self.record.lock().unwrap().len() < goal {
            assert!(
                Instant::now() < deadline,
                "the writers did not do {more} transactions within five minutes"
            );
            assert!(!self.writers.iter().all(JoinHandle::is_finished), "all writers have ended");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the writers after their present transaction. An error of a writer fails the test.
    pub fn stop(self) -> Vec<Ack> {
        let (acks, errors) = self.stop_anyhow();
        assert!(errors.is_empty(), "writers failed: {errors:?}");
        acks
    }

    /// Ends the writers; a server that went away is no failure of the test here.
    pub fn stop_anyhow(mut self) -> (Vec<Ack>, Vec<holdfast_mysql::Error>) {
        self.stop.store(true, Ordering::Relaxed);
        let ends = self.writers.drain(..).map(|writer| writer.join().expect("a writer panicked"));
        let errors = ends.filter_map(Result::err).collect();
        (self.acks(), errors)
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.options.seed
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    model: Model,
    thread: u64,
    engine: Engine,
    no: Arc<AtomicU64>,
    record: Arc<Mutex<Vec<Ack>>>,
}

impl Writer {
    fn transaction(&mut self, conn: &mut Conn) -> Result<(), holdfast_mysql::Error> {
        let step = self.model.step();
        let (thread, seq) = (self.thread, self.model.seq());
        loop {
            let no = self.no.fetch_add(1, Ordering::Relaxed) + 1;
            let ledger = format!(
                "INSERT INTO shop.ledger VALUES ({no}, {thread}, {seq}, SYSDATE(6), '{}')",
                step.row_hash
            );
            let mut body = || -> Result<(), holdfast_mysql::Error> {
                conn.execute("BEGIN")?;
                for statement in &step.statements {
                    conn.execute(statement)?;
                }
                conn.execute(&ledger).map(drop)
            };
            match body() {
                Ok(()) => {}
                // Lock wait, deadlock: the server asks for the transaction to be tried again.
                Err(error) if matches!(error.code(), Some(1205 | 1213)) => {
                    conn.execute("ROLLBACK")?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let sent = SystemTime::now();
            conn.execute("COMMIT")?;
            let acked = SystemTime::now();
            let gtid = match self.engine {
                Engine::MySql => None,
                Engine::MariaDb => conn.query_text("SELECT @@last_gtid")?,
            };
            self.record.lock().unwrap().push(Ack { no, thread, seq, sent, acked, gtid });
            return Ok(());
        }
    }
}

/// What a server's ledger holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Writer, and how many of its transactions.
    pub sequences: Vec<(u64, u64)>,
    /// Transactions in all.
    pub transactions: u64,
}

impl Held {
    /// True if the server holds this transaction.
    #[must_use]
    pub fn holds(&self, ack: &Ack) -> bool {
        self.sequences.iter().any(|(thread, seq)| *thread == ack.thread && ack.seq <= *seq)
    }
}

/// Checks a server's shop against the ledger in it: every writer's transactions are there without
/// a hole, and the shop is what they make of it, row by row. Says what is held, or what is wrong.
pub fn check(conn: &mut Conn, seed: u64) -> Result<Held, String> {
    let words = |error: holdfast_mysql::Error| error.to_string();
    conn.execute("SET NAMES utf8mb4").map_err(words)?;
    let sequences = sequences(conn).map_err(words)?;
    let mut transactions = 0;
    for &(thread, seq) in &sequences {
        transactions += seq;
        let mut model = Model::new(seed, thread);
        let rows = conn
            .query(format!("SELECT seq, row_hash FROM shop.ledger WHERE thread = {thread} ORDER BY seq"))
            .map_err(words)?;
        for row in 0..rows.rows.len() {
            let step = model.step();
            let held = (rows.text(row, 0).unwrap_or_default(), rows.text(row, 1).unwrap_or_default());
            if held != (model.seq().to_string(), step.row_hash.clone()) {
                return Err(format!(
                    "ledger of writer {thread}: expected transaction {} with hash {}, found {held:?}",
                    model.seq(),
                    step.row_hash
                ));
            }
        }
        for (table, query, expected) in model.expectations() {
            let found = conn.query(&query).map_err(words)?;
            let found: Vec<String> =
                (0..found.rows.len()).map(|row| found.text(row, 0).unwrap_or_default()).collect();
            if let Some(at) =
                (0..found.len().max(expected.len())).find(|&at| found.get(at) != expected.get(at))
            {
                return Err(format!(
                    "shop.{table} after transaction {seq} of writer {thread}: {} rows of {}; row {at}: \
                     expected {:?}, found {:?}",
                    found.len(),
                    expected.len(),
                    expected.get(at),
                    found.get(at)
                ));
            }
        }
    }
    Ok(Held { sequences, transactions })
}

fn sequences(conn: &mut Conn) -> Result<Vec<(u64, u64)>, holdfast_mysql::Error> {
    let rows = conn.query("SELECT thread, MAX(seq) FROM shop.ledger GROUP BY thread ORDER BY thread")?;
    let number = |row, column| rows.text(row, column).unwrap().parse().unwrap();
    Ok((0..rows.rows.len()).map(|row| (number(row, 0), number(row, 1))).collect())
}
