//! Fuzz targets: one function for each parser of bytes from outside or from disk.
//!
//! A target is given any bytes and must not panic. What decoded and has an encoder must decode
//! to the same again after it was encoded. `fuzz_targets/` gives these functions to libFuzzer,
//! `plain` runs them without it.
#![deny(missing_docs, unsafe_code, unused_must_use)]

pub mod binlog;
mod bounded;
pub mod format;
pub mod import;
pub mod mysql;
pub mod source;

/// The targets by name, as in `fuzz_targets/` and `seeds/`.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("binlog_events", binlog::events),
    ("binlog_pieces", binlog::pieces),
    ("gtid", binlog::gtid),
    ("xbstream", source::xbstream),
    ("innodb_page", source::innodb_page),
    ("clone_response", mysql::clone_response),
    ("clone_descriptor", mysql::clone_descriptor),
    ("mysql_packets", mysql::packets),
    ("mysql_login", mysql::login),
    ("mysql_results", mysql::results),
    ("option_file", mysql::option_file),
    ("login_path", mysql::login_path),
    ("sql_script", mysql::sql_script),
    ("sql_words", import::sql_words),
    ("segment", format::segment),
    ("map", format::map),
    ("manifest", format::manifest),
    ("record", format::record),
    ("keyring", format::keyring),
    ("session", format::session),
    ("log", format::log),
    ("txn_index", format::txn_index),
    ("parity", format::parity),
];
