//! What a user may write behind `--to`, `--before` and `--after`.

use super::base::StoredBase;
use crate::error::{Error, Result};
use crate::own;
use crate::time::parse_time;
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::ServerRecord;
use holdfast_restore::Side;

/// Where a restore is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(pub(crate) holdfast_restore::Target);

impl Target {
    /// Reads `latest`, `fastest`, `backup:NAME-OR-ID`, `gtid:GTID`, `gtid-set:SET`, `pos:FILE:OFFSET` or a time.
    ///
    /// # Errors
    /// `Usage` with what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        use holdfast_restore::Target as To;
        Ok(Self(match text {
            "latest" => To::Latest,
            "fastest" => To::Fastest,
            _ if text.starts_with("gtid:") => To::Transaction { id: text.to_owned(), side: Side::After },
            _ if text.starts_with("backup:") => {
                let named = text.strip_prefix("backup:").unwrap_or_default();
                if named.is_empty() {
                    return Err(Error::usage(format!("'{text}' names no backup."))
                        .with_next("write backup:NAME or backup:ID, as `holdfast list` shows them"));
                }
                To::Backup(named.to_owned())
            }
            _ => match (text.strip_prefix("pos:"), text.strip_prefix("gtid-set:")) {
                (Some(place), _) => position(text, place)?,
                (None, Some(set)) => {
                    let (set, life) = gtid_set(set)?;
                    To::GtidSet { set, life }
                }
                (None, None) => To::Time(parse_time(text)?),
            },
        }))
    }

    /// Everything before a transaction.
    pub fn before(id: &str) -> Self {
        Self(holdfast_restore::Target::Transaction { id: id.to_owned(), side: Side::Before })
    }

    /// Everything up to and with a transaction.
    pub fn after(id: &str) -> Self {
        Self(holdfast_restore::Target::Transaction { id: id.to_owned(), side: Side::After })
    }
}

/// The target with the whole id of the backup that it names, if it names one: by its own name, or the beginning of its id.
pub(super) fn of_backup(server: &ServerRecord, bases: &[StoredBase], target: &Target) -> Result<Target> {
    use holdfast_restore::Target as To;
    let To::Backup(named) = &target.0 else { return Ok(target.clone()) };
    let called = bases.iter().find(|base| own::name_of(&base.record) == Some(named));
    let mut found = bases.iter().filter(|base| base.record.id.to_string().starts_with(named.as_str()));
    let (first, second) = (found.next(), found.next());
    let next = format!("see its backups: holdfast list {}", server.name);
    match (called, first, second) {
        (Some(called), None, _) => Ok(Target(To::Backup(called.record.id.to_string()))),
        (Some(called), Some(first), None) if called.record.id == first.record.id => {
            Ok(Target(To::Backup(first.record.id.to_string())))
        }
        (None, Some(first), None) => Ok(Target(To::Backup(first.record.id.to_string()))),
        (None, None, _) => {
            Err(Error::usage(format!("'{}' has no backup '{named}'.", server.name)).with_next(next))
        }
        _ => Err(Error::usage(format!("'{named}' names more than one backup of '{}'.", server.name))
            .with_next(format!("write the whole id; {next}"))),
    }
}

fn position(text: &str, place: &str) -> Result<holdfast_restore::Target> {
    let (file, offset) = place.rsplit_once(':').unwrap_or((place, ""));
    // As `find` prints it where the log has several lives.
    let (offset, life) = match offset.split_once('@') {
        Some((offset, life)) => (offset, Some(life.parse())),
        None => (offset, None),
    };
    match (offset.parse(), life.transpose()) {
        (Ok(offset), Ok(life)) if !file.is_empty() => {
            Ok(holdfast_restore::Target::Position { file: file.to_owned(), offset, life })
        }
        _ => Err(Error::usage(format!("'{text}' is not a position."))
            .with_next("write pos:FILE:OFFSET, for example pos:binlog.000042:1879")),
    }
}

/// A GTID set as the server prints it, and the life of the log in which it is meant.
pub(crate) fn gtid_set(text: &str) -> Result<(GtidSet, Option<u32>)> {
    let wrong = |why: String| {
        Error::usage(format!("'{text}' is not a GTID set: {why}.")).with_next(
            "write gtid-set:SET, as @@gtid_executed (MySQL) or @@gtid_binlog_pos (MariaDB) shows it: gtid-set:UUID:1-5 or \
             gtid-set:0-1-100",
        )
    };
    let (set, life) = match text.rsplit_once('@') {
        Some((set, life)) => match life.parse() {
            Ok(life) => (set, Some(life)),
            Err(_) => return Err(wrong(format!("'{life}' is no life of the log"))),
        },
        None => (text, None),
    };
    // A UUID is followed by a colon; MariaDB's have none.
    let flavor = if set.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
    let set = GtidSet::parse(flavor, set).map_err(|error| wrong(error.to_string()))?;
    if set.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    Ok((set, life))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_target_is_read() {
        let is = |text: &str, target| assert_eq!(Target::parse(text).unwrap(), Target(target));
        is("latest", holdfast_restore::Target::Latest);
        is("backup:before-upgrade", holdfast_restore::Target::Backup("before-upgrade".into()));
        assert!(Target::parse("backup:").is_err());
        is("1970-01-01T00:00:01Z", holdfast_restore::Target::Time(1_000_000));
        let at = |life| holdfast_restore::Target::Position { file: "a:b.1".into(), offset: 4, life };
        is("pos:a:b.1:4", at(None));
        is("pos:a:b.1:4@2", at(Some(2)));
        assert!(Target::parse("pos:a:b.1:4@x").is_err());
        assert!(Target::parse("pos:binlog.000001").is_err());
        assert!(Target::parse("yesterday").is_err());
        let set = |text: &str| Target::parse(&format!("gtid-set:{text}"));
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        for (text, shown, life) in [
            // As servers print it: with line breaks; out of order it is the same set.
            (format!("{uuid}:7:1-5,\n{uuid}:tag:1-3"), format!("{uuid}:1-5:7:tag:1-3"), None),
            ("1-2-7,0-1-100@3".to_owned(), "0-1-100,1-2-7".to_owned(), Some(3)),
        ] {
            match set(&text).unwrap().0 {
                holdfast_restore::Target::GtidSet { set, life: of } => {
                    assert_eq!((set.to_string(), of), (shown, life));
                }
                other => panic!("{other:?}"),
            }
        }
        for wrong in ["", "@1", "0-1-100@x", "0-1-100,0-2-3", "not-a-set", &format!("{uuid}:5-x"), uuid] {
            let error = set(wrong).unwrap_err();
            assert!(error.message.contains("is not a GTID set"), "{wrong}: {}", error.message);
        }
    }
}
