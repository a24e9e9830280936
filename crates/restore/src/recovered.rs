//! Does the recovered server stand where the backup says?
//!
//! This is the first piece of evidence: a position that the server's own recovery read out of the
//! recovered pages and redo, beside the coordinates that were noted when the copy was taken.

use holdfast_engine::RecoveredCoordinates;
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{Coordinates, Position};

use crate::error::{Error, Result};
use crate::plan::{coordinates_words, words};
use crate::report::Check;

/// Where the base stands.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its GTIDs, if the source has them: transactions in it are not replayed.
    pub executed: Option<GtidSet>,
    /// The exact position; none for a base that stands in no log.
    pub exact: Option<Position>,
    /// The check, for the report.
    pub check: Check,
}

impl Held {
    /// The position in words.
    #[must_use]
    pub fn words(&self) -> String {
        self.exact.as_ref().map_or_else(|| "no place in a log".to_owned(), words)
    }
}

/// Compares what the server's recovery found with what the backup's record says. `end` is where the server's log ended when
/// the copy was made, as [`holdfast_format::record::LOG_END`] has it.
pub fn check(
    noted: &Coordinates,
    found: &RecoveredCoordinates,
    flavor: Flavor,
    end: Option<&str>,
) -> Result<Held> {
    let gtids = match &found.gtids {
        Some(text) => GtidSet::parse(flavor, text)?,
        None => GtidSet::empty(flavor),
    };
    let recovered = match (&found.file, found.position) {
        (Some(file), Some(offset)) => Some(Position { file: file.clone(), offset, gtid: gtids.clone() }),
        _ => None,
    };
    let wrong = || Error::WrongCoordinates {
        recovered: recovered.as_ref().map_or_else(|| gtids.to_string(), words),
        expected: coordinates_words(noted),
    };
    match noted {
        Coordinates::None => {
            let check = Check::left_out("coordinates", "the backup stands in no log");
            Ok(Held { executed: None, exact: None, check })
        }
        Coordinates::Exact(at) => {
            let end = end.and_then(|end| place(end, &at.file));
            exact(at, recovered.as_ref(), end).ok_or_else(wrong)
        }
        Coordinates::Between { lo, hi } => between(lo, hi, recovered.as_ref(), &gtids).ok_or_else(wrong),
    }
}

/// The same for the copy of a replica, which stands in its source's log by its GTIDs: the file that it recovers is the
/// replica's own, and no place in that log.
pub fn check_of_replica(noted: &Coordinates, found: &RecoveredCoordinates, flavor: Flavor) -> Result<Held> {
    let gtid = GtidSet::parse(flavor, found.gtids.as_deref().unwrap_or_default())?;
    let fits = match noted {
        Coordinates::None => false,
        Coordinates::Exact(at) => at.gtid == gtid,
        Coordinates::Between { lo, hi } => lo.gtid.is_subset(&gtid) && gtid.is_subset(&hi.gtid),
    };
    if !fits {
        let (recovered, expected) = (gtid.to_string(), coordinates_words(noted));
        return Err(Error::WrongCoordinates { recovered, expected });
    }
    let detail = format!(
        "the server's own recovery reports {gtid}, and the backup, a replica's copy, says {}",
        coordinates_words(noted)
    );
    let check = Check::new("coordinates", detail, Vec::new(), Vec::new());
    let exact = Position { file: String::new(), offset: 0, gtid: gtid.clone() };
    Ok(Held { executed: Some(gtid), exact: Some(exact), check })
}

