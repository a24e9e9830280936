//! Benchmarks: Holdfast beside what people use today, and its inner loops alone.
//!
//! `rows` makes InnoDB-like table files from a seed, `log` a binlog, for the criterion benches in
//! `benches/`.
//! `rig` makes real data sets with MySQL and sysbench, runs each tool through the same work,
//! and writes the table of ratios; the program `holdfast-bench` drives it, and `tools/bench`
//! sets everything up and calls that. Start reading at `rig/scenario.rs`.
//! `replay` makes several loads and replays the log of each, Holdfast beside the servers' own ways; `tools/bench replay` runs it.
//! `table` restores one table beside the whole server it is of; `tools/bench table` runs it.
//! `generations` ages one folder over many backups; `tools/bench generations` runs it. `section` is how these write their part of RESULTS.md.

pub mod generations;
pub mod log;
pub mod replay;
pub mod rig;
pub mod rows;
pub mod section;
pub mod table;
