//! Counting what the log changes, and the replay itself.

use std::ops::ControlFlow;

use holdfast_binlog::tables::TableKey;
use holdfast_engine::PrivateServer;
use holdfast_format::gtid::GtidSet;
use holdfast_mysql::Conn;
use holdfast_replay::checkpoint::Applied;
use holdfast_replay::net::{self, SteppedDown};
use holdfast_replay::{scan, serial};

use super::{Restore, Step};
use crate::catalog::{Catalog, count_rows};
use crate::error::{Error, Foreign, Result};
use crate::progress::{Phase, Progress};
use crate::range::RangeLog;
use crate::report::Prove;
use crate::tally::Tally;

impl Restore<'_, '_> {
    /// Counts the rows of the tables that the range changes, as they were in the base. Tables that nothing of what is
    /// applied already names are still as they were.
    pub(super) fn count_changed(
        &self,
        conn: &mut Conn,
        log: &RangeLog<'_>,
        progress: &mut Progress,
        applied: Applied,
    ) -> Result<()> {
        if self.request.level < Prove::Standard {
            return Ok(());
        }
        let nothing = Catalog::default();
        let mut tally = Tally::new(&nothing, &nothing, progress.held.executed.as_ref());
        tally.read(log)?;
        let before = &mut progress.before;
        let untouched =
            |key: &TableKey| tally.tables.get(key).is_none_or(|table| table.first > applied.touched);
        let mut named: Vec<TableKey> = if self.request.level == Prove::Full {
            before.tables.keys().filter(|key| untouched(key)).cloned().collect()
        } else {
            tally.tables.keys().filter(|key| untouched(key)).cloned().collect()
        };
        // Rows of children may go with their parents'.
        let children = before.cascades.iter().map(|cascade| cascade.child.clone());
        if applied.touched == 0 {
            named.extend(children);
        } else {
            let children: Vec<TableKey> = children.collect();
            named.retain(|key| !children.contains(key));
        }
        for key in named {
            self.go_on_or_stop()?;
            let Some(facts) = before.tables.get_mut(&key).filter(|facts| facts.rows.is_none()) else {
                continue;
            };
            facts.rows = match count_rows(conn, &key) {
                Ok(rows) => Some(rows),
                // A statement of an earlier run may have taken it away already: it is not counted, and the proof says so.
                Err(Error::Sql(holdfast_mysql::Error::Server(_))) if applied.touched > 0 => None,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    pub(super) fn replay(
        &mut self,
        server: &PrivateServer,
        conn: &mut Conn,
        log: &RangeLog<'_>,
        progress: &mut Progress,
        summary: &scan::Summary,
    ) -> Result<()> {
        let held = &progress.held;
        let options = serial::Options {
            plan: progress.base.clone(),
            boot_id: progress.boot_id.clone(),
            base: held.executed.clone().unwrap_or_else(|| GtidSet::empty(self.gtid_flavor())),
            done: progress.done,
        };
        let connect = || server.connect().map_err(|error| Box::new(error) as Foreign);
        let how = net::Options { mode: self.mode, ..net::Options::default() };
        if !self.stepped.is_empty() {
            net::step_down(conn, &options, self.stepped)?;
        }
        let outcome = net::run(conn, &connect, log, &options, &how, summary, &mut |progress| {
            progress.notes.iter().for_each(|note| self.request.watch.note(note));
            self.request.watch.step(Step::Replay {
                transactions: progress.transactions,
                bytes: progress.bytes,
                through_us: progress.consistent_through_micros,
                limit: progress.limit,
            });
            if self.request.watch.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.report.transactions_replayed = outcome.summary.transactions.saturating_sub(outcome.in_base);
        let in_order = outcome.classes.iter().filter(|(_, class)| **class != net::Class::Net);
        self.report.replayed_in_order = in_order.map(|(table, class)| format!("{table}: {class}")).collect();
        // Behind what the server's start left there.
        self.report.remarks.extend(remarks(summary, &outcome.prepared));
        self.report.remarks.extend(self.stepped.iter().map(|SteppedDown { tables, why, .. }| {
            let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
            format!(
                "the base was laid out again, to replay {} in order, after a part of a net change was applied: {why}",
                names.join(", ")
            )
        }));
        // On record before the checkpoint in the server goes.
        (progress.done, progress.phase) = (outcome.summary.transactions, Phase::Replayed);
        progress.write(self.folder)?;
        match log.seen() {
            // What was left out happened as well, to tables that are not here.
            Some(seen) => holdfast_replay::finish::finish(conn, &seen.gtids, &seen.state)?,
            None => holdfast_replay::finish::finish(conn, &outcome.gtids, &outcome.binlog_state)?,
        }
        Ok(())
    }
}

/// What is to be said of the replay.
fn remarks(summary: &scan::Summary, prepared: &[String]) -> Vec<String> {
    let unsafe_statement = |statement: &String| {
        format!("replayed as a statement, and may have done something else than on the source: {statement}")
    };
    let mut out: Vec<String> = summary.unsafe_statements.iter().map(unsafe_statement).collect();
    let more = summary.unsafe_count.saturating_sub(out.len() as u64);
    if more > 0 {
        out.push(format!("and {more} more such statements"));
    }
    out.extend(prepared.iter().map(|name| {
        format!(
            "the XA transaction {name} was prepared and not decided yet: decide it by XA COMMIT or XA ROLLBACK, until then \
             its locks stand"
        )
    }));
    out
}