/// The copy's tool noted an exact position while commits were held off. Recovery knows the last
/// InnoDB transaction only, so what it reports may lie before, never behind. MariaDB's recovery goes through all that its
/// rollback segments name and takes the place in the file with the highest number: behind a RESET MASTER it is one of
/// the log before, which the log of the copy had not come to.
fn exact(at: &Position, recovered: Option<&Position>, end: Option<(u64, u64)>) -> Option<Held> {
    let executed = Some(at.gtid.clone()).filter(|gtids| !gtids.is_empty());
    let Some(recovered) = recovered else {
        let why = vec!["the server's recovery reported no position".to_owned()];
        let detail = format!("the backup stands at {}", words(at));
        let check = Check::new("coordinates", detail, Vec::new(), why);
        return Some(Held { executed, exact: Some(at.clone()), check });
    };
    if order(recovered) > order(at) {
        // An end before the copy's own place is of another log: of another server, or reset since.
        if end.filter(|end| order(at) <= *end).is_none_or(|end| order(recovered) <= end) {
            return None;
        }
        let why = format!(
            "the server's own recovery reports {}:{}, where its log had not come to when the copy was made: it is of a log from \
             before RESET MASTER",
            recovered.file, recovered.offset
        );
        let detail = format!("the backup stands at {}", words(at));
        let check = Check::new("coordinates", detail, Vec::new(), vec![why]);
        return Some(Held { executed, exact: Some(at.clone()), check });
    }
    let detail = format!(
        "the server's own recovery reports {}:{} for its last InnoDB transaction, and the backup stands at {}",
        recovered.file,
        recovered.offset,
        words(at)
    );
    let check = Check::new("coordinates", detail, Vec::new(), Vec::new());
    Some(Held { executed, exact: Some(at.clone()), check })
}

fn between(lo: &Position, hi: &Position, recovered: Option<&Position>, gtids: &GtidSet) -> Option<Held> {
    let by_gtid = !(lo.gtid.is_empty() && hi.gtid.is_empty());
    if by_gtid && !(lo.gtid.is_subset(gtids) && gtids.is_subset(&hi.gtid)) {
        return None;
    }
    if let Some(found) = recovered.filter(|_| !lo.file.is_empty() && !hi.file.is_empty())
        && !(order(lo) <= order(found) && order(found) <= order(hi))
    {
        return None;
    }
    if !by_gtid && recovered.is_none() {
        return None;
    }
    let exact = recovered.cloned().unwrap_or_else(|| Position { gtid: gtids.clone(), ..lo.clone() });
    let detail = format!(
        "the server's own recovery reports {}, which lies between the backup's bounds {} and {}",
        words(&exact),
        words(lo),
        words(hi)
    );
    let check = Check::new("coordinates", detail, Vec::new(), Vec::new());
    Some(Held { executed: by_gtid.then(|| gtids.clone()), exact: recovered.cloned(), check })
}

/// Files of one log are numbered: a longer number is a later one.
pub(crate) fn order(position: &Position) -> (u64, u64) {
    (number(&position.file).unwrap_or(0), position.offset)
}

fn number(file: &str) -> Option<u64> {
    file.rsplit('.').next().and_then(|digits| digits.parse().ok())
}

