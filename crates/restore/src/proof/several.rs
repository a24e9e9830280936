//! Tables that are read as a whole, on several connections: the server gives one connection one core.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;

use crate::error::Result;

/// Connections at most, however many cores there are: the disk is shared.
const CONNECTIONS_MAX: usize = 4;

/// How many connections are worth it beside the first.
#[must_use]
pub(crate) fn more() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(CONNECTIONS_MAX) - 1
}

/// Does `work` for each table, in order, on the connections that there are; threads that the system refuses make it slower.
/// Gives what came of each table that was worked on: once `go_on` says false, or one failed, no other is begun.
///
/// # Errors
/// The first one that `work` gives.
pub(crate) fn each<'t, T: Send>(
    conn: &mut Conn,
    others: &mut [Conn],
    tables: &[&'t TableKey],
    go_on: &dyn Fn() -> bool,
    work: &(dyn Fn(&mut Conn, &TableKey) -> Result<T> + Sync),
) -> Result<Vec<(&'t TableKey, T)>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Result<T>)>> = Mutex::default();
    let turn = |conn: &mut Conn| {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(table) = tables.get(at).filter(|_| !stop.load(Ordering::Relaxed)) else { return false };
        let result = work(conn, table);
        if result.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
        true
    };
    std::thread::scope(|scope| {
        let turn = &turn;
        for other in others.iter_mut().take(tables.len().saturating_sub(1)) {
            let all = move || while turn(other) {};
            if std::thread::Builder::new().name("prove tables".to_owned()).spawn_scoped(scope, all).is_err() {
                break;
            }
        }
        while go_on() && turn(conn) {}
        if !go_on() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    let found = done.into_iter().filter_map(|(at, result)| Some((*tables.get(at)?, result)));
    found.map(|(table, result)| Ok((table, result?))).collect()
}
