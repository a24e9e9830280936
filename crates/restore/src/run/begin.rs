//! The first start of a base that was laid out, and the start of a restore that goes on.

use std::sync::Arc;
use std::time::Instant;

use holdfast_binlog::tables::TableKey;
use holdfast_engine::{PrivateServer, RecoveredCoordinates, StartOptions, prepare_mariadb_while};
use holdfast_format::gtid::GtidSet;
use holdfast_format::record::{COPIED_FROM, LOG_END, SourceKind};
use holdfast_mysql::{Conn, Flavor};
use holdfast_replay::scan;

use super::settings::settings;
use super::{RECOVERY_LIMIT, Restore, SERVER_LOG, SHUTDOWN_LIMIT, Step};
use crate::catalog::{Catalog, TableFacts};
use crate::error::{Error, Result};
use crate::marker::Marker;
use crate::progress::{Phase, Progress, boot_id};
use crate::report::Prove;
use crate::scope::{self, Scope, filter};
use crate::tuning::{self, Facts, Tuning};
use crate::{elsewhere, recovered};

impl Restore<'_, '_> {
    /// First start of a base that was laid out: where it stands by the server's own recovery, and what is on it.
    pub(super) fn begin(&mut self) -> Result<(Progress, PrivateServer, Conn)> {
        let base = self.request.base;
        let (server, found) = self.recover_with_parents()?;
        let mut conn = server.connect()?;
        // Before anything is dropped: a DROP removes the table's file wherever the dictionary says that it is.
        elsewhere::refuse(&mut conn, self.folder)?;
        if let Some(scope) = self.scope.clone() {
            self.refuse_or_forget_others(&mut conn, Scope::clone(&scope))?;
        }
        let (noted, flavor) = (base.coordinates(), self.gtid_flavor());
        let held = match base.fact(COPIED_FROM) {
            Some(_) => recovered::check_of_replica(noted, &found, flavor)?,
            None => recovered::check(noted, &found, flavor, base.fact(LOG_END))?,
        };
        self.request.watch.step(Step::Inspect);
        let before = Catalog::read(&mut conn, self.request.level == Prove::Full)?;
        let progress = Progress {
            base: base.id(),
            boot_id: boot_id(),
            phase: Phase::Replaying,
            laid_out: self.report.laid_out,
            coordinates: base.coordinates().clone(),
            held,
            before,
            done: 0,
            gtids: String::new(),
            scope: self.scope.as_deref().cloned(),
        };
        Ok((progress, server, conn))
    }

    /// The first start. Where foreign keys of the tables need more of them, the base is laid out again with those, and
    /// recovered anew: a file that was not there while the server recovered is not recovered.
    fn recover_with_parents(&mut self) -> Result<(PrivateServer, RecoveredCoordinates)> {
        loop {
            let (server, found) = self.recover()?;
            let Some(known) = &self.scope else { return Ok((server, found)) };
            let mut scope = Scope::clone(known);
            let mut conn = server.connect()?;
            if !scope::server::add_parents(&mut conn, &mut scope)? {
                return Ok((server, found));
            }
            drop(conn);
            server.kill();
            self.report.laid_out = super::lay_out(self.request, self.target, Some(&scope))?;
            self.report.checks.retain(|check| check.name != "blocks");
            self.report.checks.push(super::blocks_check(self.report.laid_out));
            self.scope = Some(Arc::new(scope));
        }
    }

    /// Last look before anything is changed: is every table there that was asked for, and can the log be replayed for
    /// these tables alone? Then everything else goes.
    fn refuse_or_forget_others(&mut self, conn: &mut Conn, mut scope: Scope) -> Result<()> {
        let request = self.request;
        // MariaDB's views, and triggers of tables of other engines than InnoDB, are not laid out: their files tell of them.
        let paths = request.base.paths().map_err(Error::Base)?;
        scope.set_programs(scope::server::programs(conn)?.saturating_add(scope::files::programs(&paths)));
        let survey = self.survey(&mut scope)?;
        let there = scope::server::tables(conn)?;
        let databases = scope::server::databases(conn)?;
        for name in scope.whole_databases() {
            let in_base = databases.iter().any(|found| scope.same_name(found, name));
            survey.refuse_no_database(name, in_base, &request.plan.target)?;
        }
        for table in scope.named() {
            survey.refuse_gone(&table, &request.plan.target)?;
            if !there.iter().any(|found| scope.same(found, &table)) && !survey.makes(&table) {
                return Err(Error::Tables(format!(
                    "the table {table} does not exist at {}: it is not in the backup {}, and nothing up to there makes it",
                    request.plan.target, request.plan.base
                )));
            }
        }
        if let Some(wanted) = request.tables {
            scope.refuse_names(wanted, |table| {
                survey.makes(&scope.key(table)) || there.iter().any(|found| scope.same(found, table))
            })?;
        }
        for (from, to) in request.tables.iter().flat_map(|wanted| &wanted.renamed) {
            if !scope.same_name(&from.database, &to.database) && scope::server::has_triggers(conn, from)? {
                return Err(has_triggers(from));
            }
        }
        scope::server::refuse_sequences(conn, &scope, &there)?;
        scope::server::forget_others(conn, &scope)?;
        self.scope = Some(Arc::new(scope));
        Ok(())
    }

