//! The small text files that the program puts beside the data.
//!
//! Up to 10.11 they are called `xtrabackup_*`, later `mariadb_backup_*`; both are taken.

use crate::error::Error;
use crate::outcome::Position;

/// Prefixes of their names.
const FAMILIES: [&str; 2] = ["mariadb_backup_", "xtrabackup_"];

/// What is read from them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// Where the copy stands in the binary log; `None` if the server writes none.
    pub(super) position: Option<Position>,
    /// Facts for a restore.
    pub(super) facts: Vec<(String, String)>,
}

/// True for a file whose text is wanted here as well as in the copy.
pub(super) fn is_metadata(name: &str) -> bool {
    name == "backup-my.cnf" || FAMILIES.iter().any(|family| name.starts_with(family))
}

impl Metadata {
    /// From the files by name. A stream without checkpoints did not come to its end.
    pub(super) fn from_files(files: &[(String, Vec<u8>)]) -> Result<Self, Error> {
        let text = |suffix: &str| {
            FAMILIES.iter().find_map(|family| {
                let (_, bytes) = files.iter().find(|(name, _)| name.strip_prefix(family) == Some(suffix))?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            })
        };
        let checkpoints = text("checkpoints").ok_or_else(|| Error::Malformed {
            place: "the backup stream".to_owned(),
            expected: "a file mariadb_backup_checkpoints or xtrabackup_checkpoints".to_owned(),
            got: "none".to_owned(),
        })?;
        let kind = value(&checkpoints, "backup_type").unwrap_or_default();
        if kind != "full-backuped" {
            return Err(Error::Malformed {
                place: "the backup stream's checkpoints file".to_owned(),
                expected: "a full backup".to_owned(),
                got: format!("backup_type = {kind}"),
            });
        }
        let mut facts = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            facts.extend(value.map(|value| (name.to_owned(), value)));
        };
        add("innodb_to_lsn", value(&checkpoints, "to_lsn"));
        add("innodb_last_lsn", value(&checkpoints, "last_lsn"));
        let info = text("info").unwrap_or_default();
        add("backup_tool", value(&info, "tool_name"));
        add("backup_tool_version", value(&info, "tool_version"));
        let position = text("binlog_info").map(|text| parse_position(&text)).transpose()?;
        Ok(Self { position, facts })
    }
}

/// The value of a line `name = value`.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `file TAB position TAB gtid`, the last one missing where the server knows no GTIDs.
pub(super) fn parse_position(text: &str) -> Result<Position, Error> {
    let malformed = || Error::Malformed {
        place: "the backup's binlog_info file".to_owned(),
        expected: "a log file's name, a tab and a position".to_owned(),
        got: format!("{:?}", text.chars().take(200).collect::<String>()),
    };
    let mut fields = text.trim_end_matches(['\n', '\r']).splitn(3, '\t');
    let file = fields.next().filter(|file| !file.is_empty()).ok_or_else(malformed)?.to_owned();
    let offset = fields.next().and_then(|offset| offset.trim().parse().ok()).ok_or_else(malformed)?;
    let gtid: String = fields.next().unwrap_or_default().split_whitespace().collect();
    Ok(Position { file, offset, gtid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(family: &str) -> Vec<(String, Vec<u8>)> {
        vec![
            (
                format!("{family}checkpoints"),
                b"backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 13005798\n".to_vec(),
            ),
            (format!("{family}binlog_info"), b"binlog.000002\t339\t0-2-26\n".to_vec()),
            (
                format!("{family}info"),
                b"tool_name = mariadb-backup\ntool_version = 10.11.19-MariaDB\n".to_vec(),
            ),
        ]
    }

    #[test]
    fn both_families_of_names_are_read() {
        for family in FAMILIES {
            let metadata = Metadata::from_files(&files(family)).unwrap();
            let position =
                Position { file: "binlog.000002".to_owned(), offset: 339, gtid: "0-2-26".to_owned() };
            assert_eq!(metadata.position, Some(position));
            assert!(metadata.facts.contains(&("innodb_to_lsn".to_owned(), "13005798".to_owned())));
        }
    }

    #[test]
    fn a_stream_without_checkpoints_or_of_another_kind_is_refused() {
        let mut without = files("xtrabackup_");
        without.remove(0);
        assert!(Metadata::from_files(&without).is_err());
        let mut other = files("xtrabackup_");
        other[0].1 = b"backup_type = incremental\n".to_vec();
        assert!(Metadata::from_files(&other).is_err());
    }

    #[test]
    fn positions_without_gtid_are_positions_and_anything_else_is_an_error() {
        assert_eq!(parse_position("b.1\t4").unwrap().gtid, "");
        assert_eq!(parse_position("b.1\t4\t0-1-2,1-1-7\n").unwrap().gtid, "0-1-2,1-1-7");
        for text in ["", "b.1", "b.1\tx", "\t4"] {
            assert!(parse_position(text).is_err(), "{text:?}");
        }
    }
}
