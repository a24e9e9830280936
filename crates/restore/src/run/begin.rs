//! The first start of a base that was laid out, and the start of a restore that goes on.

use std::time::Instant;

use holdfast_binlog::tables::TableKey;
use holdfast_engine::{PrivateServer, RecoveredCoordinates, StartOptions, prepare_mariadb_while};
use holdfast_format::gtid::GtidSet;
use holdfast_format::record::SourceKind;
use holdfast_mysql::{Conn, Flavor};
use holdfast_replay::scan;

use super::settings::settings;
use super::{RECOVERY_LIMIT, Restore, SERVER_LOG, Step};
use crate::catalog::{Catalog, TableFacts};
use crate::error::{Error, Result};
use crate::marker::Marker;
use crate::progress::{Phase, Progress, boot_id};
use crate::report::Prove;
use crate::seam::LaidOut;
use crate::tuning::{self, Facts, Tuning};
use crate::{elsewhere, recovered};

impl Restore<'_, '_> {
    /// First start of a base that was laid out: where it stands by the server's own recovery, and what is on it.
    pub(super) fn begin(&mut self, laid_out: LaidOut) -> Result<(Progress, PrivateServer, Conn)> {
        let base = self.request.base;
        let (server, found) = self.recover()?;
        let mut conn = server.connect()?;
        elsewhere::refuse(&mut conn, self.folder)?;
        let held = recovered::check(base.coordinates(), &found, self.gtid_flavor())?;
        self.request.watch.step(Step::Inspect);
        let before = Catalog::read(&mut conn, self.request.level == Prove::Full)?;
        let progress = Progress {
            base: base.id(),
            boot_id: boot_id(),
            phase: Phase::Replaying,
            laid_out,
            coordinates: base.coordinates().clone(),
            held,
            before,
            done: 0,
            gtids: String::new(),
        };
        Ok((progress, server, conn))
    }

    /// Starts the server of a restore that goes on. Nothing is touched before it is known that it can.
    pub(super) fn go_on(
        &mut self,
        progress: &Progress,
        marker: &Marker,
    ) -> Result<(PrivateServer, Conn, scan::Summary)> {
        self.request.watch.step(Step::Inspect);
        let mut summary = scan::Summary::default();
        if let Some(log) = self.range(progress)? {
            summary = scan::scan(&log).map_err(Error::of_scan)?;
        }
        if summary.transactions < progress.done {
            return Err(self.backwards()?);
        }
        summary.check()?;
        self.target.go_on(marker)?;
        self.request.watch.step(Step::Recover);
        let started = Instant::now();
        let tuned = self.tune();
        let server = self.start("the restored server that goes on", &tuned)?;
        let mut conn = server.connect()?;
        self.report.seconds.recover = started.elapsed().as_secs_f64();
        if progress.phase == Phase::Settled {
            let (found, flavor) = (self.gtids(&mut conn)?, self.gtid_flavor());
            let set = |text: &str| match text {
                "" => Ok(GtidSet::empty(flavor)),
                text => GtidSet::parse(flavor, text),
            };
            if set(&found)? != set(&progress.gtids)? {
                let (folder, left) = (self.folder.to_path_buf(), progress.gtids.clone());
                return Err(Error::Touched { folder, left, found });
            }
        }
        Ok((server, conn, summary))
    }

    pub(super) fn backwards(&self) -> Result<Error> {
        Ok(Error::Backwards {
            folder: self.folder.to_path_buf(),
            reached: Marker::read(self.folder)?.map_or_else(String::new, |there| there.target),
            wanted: self.request.plan.target.clone(),
        })
    }

    /// The server's GTIDs: what it has executed (MySQL), or where it stands (MariaDB).
    pub(super) fn gtids(&self, conn: &mut Conn) -> Result<String> {
        let text = conn.query_text(match self.programs.flavor() {
            Flavor::MySql => "SELECT @@GLOBAL.gtid_executed",
            Flavor::MariaDb => "SELECT @@GLOBAL.gtid_current_pos",
        })?;
        Ok(text.unwrap_or_default().split_whitespace().collect())
    }

    /// First start. Gives where the copy stands by the server's own recovery.
    pub(super) fn recover(&mut self) -> Result<(PrivateServer, RecoveredCoordinates)> {
        self.request.watch.step(Step::Recover);
        let started = Instant::now();
        let mut prepared = None;
        if self.request.base.kind() == SourceKind::Xbstream && self.programs.flavor() == Flavor::MariaDb {
            let log = self.folder.join(SERVER_LOG);
            let go_on = || !self.request.watch.cancelled();
            prepared =
                prepare_mariadb_while(self.programs, self.folder, &log, RECOVERY_LIMIT, &go_on)?.recovered;
        }
        let tuned = self.tune();
        let server = self.start("the restored server's first start", &tuned)?;
        let mut found = server.recovered()?;
        if let Some(prepared) = prepared {
            // The start after --prepare has nothing left to recover.
            (found.file, found.position) = (prepared.file, prepared.position);
        }
        self.report.seconds.recover = started.elapsed().as_secs_f64();
        Ok((server, found))
    }

    /// Chooses the settings of the server that the log is replayed on.
    fn tune(&mut self) -> Vec<String> {
        let plan = self.request.plan;
        let log_bytes = plan.log.map_or(0, |range| range.size.bytes);
        let facts = Facts::here(log_bytes, plan.bytes, self.folder);
        let Tuning { args, why } = tuning::choose(&self.programs.version, &facts);
        self.report.replay_settings = why;
        self.tuned.clone_from(&args);
        args
    }

    pub(super) fn start(&self, purpose: &str, more: &[String]) -> Result<PrivateServer> {
        let mut options = StartOptions::new(self.programs.clone(), self.folder);
        options.purpose = purpose.to_owned();
        options.timeout = RECOVERY_LIMIT;
        options.log = Some(self.folder.join(SERVER_LOG));
        options.extra_args = settings(self.request.base, self.programs.flavor());
        options.extra_args.extend(more.iter().cloned());
        Ok(PrivateServer::start_while(options, &|| !self.request.watch.cancelled())?)
    }
}

/// Tables that a clone made without their rows. The source names only those that the backup's account may see.
pub(super) fn lacking(kind: SourceKind, before: &Catalog, named: &[String]) -> Vec<String> {
    const ROWLESS: [&str; 4] = ["BLACKHOLE", "FEDERATED", "MEMORY", "MRG_MYISAM"];
    if kind != SourceKind::Clone {
        return Vec::new();
    }
    let carried = |engine: &str| engine == "InnoDB" || ROWLESS.contains(&engine);
    let missing = before.tables.iter().filter(|(_, facts)| !carried(&facts.engine));
    let sentence = |(key, facts): (&TableKey, &TableFacts)| {
        format!(
            "the rows of {key} ({}) are not in the backup: a clone carries InnoDB tables only",
            facts.engine
        )
    };
    let known = |key: &TableKey| named.iter().any(|line| line.contains(&format!(" {key} ")));
    missing.filter(|(key, _)| !known(key)).map(sentence).collect()
}
