//! The window of net change: what goes into it, and how it is applied.

use std::sync::Arc;

use holdfast_binlog::event::{Event, Header};
use holdfast_binlog::rows::Rows;

use super::Limit;
use super::lead::Lead;
use crate::appliers::{self, Refused, Running, Stopped};
use crate::checkpoint::{self, WindowNote};
use crate::error::Error;
use crate::log::EventPlace;
use crate::net::Net;
use crate::net::plan::Plan;
use crate::session;

impl Lead<'_> {
    /// Takes a TABLE_MAP event into the window.
    pub(super) fn window_map(
        &mut self,
        place: &EventPlace,
        event: &Event<'_>,
        table_id: u64,
    ) -> Result<(), Error> {
        let Some(key) = self.tables.get(table_id).map(|table| Arc::clone(&table.key)) else { return Ok(()) };
        for _ in 0..2 {
            let said = self.current.as_ref().and_then(|current| current.session.clone());
            let mariadb = self.mariadb;
            let session = || said.map_or_else(|| session::rows_default(mariadb), |said| said.to_string());
            let Some(net) = &mut self.net else { return Ok(()) };
            if net.table_map(event, &key, session, place)? {
                break;
            }
            self.launch()?;
        }
        Ok(())
    }

    /// Takes a row event into the window.
    pub(super) fn window_rows(
        &mut self,
        place: &EventPlace,
        header: &Header,
        rows: &Rows<'_>,
    ) -> Result<(), Error> {
        for _ in 0..2 {
            let Some(net) = &mut self.net else { return Ok(()) };
            if net.rows(header, rows, &mut self.tables, place)? {
                break;
            }
            self.launch()?;
        }
        if rows.is_dummy() {
            return Ok(());
        }
        let (done, current) = (self.seen, self.current_ref());
        current.row_events += 1;
        current.rows = true;
        let inside = current.row_events;
        if self.net.as_ref().is_some_and(|net| net.is_due(done, inside)) {
            self.launch()?;
        }
        Ok(())
    }

    /// Applies the window, whole, with the checkpoint behind it. Behind it the server is where the log is.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        self.launch()?;
        self.land()?;
        // What comes next, comes in the order of the log.
        self.net.iter_mut().for_each(Net::let_history_go);
        Ok(())
    }

    /// Begins to apply the window; what follows is taken into the next one meanwhile. One window is applied at a
    /// time: the one before is waited for, and its checkpoint written, before anything of this one is on record.
    pub(super) fn launch(&mut self) -> Result<(), Error> {
        if self.net.as_ref().is_none_or(|net| net.window.is_empty()) {
            return Ok(());
        }
        self.land()?;
        let Some(net) = &mut self.net else { return Ok(()) };
        let inside = self.current.as_ref().map_or(0, |current| current.row_events);
        let next = net.window.next();
        let mut window = std::mem::replace(&mut net.window, next);
        let place = &self.place;
        let lane_rows = window.lane_rows();
        if let Err(halt) = window.finish(place) {
            return Err(net.stopped(halt));
        }
        let plan = Arc::new(Plan::new(window, net.chunk_size()));
        let rows = plan.rows_left(&net.committed) + lane_rows;
        let note = WindowNote {
            until: self.seen,
            inside,
            print: plan.print(),
            chunk_bytes: plan.chunk_bytes as u64,
        };
        let resumed = net.note.take();
        if resumed.is_some_and(|resumed| resumed != note) {
            return Err(Error::OtherWindow);
        }
        net.raise_counters(&plan.counters)?;
        net.keep_history(&plan);
        if plan.chunks.len() <= 1 && resumed.is_none() {
            self.apply_at_once(&plan, &note)?;
            self.written += rows;
            return Ok(());
        }
        if resumed.is_none() {
            checkpoint::note_window(self.conn, &note)?;
        }
        let mut session = plan.session.clone();
        let session = session.get_or_insert_with(|| session::rows_default(self.mariadb));
        net.ready(plan.chunks.len(), session)?;
        let committed = std::mem::take(&mut net.committed);
        let appliers = std::mem::take(&mut net.appliers);
        let mut running = Running::begin(appliers, plan, (note, rows), &committed, self.packet_max);
        if let Some((threads, error)) = running.short_of_threads() {
            net.short_of(format!("the system gives {threads} threads to apply rows, and no more: {error}"));
        }
        net.running = Some(running);
        Ok(())
    }

    /// Waits for the window that is being applied, if there is one, and writes its checkpoint.
    pub(super) fn land(&mut self) -> Result<(), Error> {
        let Some(net) = &mut self.net else { return Ok(()) };
        let Some(running) = net.running.take() else { return Ok(()) };
        let (plan, note, rows) = (Arc::clone(&running.plan), running.note, running.rows);
        let (progress, report, written) = (&mut self.progress, &mut self.report, self.written);
        report.notes = std::mem::take(&mut net.news);
        let mut tick = |rows: u64, in_order: bool| {
            report.written = written + rows;
            report.limit = if in_order { Limit::InOrder } else { Limit::NetChange };
            let told = progress(report);
            report.notes.clear();
            told
        };
        let (appliers, applied) = running.end(&mut tick);
        net.appliers = appliers;
        match applied {
            Ok(()) => {}
            Err(Stopped::Asked) => return Err(Error::Stopped(self.seen)),
            Err(Stopped::Error(error)) => return Err(error),
            Err(Stopped::Refused(refused)) => {
                net.committed = checkpoint::chunks(self.conn)?;
                return Err(self.refused(&plan, refused));
            }
        }
        let doing = || Error::server("committing");
        self.conn.execute("BEGIN").map_err(doing())?;
        self.conn.execute(checkpoint::advance_inside(note.until, note.inside)).map_err(doing())?;
        self.conn.execute(checkpoint::forget_chunks()).map_err(doing())?;
        self.conn.execute("COMMIT").map_err(doing())?;
        self.written += rows;
        Ok(())
    }

    /// A table of the window that is being filled does not fit. The window before is another matter: it is waited for,
    /// and on record, before the table steps down and what is behind it is begun anew.
    pub(super) fn land_before(&mut self, error: Error) -> Error {
        if self.net.as_mut().is_some_and(Net::hold_steps) {
            if let Err(error) = self.land() {
                return error;
            }
            self.net.iter_mut().for_each(Net::let_steps_go);
        }
        error
    }

    /// A window of one chunk needs no appliers and no record: it is one transaction.
    fn apply_at_once(&mut self, plan: &Plan, note: &WindowNote) -> Result<(), Error> {
        let mut session = plan.session.clone();
        let session = session.get_or_insert_with(|| session::rows_default(self.mariadb));
        self.session.apply_text(self.conn, session)?;
        let doing = || Error::server("committing");
        self.conn.execute("BEGIN").map_err(doing())?;
        if !plan.chunks.is_empty() {
            let statement = match appliers::encode(plan, 0, self.packet_max, &mut Vec::new()) {
                Ok(statement) => statement,
                Err(Stopped::Error(error)) => return Err(error),
                Err(_) => return Ok(()),
            };
            match self.conn.execute(statement) {
                Ok(_) => {}
                Err(source @ holdfast_mysql::Error::Server(_)) => {
                    self.conn.execute("ROLLBACK").map_err(Error::server("rolling back"))?;
                    return Err(self.refused(plan, Refused { chunk: 0, source }));
                }
                Err(source) => return Err(Error::server("applying rows")(source)),
            }
        }
        self.conn.execute(checkpoint::advance_inside(note.until, note.inside)).map_err(doing())?;
        self.conn.execute("COMMIT").map_err(doing())?;
        Ok(())
    }

    /// The server did not take a chunk: its tables step down, if they can.
    fn refused(&mut self, plan: &Plan, refused: Refused) -> Error {
        let diverged = |source| Error::Diverged {
            what: plan.describe(refused.chunk),
            place: self.place.clone(),
            source: Box::new(source),
        };
        let Some(net) = &mut self.net else { return diverged(refused.source) };
        if plan.is_run(refused.chunk) {
            return diverged(refused.source);
        }
        let why = format!("the server refused its net change: {}", refused.source);
        let tables = plan.tables_of(refused.chunk);
        net.surprise(&tables, why, false)
    }
}
