//! The second start, as the server will be handed over, and the proof that looks at it.

use std::time::{Duration, Instant};

use holdfast_mysql::Flavor;

use super::{Restore, SHUTDOWN_LIMIT, Step};
use crate::catalog::Catalog;
use crate::elsewhere;
use crate::error::Result;
use crate::progress::Progress;
use crate::proof::{self, Evidence};
use crate::queries;
use crate::range::RangeLog;
use crate::report::Check;
use crate::scope;
use crate::tally::Tally;
use crate::tuning;

impl Restore<'_, '_> {
    /// Starts the server, proves it, and shuts it down again. `restarting` is when the server before it was told to
    /// stop, `began` when the restore began.
    pub(super) fn prove(
        &mut self,
        progress: &Progress,
        log: Option<&RangeLog<'_>>,
        restarting: Instant,
        began: Instant,
    ) -> Result<()> {
        let server = self.start("the restored server", &[])?;
        let mut conn = server.connect()?;
        self.report.seconds.restart = restarting.elapsed().as_secs_f64();
        elsewhere::refuse(&mut conn, self.folder)?;
        if self.programs.flavor() == Flavor::MySql {
            self.report.server_uuid = conn.query_text("SELECT @@GLOBAL.server_uuid").ok().flatten();
        }
        self.request.watch.step(Step::Prove);
        let proving = Instant::now();
        let end = Catalog::read(&mut conn, false)?;
        self.report.tables = end.tables.len() as u64;
        if let Some(scope) = &self.scope {
            let missing = scope.missing(&scope::server::tables(&mut conn)?);
            let detail = "every table that was asked for by name is there".to_owned();
            self.report.checks.push(Check::new("tables-asked-for", detail, missing, Vec::new()));
        }
        let tally = match log {
            Some(log) => {
                let mut tally = Tally::new(&progress.before, &end, progress.held.executed.as_ref());
                tally.read(log)?;
                Some(tally)
            }
            None => None,
        };
        if let Some(tally) = &tally {
            let by_position = log.map_or(0, RangeLog::left_out);
            self.report.transactions_in_base = tally.skipped + by_position;
        }
        let evidence = Evidence {
            recovered: &progress.before,
            end: &end,
            tally: tally.as_ref(),
            level: self.request.level,
            check_budget: Duration::from_secs(120).max(began.elapsed() / 10),
            go_on: &|| !self.request.watch.cancelled(),
        };
        // One connection does it all, only slower.
        let mut others: Vec<_> = (0..proof::several::more()).map_while(|_| server.connect().ok()).collect();
        let checks = proof::prove(&mut conn, &mut others, &evidence);
        drop(others);
        self.go_on_or_stop()?;
        self.report.checks.extend(checks?);
        self.report.checks.push(tuning::put_back(&mut conn, self.programs.flavor(), &self.tuned)?);
        if let Some(queries) = self.request.queries {
            let go_on = || !self.request.watch.cancelled();
            let asked = queries::ask(&server, &mut conn, queries, self.moment_us(), &go_on);
            self.go_on_or_stop()?;
            let (check, answers) = asked?;
            self.report.checks.push(check);
            self.report.queries = answers;
        }
        self.report.seconds.prove = proving.elapsed().as_secs_f64();
        drop(conn);
        let stopping = Instant::now();
        server.stop(SHUTDOWN_LIMIT)?;
        self.report.seconds.restart += stopping.elapsed().as_secs_f64();
        Ok(())
    }

    /// When the source was as the restored server is now: the last transaction's commit, or the end of the base.
    fn moment_us(&self) -> Option<i64> {
        let plan = self.request.plan;
        let base = || plan.base_finished.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
        plan.last_kept.as_ref().and_then(|kept| kept.committed_us).or_else(base)
    }
}
