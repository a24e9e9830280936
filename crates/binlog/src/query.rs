//! The QUERY event: a statement with the session that it ran in.

use crate::bytes::Cursor;
use crate::compressed;
use crate::error::Flaw;
use crate::format::FormatDescription;
use crate::gtid_event::AlterPhase;

/// `flags2` bit: `SET SESSION sql_auto_is_null=1`.
pub const OPTION_AUTO_IS_NULL: u32 = 1 << 14;
/// `flags2` bit: `autocommit=0`.
pub const OPTION_NOT_AUTOCOMMIT: u32 = 1 << 19;
/// `flags2` bit: `foreign_key_checks=0`.
pub const OPTION_NO_FOREIGN_KEY_CHECKS: u32 = 1 << 26;
/// `flags2` bit: `unique_checks=0`.
pub const OPTION_RELAXED_UNIQUE_CHECKS: u32 = 1 << 27;

/// The databases that a statement changed, as a MySQL server lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdatedDatabases<'a> {
    /// More than 16: the server gave up listing them.
    TooMany,
    /// Their names.
    Named(Vec<&'a [u8]>),
}

/// The session that a statement ran in. A variable that the event doesn't carry is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusVars<'a> {
    /// `OPTION_*` bits.
    pub flags2: Option<u32>,
    /// `sql_mode` as a bit set of the writer's family.
    pub sql_mode: Option<u64>,
    /// `auto_increment_increment` and `auto_increment_offset`.
    pub auto_increment: Option<(u16, u16)>,
    /// Collation ids of `character_set_client`, `collation_connection`, `collation_server`.
    pub charset: Option<(u16, u16, u16)>,
    /// `time_zone`.
    pub time_zone: Option<&'a [u8]>,
    /// `lc_time_names` as the server's number.
    pub lc_time_names: Option<u16>,
    /// Collation id of `collation_database`.
    pub collation_database: Option<u16>,
    /// Bits of the tables that a multi-table UPDATE changed.
    pub table_map_for_update: Option<u64>,
    /// Who invoked the statement: user and host; the definer of what it creates.
    pub invoker: Option<(&'a [u8], &'a [u8])>,
    /// MySQL: databases changed.
    pub updated_databases: Option<UpdatedDatabases<'a>>,
    /// Fraction of the timestamp, 0 ..= 999,999.
    pub microseconds: Option<u32>,
    /// MySQL: `explicit_defaults_for_timestamp`.
    pub explicit_defaults_for_timestamp: Option<bool>,
    /// Number of the transaction of an atomic DDL.
    pub ddl_xid: Option<u64>,
    /// MySQL: collation id of `default_collation_for_utf8mb4`.
    pub default_collation_for_utf8mb4: Option<u16>,
    /// MySQL: `sql_require_primary_key`.
    pub sql_require_primary_key: Option<bool>,
    /// MySQL: `default_table_encryption`.
    pub default_table_encryption: Option<bool>,
    /// MySQL 9.7: `enable_cascade_triggers`.
    pub enable_cascade_triggers: Option<bool>,
    /// MariaDB: two-phase ALTER.
    pub alter: Option<AlterPhase>,
    /// MariaDB 11: (character set, default collation) ids of `character_set_collations`.
    pub character_set_collations: Vec<(u16, u16)>,
}

impl<'a> StatusVars<'a> {
    /// Reads the block of status variables. A key that isn't known is an error: nothing
    /// behind it can be found, and a statement in half its context may do something else.
    ///
    /// # Errors
    /// Fails on unknown keys and cut values.
    pub fn parse(bytes: &'a [u8], mariadb: bool) -> Result<Self, Flaw> {
        let mut c = Cursor::new(bytes);
        let mut vars = Self::default();
        while !c.is_empty() {
            let key = c.u8("a status variable")?;
            match key {
                0 => vars.flags2 = Some(c.u32("flags2")?),
                1 => vars.sql_mode = Some(c.u64("sql_mode")?),
                2 => {
                    c.name("a catalog")?;
                }
                3 => vars.auto_increment = Some((c.u16("an increment")?, c.u16("an offset")?)),
                4 => {
                    let (client, connection) = (c.u16("a character set")?, c.u16("a collation")?);
                    vars.charset = Some((client, connection, c.u16("a collation")?));
                }
                5 => vars.time_zone = Some(c.short_bytes("a time zone")?),
                6 => {
                    c.short_bytes("a catalog")?;
                }
                7 => vars.lc_time_names = Some(c.u16("a locale")?),
                8 => vars.collation_database = Some(c.u16("a collation")?),
                9 => vars.table_map_for_update = Some(c.u64("a map of tables")?),
                10 => {
                    c.u32("a length of data")?;
                }
                11 => vars.invoker = Some((c.short_bytes("a user")?, c.short_bytes("a host")?)),
                12 if !mariadb => vars.updated_databases = Some(updated_databases(&mut c)?),
                13 => vars.microseconds = Some(microseconds(&mut c)?),
                16 if !mariadb => vars.explicit_defaults_for_timestamp = Some(flag(&mut c)?),
                17 if !mariadb => vars.ddl_xid = Some(c.u64("a transaction number")?),
                18 if !mariadb => vars.default_collation_for_utf8mb4 = Some(c.u16("a collation")?),
                19 if !mariadb => vars.sql_require_primary_key = Some(flag(&mut c)?),
                20 if !mariadb => vars.default_table_encryption = Some(flag(&mut c)?),
                21 if !mariadb => vars.enable_cascade_triggers = Some(flag(&mut c)?),
                128 if mariadb => vars.microseconds = Some(microseconds(&mut c)?),
                129 if mariadb => vars.ddl_xid = Some(c.u64("a transaction number")?),
                130 if mariadb => vars.alter = alter(&mut c)?,
                131 if mariadb => {
                    for _ in 0..c.u8("a count of collations")? {
                        vars.character_set_collations
                            .push((c.u16("a character set")?, c.u16("a collation")?));
                    }
                }
                other => {
                    let family = if mariadb { "MariaDB" } else { "MySQL" };
                    return Err(c.flaw("a known status variable", format!("key {other} of {family}")));
                }
            }
        }
        Ok(vars)
    }
}

