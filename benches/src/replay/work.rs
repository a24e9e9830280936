//! Loads of our own: who writes what. Each is threads on connections of their own, and the same number of transactions
//! whatever the machine; a deadlock is tried again, as an application does.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_engine::PrivateServer;
use holdfast_mysql::Conn;

use super::Size;
use super::data::schema;
use crate::rig::error::{Error, Result, sql};
use crate::rows::Random;

mod keyless;
mod orders;
mod wide;

/// Writers, as many as sysbench has.
const THREADS: u64 = 8;

/// Rows of one INSERT while tables are filled.
const FILL_ROWS: u64 = 500;

/// What the servers say of a deadlock, and of a lock that was not given in time.
const RETRIED: [u16; 2] = [1213, 1205];

/// A load.
pub trait Writer: Sync {
    /// Definitions, run once.
    fn definitions(&self) -> Vec<String>;
    /// Statements that fill the tables; every eighth belongs to a thread.
    fn rows(&self, statement: u64) -> Option<String>;
    /// Transactions in all.
    fn transactions(&self) -> u64;
    /// One of them, `BEGIN` and `COMMIT` apart.
    ///
    /// # Errors
    /// The server's, deadlocks among them.
    fn transaction(&self, conn: &mut Conn, random: &mut Random) -> holdfast_mysql::Result<()>;
}

/// A load by its name.
pub struct Work {
    name: &'static str,
    writer: Box<dyn Writer>,
}

impl Work {
    /// The load of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn of(name: &'static str, size: Size) -> Result<Self> {
        let writer: Box<dyn Writer> = match name {
            "orders" => Box::new(orders::Orders::new(size)),
            "wide" => Box::new(wide::Wide::new(size)),
            "keyless" => Box::new(keyless::Keyless::new(size)),
            other => return Err(Error::Server(format!("no load is called {other}"))),
        };
        Ok(Self { name, writer })
    }

    /// Makes and fills the tables.
    ///
    /// # Errors
    /// The server's.
    pub fn fill(&self, server: &PrivateServer) -> Result<()> {
        let mut conn = self.connect(server)?;
        for definition in self.writer.definitions() {
            sql(conn.execute(definition))?;
        }
        let next = AtomicU64::new(0);
        self.threads(server, &|conn, _| {
            while let Some(statement) = self.writer.rows(next.fetch_add(1, Ordering::Relaxed)) {
                conn.execute(statement)?;
            }
            Ok(())
        })
    }

    /// Writes all transactions.
    ///
    /// # Errors
    /// The server's.
    pub fn burst(&self, server: &PrivateServer) -> Result<()> {
        let begun = AtomicU64::new(0);
        self.threads(server, &|conn, random| {
            while begun.fetch_add(1, Ordering::Relaxed) < self.writer.transactions() {
                while !self.once(conn, random)? {}
            }
            Ok(())
        })
    }

    /// One transaction; `false`: it met a deadlock.
    fn once(&self, conn: &mut Conn, random: &mut Random) -> holdfast_mysql::Result<bool> {
        conn.execute("BEGIN")?;
        let done = self.writer.transaction(conn, random).and_then(|()| conn.execute("COMMIT"));
        match done {
            Ok(_) => Ok(true),
            Err(holdfast_mysql::Error::Server(error)) if RETRIED.contains(&error.code) => {
                conn.execute("ROLLBACK")?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn connect(&self, server: &PrivateServer) -> Result<Conn> {
        let mut conn = sql(server.connect())?;
        sql(conn.execute(format!("USE {}", schema(self.name))))?;
        Ok(conn)
    }

    fn threads(
        &self,
        server: &PrivateServer,
        work: &(dyn Fn(&mut Conn, &mut Random) -> holdfast_mysql::Result<()> + Sync),
    ) -> Result<()> {
        let mut conns = Vec::new();
        for _ in 0..THREADS {
            conns.push(self.connect(server)?);
        }
        let ends: Vec<_> = std::thread::scope(|scope| {
            let seeded = conns.iter_mut().zip(1..);
            let begun: Vec<_> =
                seeded.map(|(conn, seed)| scope.spawn(move || work(conn, &mut Random::new(seed)))).collect();
            begun.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        for end in ends {
            match end {
                Ok(done) => sql(done)?,
                Err(_) => return Err(Error::Server("a writer of the load panicked".to_owned())),
            }
        }
        Ok(())
    }
}

/// An INSERT of the rows `numbers`, each as `row` writes it.
fn insert(table: &str, numbers: std::ops::Range<u64>, row: impl Fn(u64, &mut String)) -> String {
    let mut text = format!("INSERT INTO {table} VALUES ");
    for number in numbers.clone() {
        text.push(if number == numbers.start { '(' } else { ',' });
        if number != numbers.start {
            text.push('(');
        }
        row(number, &mut text);
        text.push(')');
    }
    text
}

/// Quoted digits and letters.
fn word(random: &mut Random, len: usize) -> String {
    let mut text = String::with_capacity(len + 18);
    text.push('\'');
    while text.len() <= len {
        let _ = write!(text, "{:x}", random.word());
    }
    text.truncate(len + 1);
    text.push('\'');
    text
}
