//! The source's side of a session: who is there, which files it has, and the thread that reads its socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use holdfast_format::gtid::{Flavor, Uuid};
use holdfast_mysql::{BinlogStream, Conn, EventBytes, Next};

use super::TICK;
use crate::error::{Error, Result};

/// Bytes gathered by the socket's thread before it hands them over.
const BATCH_BYTES: usize = 1 << 20;

/// What the socket's thread hands over.
pub(super) enum Batch {
    Events(Vec<EventBytes>),
    End,
    Failed(Error),
}

/// The socket's side: gathers events into batches.
pub(super) fn read_socket(mut stream: BinlogStream, sender: &Sender<Batch>, halt: &AtomicBool) {
    let mut batch = Vec::new();
    let mut bytes = 0;
    loop {
        let wait = if batch.is_empty() { TICK } else { Duration::from_millis(5) };
        let next = stream.next_event(Instant::now() + wait);
        if halt.load(Ordering::Relaxed) {
            return;
        }
        let (flush, last) = match next {
            Ok(Next::Event(event)) => {
                bytes += event.len();
                batch.push(event);
                (bytes >= BATCH_BYTES, None)
            }
            Ok(Next::Quiet) => (!batch.is_empty(), None),
            Ok(Next::End) => (true, Some(Batch::End)),
            Err(error) => (true, Some(Batch::Failed(error.into()))),
        };
        if flush {
            bytes = 0;
            let events = std::mem::take(&mut batch);
            if sender.send(Batch::Events(events)).is_err() {
                return;
            }
        }
        if let Some(last) = last {
            // Nobody listens any more only if the other side has ended.
            let _ = sender.send(last);
            return;
        }
    }
}

/// Who is there, and is it the right one?
pub(super) fn check_identity(conn: &mut Conn, expect: Option<Uuid>) -> Result<Flavor> {
    if conn.server().is_mariadb() {
        return Ok(Flavor::MariaDb);
    }
    let Some(expect) = expect else { return Ok(Flavor::MySql) };
    let got = conn.query_text("SELECT @@server_uuid")?.unwrap_or_default();
    if got.parse::<Uuid>().ok() != Some(expect) {
        return Err(Error::Identity {
            endpoint: conn.endpoint().to_owned(),
            expected: format!("the server {expect}"),
            got: format!("the server {got}"),
        });
    }
    Ok(Flavor::MySql)
}

/// The files of the source's log, oldest first.
pub(super) fn binlog_files(conn: &mut Conn) -> Result<Vec<String>> {
    // Error 1381: the server writes no binlog.
    match conn.query("SHOW BINARY LOGS") {
        Ok(result) => Ok((0..result.rows.len()).filter_map(|row| result.text(row, 0)).collect()),
        Err(error) if error.code() == Some(1381) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
