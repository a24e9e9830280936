//! Where the log of another server of the same replication set goes on behind what is archived.
//!
//! A server that was promoted wrote in its own files what it had from the one before it, under the same GTIDs. So its
//! log goes on exactly where ours ends if there is a place in it up to which exactly those transactions were executed that
//! we have: what follows is new, what was before is the same. No such place, no joint: the two logs are never merged.

use std::time::{Duration, Instant};

use holdfast_format::gtid::{Flavor, Gtid, GtidSet};
use holdfast_format::ids::ServerId;
use holdfast_format::record::{Position, StreamKey};
use holdfast_mysql::{Conn, ConnectOptions, DumpFrom, DumpOptions, Next};

use crate::error::{Error, Result};
use crate::intake::{Anchor, FIRST_OFFSET, Flaw, Intake, Taken, flaw_to_error};
use crate::receiver::binlog_files;
use crate::storage::LogStore;
use crate::tail;
use crate::written::Written;

/// Longest wait for the next event of a log that is read to its present end.
const EVENT_WAIT_MAX: Duration = Duration::from_secs(30);

/// A place in the log of a server behind everything that is archived, and nothing else.
#[derive(Debug, Clone)]
pub struct Join {
    /// The place; its set is what is archived.
    pub at: Position,
    /// The transaction before it, which the server must show again.
    pub(crate) anchor: Anchor,
}

/// How the log of a server stands to what is archived.
#[derive(Debug, Clone)]
pub enum Standing {
    /// It goes on where the archive ends.
    GoesOn(Box<Join>),
    /// It may come there: what it lacks may still be on its way to it.
    Behind {
        /// What it lacks.
        lacks: String,
    },
    /// It has a history of its own.
    Apart {
        /// Why it can't go on, as the end of a sentence.
        why: String,
    },
}

/// The life before this one, and what was executed at its end, if nothing of this one is archived yet and it is another server's: this one
/// may begin behind it. `None` too where nothing tells transactions of two servers apart.
pub fn executed_before(store: &dyn LogStore, stream: &StreamKey) -> Result<Option<(StreamKey, GtidSet)>> {
    let keys: Vec<_> = store.streams()?.into_iter().filter(|key| key.server == stream.server).collect();
    let newest = keys.iter().max_by_key(|key| key.incarnation);
    let Some(before) =
        newest.filter(|key| key.source_uuid != stream.source_uuid && key.incarnation < stream.incarnation)
    else {
        return Ok(None);
    };
    Ok(executed(store, before)?.filter(|set| !set.is_empty()).map(|set| (*before, set)))
}

/// What is executed at the end of a stream; `None` if nothing of it is archived.
pub fn executed(store: &dyn LogStore, stream: &StreamKey) -> Result<Option<GtidSet>> {
    let stretches = store.stretches(stream)?;
    if let Some(record) = stretches.last().and_then(|last| last.sealed.as_ref()) {
        return Ok(Some(record.gtid_after.clone()));
    }
    Ok(tail::find(store, stream)?.at.map(|at| at.gtid))
}

/// Asks a server how its log stands to the archive of `server`, which ends with `executed`.
pub fn look(
    connect: &ConnectOptions,
    server_id: u32,
    store: &dyn LogStore,
    server: ServerId,
    executed: &GtidSet,
) -> Result<Standing> {
    let mut conn = Conn::connect(connect)?;
    let flavor = if conn.server().is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
    if flavor != executed.flavor() {
        return Ok(apart("it is of another family".to_owned()));
    }
    if let Some(standing) = lacking(&mut conn, executed)? {
        return Ok(standing);
    }
    let files = binlog_files(&mut conn)?;
    drop(conn);
    let written = if flavor == Flavor::MariaDb { Some(Written::of(store, server)?) } else { None };
    let mut oldest = None;
    for file in files.iter().rev() {
        let mut walk = Walk::begin(connect, server_id, flavor, file)?;
        let before = match walk.head() {
            Ok(before) => before,
            Err(Stop::Flaw(why)) => return Ok(apart(why)),
            Err(Stop::Failed(error)) => return Err(error),
        };
        if !before.is_subset(executed) {
            oldest = Some(before);
            continue;
        }
        return match walk.go_to_join(executed, written.as_ref()) {
            Ok(standing) => Ok(standing),
            Err(Stop::Flaw(why)) => Ok(apart(why)),
            Err(Stop::Failed(error)) => Err(error),
        };
    }
    let Some(mut more) = oldest else { return Ok(apart("it writes no binlog".to_owned())) };
    // Of one family, as was asked.
    let _ = more.subtract(executed);
    Ok(apart(format!("its oldest log begins behind {more}, which is not archived")))
}

