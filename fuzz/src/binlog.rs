//! The binlog: events and what is in them, GTIDs in every form.

use holdfast_binlog::json::Json;
use holdfast_binlog::query::StatusVars;
use holdfast_binlog::statement::Statement;
use holdfast_binlog::{Checksum, FormatDescription};
use holdfast_format::gtid::{Flavor, Gtid, GtidSet, MySqlGtidSet};

#[path = "../../crates/binlog/tests/common/mod.rs"]
#[allow(missing_docs, reason = "a test's module, shared")]
mod common;

/// Runs of events: the walker, all bodies, table maps, rows, payloads, transactions. The first byte chooses server and
/// checksum, the rest is a log without magic.
pub fn events(data: &[u8]) {
    let Some((family, rest)) = data.split_first() else { return };
    let version = if family & 1 == 0 { "9.7.4" } else { "10.11.19-MariaDB" };
    let format = FormatDescription {
        server_version: version.to_owned(),
        created: 0,
        post_header_lengths: Vec::new(),
        checksum: if family & 2 == 0 { Checksum::Off } else { Checksum::Crc32 },
    };
    common::read_everything(rest, &format);
}

/// Status variables, statements and JSON; the first byte chooses.
pub fn pieces(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => drop(StatusVars::parse(rest, false)),
        1 => drop(StatusVars::parse(rest, true)),
        2 => drop(Statement::classify(rest, u64::from(*choice))),
        _ => drop(Json::parse(rest).map(|json| json.text())),
    }
}

/// GTIDs and sets of them: our bytes, the server's bytes, text; the first byte chooses.
pub fn gtid(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => {
            if let Ok((gtid, _)) = Gtid::decode(rest) {
                let mut again = Vec::new();
                gtid.encode(&mut again);
                assert_eq!(Gtid::decode(&again), Ok((gtid, again.len())));
            }
        }
        1 => {
            if let Ok((set, len)) = GtidSet::decode(rest) {
                let mut again = Vec::new();
                set.encode(&mut again);
                assert_eq!(Some(again.as_slice()), rest.get(..len));
            }
        }
        2 => {
            if let Ok(set) = MySqlGtidSet::from_server_bytes(rest) {
                assert_eq!(MySqlGtidSet::from_server_bytes(&set.to_server_bytes()), Ok(set));
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(rest) else { return };
            for flavor in [Flavor::MySql, Flavor::MariaDb] {
                if let Ok(set) = GtidSet::parse(flavor, text) {
                    assert_eq!(GtidSet::parse(flavor, &set.to_string()), Ok(set));
                }
            }
        }
    }
}