    /// Reads the log for the tables, and refuses what can't be replayed for them alone.
    fn survey(&self, scope: &mut Scope) -> Result<filter::Survey> {
        let request = self.request;
        let survey = match (request.plan.log, request.log) {
            (Some(range), Some(log)) => filter::survey(&filter::Whole { log, range }, scope)?,
            _ => filter::Survey::default(),
        };
        survey.refuse_unclear(scope.programs())?;
        for (from, to) in request.tables.iter().flat_map(|wanted| &wanted.renamed) {
            if !scope.same_name(&from.database, &to.database) && survey.triggers(&scope.key(from)) {
                return Err(has_triggers(from));
            }
        }
        scope.set_moved(survey.moved());
        Ok(survey)
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
        if let Some(mut scope) = self.scope.as_deref().cloned() {
            let survey = self.survey(&mut scope)?;
            for name in scope.whole_databases() {
                survey.refuse_no_database(name, true, &self.request.plan.target)?;
            }
            self.scope = Some(Arc::new(scope));
        }
        self.target.go_on(marker)?;
        self.request.watch.step(Step::Recover);
        let started = Instant::now();
        let tuned = self.tune();
        let server = self.start("the restored server that goes on", &tuned)?;
        let mut conn = server.connect()?;
        if let Some(wanted) = self.request.tables {
            scope::server::unrename(&mut conn, wanted)?;
        }
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
        let recovered_in_part = self.recover_in_part()?;
        let tuned = self.tune();
        let server = self.start("the restored server's first start", &tuned)?;
        let mut found = match recovered_in_part {
            Some(found) => found,
            None => server.recovered()?,
        };
        if let Some(prepared) = prepared {
            // The start after --prepare has nothing left to recover.
            (found.file, found.position) = (prepared.file, prepared.position);
        }
        self.report.seconds.recover = started.elapsed().as_secs_f64();
        Ok((server, found))
    }

    /// Chooses the settings of the server that the log is replayed on.
    fn tune(&mut self) -> Vec<String> {
        let facts = Facts::here(self.request.plan, self.folder);
        let Tuning { args, why } = tuning::choose(&self.programs.version, &facts);
        self.report.replay_settings = why;
        self.tuned.clone_from(&args);
        args
    }

    /// MySQL refuses to recover while files are missing that its redo log names, and takes no change where it is made to.
    /// So that is a start of its own.
    fn recover_in_part(&mut self) -> Result<Option<RecoveredCoordinates>> {
        if self.scope.is_none() || self.programs.flavor() != Flavor::MySql {
            return Ok(None);
        }
        let mut options = StartOptions::new(self.programs.clone(), self.folder);
        options.purpose = "the restored server's recovery".to_owned();
        options.timeout = RECOVERY_LIMIT;
        options.log = Some(self.folder.join(SERVER_LOG));
        options.extra_args = settings(self.request.base, self.programs.flavor());
        options.files_missing = true;
        let server = PrivateServer::start_while(options, &|| !self.request.watch.cancelled())?;
        self.remark_network(&server);
        let found = server.recovered()?;
        server.stop(SHUTDOWN_LIMIT)?;
        Ok(Some(found))
    }

    pub(super) fn start(&mut self, purpose: &str, more: &[String]) -> Result<PrivateServer> {
        let mut options = StartOptions::new(self.programs.clone(), self.folder);
        options.purpose = purpose.to_owned();
        options.timeout = RECOVERY_LIMIT;
        options.log = Some(self.folder.join(SERVER_LOG));
        options.extra_args = settings(self.request.base, self.programs.flavor());
        options.extra_args.extend(more.iter().cloned());
        let server = PrivateServer::start_while(options, &|| !self.request.watch.cancelled())?;
        self.remark_network(&server);
        Ok(server)
    }

    /// Of each private server that is started: whether it could be kept out of the host's network.
    pub(super) fn remark_network(&mut self, server: &PrivateServer) {
        let remarks = &mut self.report.remarks;
        remarks.extend(server.network_remark().filter(|told| !remarks.contains(told)));
    }
}

fn has_triggers(table: &TableKey) -> Error {
    Error::Tables(format!(
        "the table {table} has triggers, and a server moves no such table to another database: give it a new name in {}",
        table.database
    ))
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