/// What the server lacks of `executed`, unless it has all of it.
fn lacking(conn: &mut Conn, executed: &GtidSet) -> Result<Option<Standing>> {
    let flavor = executed.flavor();
    let question = match flavor {
        Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
        Flavor::MariaDb => "SELECT @@GLOBAL.gtid_binlog_pos",
    };
    let text = conn.query_text(question)?.unwrap_or_default();
    let Ok(theirs) = GtidSet::parse(flavor, &text) else {
        return Ok(Some(apart(format!("what it has executed can't be read: {text}"))));
    };
    let (mut lacks, mut own) = (executed.clone(), theirs.clone());
    // Of one family.
    let _ = lacks.subtract(&theirs);
    if lacks.is_empty() {
        return Ok(None);
    }
    let _ = own.subtract(executed);
    if own.is_empty() {
        return Ok(Some(Standing::Behind { lacks: lacks.to_string() }));
    }
    Ok(Some(apart(format!("it lacks {lacks}, and has {own}, which is not archived"))))
}

fn apart(why: String) -> Standing {
    Standing::Apart { why }
}

/// Why a walk ends early.
enum Stop {
    /// The log contradicts itself or us.
    Flaw(String),
    Failed(Error),
}

impl From<holdfast_mysql::Error> for Stop {
    fn from(error: holdfast_mysql::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Reads a server's log from the beginning of a file to its present end.
struct Walk {
    intake: Intake,
    stream: holdfast_mysql::BinlogStream,
}

impl Walk {
    fn begin(connect: &ConnectOptions, server_id: u32, flavor: Flavor, file: &str) -> Result<Self> {
        let conn = Conn::connect(connect)?;
        let mut options = DumpOptions::new(server_id);
        options.until_end = true;
        let from = DumpFrom::Position { file: file.to_owned(), offset: FIRST_OFFSET };
        Ok(Self { intake: Intake::new(flavor, file, None), stream: conn.dump(&from, &options)? })
    }

    /// What the file says was executed before it.
    fn head(&mut self) -> std::result::Result<GtidSet, Stop> {
        loop {
            if let Some(before) = self.intake.executed() {
                return Ok(before.clone());
            }
            if self.step()?.is_none() {
                let why = format!("{} does not say what was executed before it", self.intake.file());
                return Err(Stop::Flaw(why));
            }
        }
    }

    /// Goes to the first transaction that is not in `executed`, or to the end.
    fn go_to_join(
        &mut self,
        executed: &GtidSet,
        written: Option<&Written>,
    ) -> std::result::Result<Standing, Stop> {
        // One of each writer is enough of what comes before the file: the last one.
        let strange = |gtid: &Gtid| written.is_some_and(|written| !written.has(gtid));
        let mut before = self.intake.history().iter().map(|gtid| Gtid::MariaDb(*gtid));
        if let Some(gtid) = before.find(strange) {
            return Ok(apart(format!("its log has {gtid}, which is not archived, before what is")));
        }
        let mut boundary = self.boundary();
        let met = loop {
            match self.step()? {
                None => break None,
                Some(Taken::Keep(kept)) => {
                    let gtid = kept.transaction.map(|transaction| transaction.gtid);
                    match gtid {
                        Some(Some(gtid)) if !executed.contains(&gtid) => break Some(gtid.to_string()),
                        Some(Some(gtid)) if strange(&gtid) => {
                            return Ok(apart(format!(
                                "its log has {gtid}, which is not archived, before what is"
                            )));
                        }
                        Some(None) => break Some("a transaction without a GTID".to_owned()),
                        Some(Some(_)) | None => {}
                    }
                    if kept.boundary {
                        boundary = self.boundary();
                    }
                }
                Some(_) => {}
            }
        };
        if boundary.0.gtid != *executed {
            let mut lacks = executed.clone();
            let _ = lacks.subtract(&boundary.0.gtid);
            let before = met.unwrap_or_else(|| "its end".to_owned());
            return Ok(apart(if lacks.is_empty() {
                // Only where one number was given to two transactions.
                format!("up to {before} it has {}, where {executed} is archived", boundary.0.gtid)
            } else {
                format!("in its log {before} comes before {lacks}")
            }));
        }
        let (at, Some(anchor)) = boundary else {
            return Ok(apart("its log shows nothing before the place where it would go on".to_owned()));
        };
        Ok(Standing::GoesOn(Box::new(Join { at, anchor })))
    }

    fn boundary(&self) -> (Position, Option<Anchor>) {
        (self.intake.position(), self.intake.anchor().cloned())
    }

    /// The next event; `None` at the end.
    fn step(&mut self) -> std::result::Result<Option<Taken>, Stop> {
        match self.stream.next_event(Instant::now() + EVENT_WAIT_MAX)? {
            Next::Event(event) => self.intake.take(&event).map(Some).map_err(|flaw| match flaw {
                Flaw::Gap(why) => Stop::Flaw(why),
                flaw => Stop::Failed(flaw_to_error(flaw, "another server", &self.intake.position())),
            }),
            Next::End => Ok(None),
            Next::Quiet => Err(Stop::Failed(Error::Silent { file: self.intake.file().to_owned() })),
        }
    }
}
