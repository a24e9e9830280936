//! Statements that commit by themselves, in the session that they ran in.

use holdfast_binlog::event::{Event, FLAG_SUPPRESS_USE};
use holdfast_binlog::gtid_event::AlterPhase;
use holdfast_binlog::query::Query;
use holdfast_binlog::statement::{Action, Object, Statement, Verb, database};
use holdfast_binlog::tables::TableKey;

use super::Limit;
use super::lead::Lead;
use crate::before;
use crate::checkpoint::{self, Intent};
use crate::ddl;
use crate::error::Error;

/// The number of `utf8mb4_general_ci`.
const UTF8MB4: u16 = 45;

impl Lead<'_> {
    /// Runs a statement that commits by itself.
    pub(super) fn definition(
        &mut self,
        event: &Event<'_>,
        query: &Query<'_>,
        text: &[u8],
        statement: &Statement,
    ) -> Result<(), Error> {
        // The first phase of MariaDB's ALTER has no effect yet, a rolled-back one has none at all.
        if matches!(self.current_ref().alter, Some(AlterPhase::Start | AlterPhase::Rollback { .. })) {
            return Ok(());
        }
        let rows_follow = statement.verb == Verb::CtasStart
            || self.current_ref().begun
                && statement.action == Action::Create
                && statement.object == Object::Table;
        self.commit_group()?;
        self.kinds.forget();
        self.as_thread(query.thread_id)?;
        self.forget_definitions(statement, query.database);
        // What is noted must not depend on what ran before: the next call asks in a session that did not run it.
        if event.header.flags & FLAG_SUPPRESS_USE == 0 {
            self.session.use_database(self.conn, query.database)?;
        }
        let mut vars = ddl::within_the_folder(&query.vars, statement, text);
        if rows_follow && !text.is_ascii() {
            // The server's own words, in UTF-8 whatever the session's character set.
            vars.to_mut().charset = vars.charset.map(|(_, _, server)| (UTF8MB4, UTF8MB4, server));
        }
        self.session.apply(self.conn, &vars)?;
        let now = before::state(self.conn, statement, text)?;
        let resumed = self.checkpoint.intent.take_if(|intent| intent.number == self.seen);
        if let Some(intent) = &resumed {
            if before::tells(statement, text) && now != intent.before {
                // It took effect; of a CREATE .. SELECT of MySQL, the rows did too.
                self.current_ref().skip = true;
                return self.note_done();
            }
            if rows_follow
                && statement.verb != Verb::CtasStart
                && !statement.or_replace
                && before::was_absent(&intent.before)
            {
                // MariaDB: the table may be there without its rows.
                self.drop_created(statement)?;
            }
        }
        // What this call found may be of an earlier one's making.
        let noted = resumed.as_ref().map(|intent| &intent.before).filter(|before| !before.is_empty());
        let before = noted.cloned().unwrap_or(now);
        if rows_follow {
            self.current_ref().before.clone_from(&before);
        }
        checkpoint::intend(self.conn, &Intent { number: self.seen, before })?;
        self.session.at(self.conn, event.header.timestamp, query.vars.microseconds.unwrap_or(0))?;
        self.report.limit = Limit::Definition;
        // Whoever wants to stop is asked again behind it.
        let _ = self.tell();
        if ddl::concerns_proxies(statement, text) {
            ddl::become_proxy(self.conn)?;
        }
        let admin = || ddl::with_admin(text, statement, query.vars.invoker);
        let mut again = resumed.is_some();
        let mut anew = if self.mariadb && again { ddl::made_anew(text, statement) } else { None };
        if anew.is_some() {
            // The text is in the statement's character set; the event has the name in UTF-8, as its default database.
            let named = database(text, vars.sql_mode.unwrap_or(0)).filter(|name| name.is_ascii());
            let ours = ddl::holds_nothing(self.conn, named.as_deref().unwrap_or(query.database))?;
            // What is in it was there before an earlier call, which failed for that.
            again = ours;
            anew = anew.filter(|_| ours);
        }
        let rewritten = anew.or_else(|| self.mariadb.then(admin).flatten());
        if let Err(source) = self.conn.execute(rewritten.as_deref().unwrap_or(text)) {
            self.failed(text, statement, again, source)?;
        }
        if self.mariadb && statement.object == Object::Account && statement.action == Action::Create {
            ddl::become_admin(self.conn, resumed.is_some())?;
        }
        ddl::grant_routine(self.conn, statement, query.vars.invoker, query.database)?;
        if matches!(statement.object, Object::Database) {
            self.session.forget_database();
        }
        if statement.verb == Verb::CtasStart {
            // Atomic in MySQL: the transaction goes on, only rows and COMMIT may follow.
            self.open = true;
            self.current_ref().ctas = true;
            return Ok(());
        }
        if rows_follow {
            self.current_ref().here = true;
            return Ok(());
        }
        self.note_done()
    }

    /// A statement failed: is it because it took effect before a kill?
    fn failed(
        &mut self,
        text: &[u8],
        statement: &Statement,
        resumed: bool,
        source: holdfast_mysql::Error,
    ) -> Result<(), Error> {
        let what = || String::from_utf8_lossy(text.get(..200).unwrap_or(text)).into_owned();
        let source = Box::new(source);
        match source.as_ref() {
            holdfast_mysql::Error::Server(error) if resumed => {
                if ddl::had_taken_effect(statement, error.code) {
                    return Ok(());
                }
                Err(Error::HalfDone { statement: what(), place: self.place.clone(), source })
            }
            holdfast_mysql::Error::Server(_) => {
                Err(Error::Diverged { what: format!("`{}`", what()), place: self.place.clone(), source })
            }
            _ => Err(Error::Server { doing: "running a statement of the log", source }),
        }
    }

    fn drop_created(&mut self, statement: &Statement) -> Result<(), Error> {
        for name in &statement.tables {
            let mut drop = b"DROP TABLE IF EXISTS ".to_vec();
            drop.extend(before::written(name));
            self.conn.execute(drop).map_err(Error::server("dropping a half-made table"))?;
        }
        Ok(())
    }

    /// Moves the checkpoint behind the transaction that is under way.
    pub(super) fn note_done(&mut self) -> Result<(), Error> {
        self.conn
            .execute(checkpoint::advance(self.seen + 1))
            .map_err(Error::server("moving the checkpoint"))?;
        self.current_ref().noted = true;
        Ok(())
    }

    /// What is known of tables that the statement may change is asked for anew.
    fn forget_definitions(&mut self, statement: &Statement, database: &[u8]) {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let concerns_none = matches!(
            statement.object,
            Object::View | Object::Trigger | Object::Routine | Object::Event | Object::Account
        );
        if concerns_none {
            return;
        }
        let name = |name: &holdfast_binlog::statement::TableName| TableKey {
            database: name.database.as_deref().map_or_else(|| lossy(database), lossy),
            table: lossy(&name.table),
        };
        let tables: Vec<TableKey> = statement.tables.iter().map(name).collect();
        // Names are in the statement's character set, those of tables here are not.
        let plain = |name: &holdfast_binlog::statement::TableName| {
            name.table.is_ascii() && name.database.as_deref().unwrap_or(database).is_ascii()
        };
        let told = matches!(statement.object, Object::Table | Object::Index | Object::Sequence)
            && statement.tables.iter().all(plain);
        let tables = if told { tables.as_slice() } else { &[] };
        self.cascades.forget(tables);
        if let Some(net) = &mut self.net {
            net.forget(tables);
        }
    }
}