fn flag(c: &mut Cursor<'_>) -> Result<bool, Flaw> {
    Ok(c.u8("a flag")? != 0)
}

fn microseconds(c: &mut Cursor<'_>) -> Result<u32, Flaw> {
    let value = c.uint(3, "microseconds")? as u32;
    if value > 999_999 { Err(c.flaw("at most 999999 microseconds", value)) } else { Ok(value) }
}

fn updated_databases<'a>(c: &mut Cursor<'a>) -> Result<UpdatedDatabases<'a>, Flaw> {
    // OVER_MAX_DBS_IN_EVENT_MTS: no names follow.
    const OVER_MAX: u8 = 254;
    let count = c.u8("a count of databases")?;
    if count == OVER_MAX {
        return Ok(UpdatedDatabases::TooMany);
    }
    let mut names = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        names.push(c.c_string("the name of a database")?);
    }
    Ok(UpdatedDatabases::Named(names))
}

fn alter(c: &mut Cursor<'_>) -> Result<Option<AlterPhase>, Flaw> {
    const START: u8 = 2;
    const COMMIT: u8 = 4;
    const ROLLBACK: u8 = 8;
    let flags = c.u8("extra flags")?;
    if flags & (COMMIT | ROLLBACK) != 0 {
        let start = c.u64("the sequence number of START ALTER")?;
        let commit = flags & COMMIT != 0;
        return Ok(Some(if commit { AlterPhase::Commit { start } } else { AlterPhase::Rollback { start } }));
    }
    Ok((flags & START != 0).then_some(AlterPhase::Start))
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The connection that ran it.
    pub thread_id: u32,
    /// Seconds from its start to the writing of the event.
    pub exec_time: u32,
    /// Error that it ended with on the source; 0: none.
    pub error_code: u16,
    /// Its session.
    pub vars: StatusVars<'a>,
    /// Default database; empty: none.
    pub database: &'a [u8],
    /// Its text in `character_set_client`; in a compressed event still compressed, see [`Query::text`].
    raw_text: &'a [u8],
    compressed: bool,
}

impl<'a> Query<'a> {
    pub(crate) fn parse(body: &'a [u8], format: &FormatDescription, compressed: bool) -> Result<Self, Flaw> {
        let (mut query, _) = Self::parse_with_extra(body, format, 0)?;
        query.compressed = compressed;
        Ok(query)
    }

    /// Reads a QUERY with `extra` bytes between its fixed part and its status variables.
    pub(crate) fn parse_with_extra(
        body: &'a [u8],
        format: &FormatDescription,
        extra: usize,
    ) -> Result<(Self, &'a [u8]), Flaw> {
        let mut c = Cursor::new(body);
        let (thread_id, exec_time) = (c.u32("a thread")?, c.u32("a duration")?);
        let database_len = c.u8("the length of a database name")?;
        let error_code = c.u16("an error code")?;
        let vars_len = c.u16("the length of the status variables")?;
        let extra = c.take(extra, "the fixed part of LOAD DATA")?;
        let before = c.position();
        let vars = c.take(usize::from(vars_len), "the status variables")?;
        let vars = StatusVars::parse(vars, format.is_mariadb()).map_err(|mut flaw| {
            flaw.offset = flaw.offset.saturating_add(u32::try_from(before).unwrap_or(u32::MAX));
            flaw
        })?;
        let database = c.take(usize::from(database_len), "a database name")?;
        let nul = c.u8("a NUL behind the database name")?;
        if nul != 0 {
            return Err(c.flaw("a NUL behind the database name", nul));
        }
        let raw_text = c.rest();
        Ok((Self { thread_id, exec_time, error_code, vars, database, raw_text, compressed: false }, extra))
    }

    /// The statement, inflated into `scratch` if it is compressed.
    ///
    /// # Errors
    /// Fails on a compressed text that does not inflate.
    pub fn text<'b>(&self, scratch: &'b mut Vec<u8>) -> Result<&'b [u8], Flaw>
    where
        'a: 'b,
    {
        if !self.compressed {
            return Ok(self.raw_text);
        }
        compressed::inflate(self.raw_text, scratch)?;
        Ok(scratch)
    }
}
