//! What the private server is started with.

use holdfast_mysql::Flavor;

use crate::seam::Base;
use crate::tuning::memory_free;

/// What a server must be given to open the copy as the source did, from the source's own settings (`fact` looks one up).
/// Paths are not among them: everything lies in the one folder now.
pub fn source_settings<'f>(fact: impl Fn(&str) -> Option<&'f str>, flavor: Flavor) -> Vec<String> {
    let mut names = vec![
        "innodb_page_size",
        "innodb_data_file_path",
        "lower_case_table_names",
        "character_set_server",
        "collation_server",
        "sql_mode",
    ];
    match flavor {
        Flavor::MySql => names.extend(["gtid_mode", "enforce_gtid_consistency"]),
        Flavor::MariaDb => names.push("innodb_undo_tablespaces"),
    }
    let given = names.into_iter().filter_map(|name| fact(name).map(|value| (name, value)));
    given.map(|(name, value)| format!("--{}={value}", name.replace('_', "-"))).collect()
}

/// The settings of the private server.
pub(super) fn settings(base: &dyn Base, flavor: Flavor) -> Vec<String> {
    let mut args = source_settings(|name| base.fact(name), flavor);
    args.push(format!("--innodb-buffer-pool-size={}", buffer_pool(base.bytes())));
    // An identity of its own: two servers with one number must never meet in one topology.
    let mut id = [0_u8; 4];
    if getrandom::fill(&mut id).is_ok() {
        args.push(format!("--server-id={}", u32::from_le_bytes(id).max(1)));
    }
    args
}

/// As much as the data and a quarter more, but no more than a quarter of what is free.
fn buffer_pool(bytes: u64) -> u64 {
    const LEAST: u64 = 64 << 20;
    bytes.saturating_add(bytes / 4).min(memory_free() / 4).max(LEAST)
}
