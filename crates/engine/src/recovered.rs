//! Where a copied server stands, as its own recovery found out.
//!
//! InnoDB keeps the position in the binary log of the last transaction it committed in its own
//! pages and redo log, so that the position after recovery belongs to the recovered data, whatever
//! we believe about the copy. MySQL's recovery of a clone writes it to `#clone/#status_recovery`
//! (research: lines begin time, end time, file, position, GTID set; as observed on 9.7.4).
//! MariaDB's recovery prints it: `InnoDB: Last binlog file 'F', position N`.

use std::path::Path;

use crate::error::{Error, Result};

/// A position that a server's own recovery reported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveredCoordinates {
    /// File of the source's binary log, without a folder.
    pub file: Option<String>,
    /// Position in it after the last transaction that the recovered data holds.
    pub position: Option<u64>,
    /// GTIDs of the recovered data, in the server's own words; `None` where it keeps none.
    pub gtids: Option<String>,
}

/// Size of a status file that we read: two numbers, a file name, a position and a GTID set.
const STATUS_MAX: u64 = 16 << 20;

/// Path of the recovery status within a datadir that was laid out as a clone.
pub const CLONE_STATUS: &str = "#clone/#status_recovery";

/// Reads what MySQL's recovery wrote into a datadir laid out as a clone; `None` if it wrote nothing,
/// as on a folder that is no clone. An error if it says that recovery failed.
pub fn from_clone_status(datadir: &Path) -> Result<Option<RecoveredCoordinates>> {
    let path = datadir.join(CLONE_STATUS);
    let len = match std::fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::file("read", path, source)),
    };
    if len > STATUS_MAX {
        return Err(unreadable(&path, "at most 16 MiB", format!("{len} bytes")));
    }
    let text = std::fs::read_to_string(&path).map_err(|source| Error::file("read", &path, source))?;
    parse_clone_status(&path, &text).map(Some)
}

fn parse_clone_status(path: &Path, text: &str) -> Result<RecoveredCoordinates> {
    let mut lines = text.lines();
    let time = |line: Option<&str>, expected| {
        let line = line.unwrap_or_default();
        line.trim().parse::<u64>().map_err(|_| unreadable(path, expected, format!("'{line}'")))
    };
    time(lines.next(), "the time at which recovery began")?;
    if time(lines.next(), "the time at which recovery ended")? == 0 {
        return Err(unreadable(path, "the time at which recovery ended", "0: recovery failed".to_owned()));
    }
    let rest: Vec<&str> = lines.collect();
    // Without a binary log on the source, file and position are missing and the GTID set moves up.
    let (file, position, gtids) = match rest.split_first_chunk::<2>() {
        Some(([file, position], gtids)) if position.trim().parse::<u64>().is_ok() => {
            (base_name(file), position.trim().parse::<u64>().ok(), gtids)
        }
        _ => (None, None, rest.as_slice()),
    };
    let gtids: String = gtids.concat().split_whitespace().collect();
    Ok(RecoveredCoordinates {
        position: position.filter(|_| file.is_some()),
        file,
        gtids: Some(gtids).filter(|text| !text.is_empty()),
    })
}

/// Finds what MariaDB's recovery printed, in the text of its log; the last such line counts.
#[must_use]
pub fn from_mariadb_log(log: &str) -> Option<RecoveredCoordinates> {
    log.lines().rev().find_map(|line| {
        let (_, said) = line.split_once("Last binlog file '")?;
        let (file, said) = said.split_once("', position ")?;
        let digits: String = said.chars().take_while(char::is_ascii_digit).collect();
        Some(RecoveredCoordinates {
            file: Some(base_name(file)?),
            position: Some(digits.parse().ok()?),
            gtids: None,
        })
    })
}

fn base_name(path: &str) -> Option<String> {
    path.trim().rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn unreadable(path: &Path, expected: &'static str, got: String) -> Error {
    Error::Unreadable { place: path.display().to_string(), expected, got }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RecoveredCoordinates> {
        parse_clone_status(Path::new("s"), text)
    }

    #[test]
    fn a_clones_recovery_gives_file_position_and_gtids() {
        let got = parse("17000\n17001\n./binlog.000003\n10188103\n3e11fa47-71ca:1-151,\n4f:1-3\n").unwrap();
        assert_eq!(got.file.as_deref(), Some("binlog.000003"));
        assert_eq!(got.position, Some(10_188_103));
        assert_eq!(got.gtids.as_deref(), Some("3e11fa47-71ca:1-151,4f:1-3"));
    }

    #[test]
    fn a_source_without_a_binary_log_gives_gtids_alone_or_nothing() {
        let got = parse("17000\n17001\n3e11fa47:1-151\n").unwrap();
        assert_eq!((got.file, got.position, got.gtids.as_deref()), (None, None, Some("3e11fa47:1-151")));
        assert_eq!(parse("17000\n17001\n").unwrap(), RecoveredCoordinates::default());
        // As observed: an empty file name and position 0.
        assert_eq!(parse("17000\n17001\n\n0\n").unwrap(), RecoveredCoordinates::default());
    }

    #[test]
    fn a_recovery_that_failed_or_never_ended_is_an_error() {
        assert!(parse("17000\n0\n").unwrap_err().to_string().contains("recovery failed"));
        assert!(parse("17000\n").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn mariadbs_log_line_is_found_and_the_last_one_counts() {
        let log = "2026-11-21 6:41 0 [Note] InnoDB: Last binlog file './binlog.000001', position 328\n\
                   2026-11-21 6:42 0 [Note] InnoDB: Last binlog file '/var/log/mysql/binlog.000007', position 1949467\n\
                   2026-11-21 6:42 0 [Note] ready\n";
        let got = from_mariadb_log(log).unwrap();
        assert_eq!((got.file.as_deref(), got.position), (Some("binlog.000007"), Some(1_949_467)));
        assert_eq!(from_mariadb_log("nothing of the kind"), None);
    }
}