/// The place in a fact [`holdfast_format::record::LOG_END`], if it is of the log that `file` belongs to.
fn place(text: &str, file: &str) -> Option<(u64, u64)> {
    let (last, offset) = text.rsplit_once(':')?;
    let same = last.rsplit_once('.')?.0 == file.rsplit_once('.')?.0;
    Some((number(last).filter(|_| same)?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn at(file: &str, offset: u64, gtid: &str) -> Position {
        let gtid = if gtid.is_empty() {
            GtidSet::empty(Flavor::MySql)
        } else {
            GtidSet::parse(Flavor::MySql, &format!("{UUID}:{gtid}")).unwrap()
        };
        Position { file: file.to_owned(), offset, gtid }
    }

    fn found(file: &str, offset: u64, gtid: &str) -> RecoveredCoordinates {
        RecoveredCoordinates {
            file: Some(file.to_owned()).filter(|f| !f.is_empty()),
            position: Some(offset).filter(|_| !file.is_empty()),
            gtids: Some(format!("{UUID}:{gtid}")).filter(|_| !gtid.is_empty()),
        }
    }

    fn bracket() -> Coordinates {
        Coordinates::Between { lo: at("b.000009", 400, "1-100"), hi: at("b.000010", 300, "1-150") }
    }

    #[test]
    fn a_position_within_the_bracket_is_taken_and_known_exactly_from_then_on() {
        let held = check(&bracket(), &found("b.000010", 200, "1-140"), Flavor::MySql, None).unwrap();
        assert_eq!(held.exact, Some(at("b.000010", 200, "1-140")));
        assert_eq!(held.executed.unwrap().to_string(), format!("{UUID}:1-140"));
    }

    #[test]
    fn a_position_outside_the_bracket_is_an_error_with_exit_status_22() {
        for (file, offset, gtid) in [
            ("b.000010", 200, "1-99"),
            ("b.000010", 200, "1-151"),
            ("b.000010", 301, "1-140"),
            ("b.000009", 399, "1-140"),
            ("b.000011", 4, "1-140"),
        ] {
            let error = check(&bracket(), &found(file, offset, gtid), Flavor::MySql, None).unwrap_err();
            assert_eq!(error.exit_code(), Some(22), "{file}:{offset} {gtid}");
        }
    }

    #[test]
    fn an_exact_position_may_lie_behind_the_last_innodb_transaction_but_not_before_it() {
        let noted = Coordinates::Exact(at("b.000002", 500, ""));
        for (file, offset, ok) in [("b.000002", 500, true), ("b.000001", 900, true), ("b.000002", 501, false)]
        {
            assert_eq!(
                check(&noted, &found(file, offset, ""), Flavor::MySql, None).is_ok(),
                ok,
                "{file}:{offset}"
            );
        }
        let held = check(&noted, &RecoveredCoordinates::default(), Flavor::MySql, None).unwrap();
        assert_eq!(held.check.not_checked.len(), 1);
    }

    #[test]
    fn what_recovery_reports_from_before_a_reset_of_the_log_is_no_evidence_and_no_contradiction() {
        let noted = Coordinates::Exact(at("b.000002", 500, ""));
        let check = |file, offset, end| check(&noted, &found(file, offset, ""), Flavor::MariaDb, end);
        // Between the place of the copy and the end of the log: the copy holds more than it says.
        assert!(check("b.000002", 501, Some("b.000002:900")).is_err());
        assert!(check("b.000002", 900, Some("b.000002:900")).is_err());
        for (file, offset) in [("b.000002", 901), ("b.000007", 4)] {
            let held = check(file, offset, Some("b.000002:900")).unwrap();
            assert_eq!((held.exact, held.check.not_checked.len()), (Some(at("b.000002", 500, "")), 1));
            for unknown in
                [None, Some("nothing"), Some("c.000002:900"), Some("b.000001:900"), Some("b.000002:499")]
            {
                assert!(check(file, offset, unknown).is_err(), "{unknown:?}");
            }
        }
    }

    #[test]
    fn a_replicas_copy_stands_by_gtids_and_its_own_file_counts_for_nothing() {
        let noted = Coordinates::Between { lo: at("", 0, "1-100"), hi: at("", 0, "1-150") };
        let held = |noted: &Coordinates, gtid| {
            check_of_replica(noted, &found("replica.000001", 99, gtid), Flavor::MySql)
        };
        assert_eq!(held(&noted, "1-140").unwrap().exact, Some(at("", 0, "1-140")));
        let learned = Coordinates::Exact(at("", 0, "1-140"));
        for (noted, gtid, ok) in [
            (&learned, "1-140", true),
            (&learned, "1-139", false),
            (&learned, "1-141", false),
            (&noted, "1-99", false),
            (&noted, "1-151", false),
            (&noted, "", false),
            (&Coordinates::None, "1-140", false),
        ] {
            assert_eq!(held(noted, gtid).is_ok(), ok, "{gtid}");
        }
    }

    #[test]
    fn without_gtids_a_bracket_needs_a_recovered_position() {
        let noted = Coordinates::Between { lo: at("b.000002", 4, ""), hi: at("b.000002", 500, "") };
        assert!(check(&noted, &RecoveredCoordinates::default(), Flavor::MySql, None).is_err());
        let held = check(&noted, &found("b.000002", 250, ""), Flavor::MySql, None).unwrap();
        assert_eq!((held.executed, held.exact), (None, Some(at("b.000002", 250, ""))));
    }
}
