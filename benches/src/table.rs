//! One table out of a server: its restore beside the whole server's, of the same backup and the same log, to the same moment.
//!
//! `source` fills a server with equal tables, protects it, and changes rows of each. The program `holdfast-bench-table`
//! restores in turns and writes the section; `tools/bench table` runs it.

pub mod source;

/// What is asked: a table restored in this share of the whole server's time.
pub const ASKED: f64 = 1.0 / 5.0;

/// Tables of the server: one of them is a twentieth.
pub const TABLES: u32 = 20;

/// MiB of one table at 100 %.
pub const TABLE_MIB: u32 = 1024;
