//! The report of a restore: what was done, what was checked and how it ended, what was not checked.

use serde::Serialize;

use crate::plan::Plan;
use crate::queries::Answer;
use crate::seam::LaidOut;

/// How much is checked at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prove {
    /// Coordinates, all tables opened, sampled rows, definitions, accounts: no table is read as a whole.
    Quick,
    /// And row counts of the tables that the log changed, and CHECK TABLE of them within a budget.
    #[default]
    Standard,
    /// And row counts and CHECK TABLE of every table.
    Full,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// Not as it must be.
    Failed,
    /// Nothing was found wrong, and something was left out: `detail` says what.
    Partly,
    /// Not looked at, for the reason in `detail`.
    NotChecked,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked: `coordinates`, `blocks`, `tables-open`, `row-counts`, `sampled-rows`,
    /// `definitions`, `accounts`, `check-table`, `settings` (none of the replay's is left), `check-queries`.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was compared with what, in a sentence.
    pub detail: String,
    /// Each thing found wrong.
    pub failures: Vec<String>,
    /// Each thing that was not looked at, and why.
    pub not_checked: Vec<String>,
}

impl Check {
    /// Makes the verdict out of what was found.
    #[must_use]
    pub fn new(name: &'static str, detail: String, failures: Vec<String>, not_checked: Vec<String>) -> Self {
        let verdict = match (failures.is_empty(), not_checked.is_empty()) {
            (false, _) => Verdict::Failed,
            (true, false) => Verdict::Partly,
            (true, true) => Verdict::Ok,
        };
        Self { name, verdict, detail, failures, not_checked }
    }

    /// A check that was not made.
    #[must_use]
    pub fn left_out(name: &'static str, why: &str) -> Self {
        Self {
            name,
            verdict: Verdict::NotChecked,
            detail: why.to_owned(),
            failures: Vec::new(),
            not_checked: Vec::new(),
        }
    }
}

/// Seconds that each part took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Seconds {
    /// Files written and synced.
    pub lay_out: f64,
    /// From the first start to the first login: the server's own recovery.
    pub recover: f64,
    /// Replay.
    pub replay: f64,
    /// Clean shutdowns and the starts after them, the last one included.
    pub restart: f64,
    /// Proof.
    pub prove: f64,
    /// All of it.
    pub total: f64,
}

/// The report of a restore.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Name of the protected server.
    pub server: String,
    /// When it ended, RFC 3339.
    pub finished: String,
    /// True if every check that was made ended well.
    pub proved: bool,
    /// How much was asked to be checked.
    pub level: Prove,
    /// The plan.
    pub plan: Plan,
    /// The target folder.
    pub folder: String,
    /// The server program's version.
    pub engine: String,
    /// The restored server's own identity (MySQL), by which it is known when it is protected itself one day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// What was laid out: what was written, and what stood in the folder already.
    pub laid_out: LaidOut,
    /// Where the recovered base stood, as the server's own recovery reported it.
    pub recovered_at: String,
    /// Transactions of the log that an earlier run had applied, or found in the base, when this one went on.
    pub went_on_after: Option<u64>,
    /// Transactions of the log that were replayed, by this run or an earlier one.
    pub transactions_replayed: u64,
    /// Transactions of the range that the base held already.
    pub transactions_in_base: u64,
    /// Tables whose changes were replayed in the source's order, where others got their net
    /// change, and why; empty after a serial replay.
    pub replayed_in_order: Vec<String>,
    /// What whoever asked for the restore should know of its replay: statements that may have done something else than on
    /// the source, XA transactions that are left prepared. A sentence each.
    pub remarks: Vec<String>,
    /// Settings that the server had for the replay, and why: a sentence each. The restored server has none of them.
    pub replay_settings: Vec<String>,
    /// Rows that the source has and the restored server can't have, since the backup has none of them: a sentence a table.
    pub lacking: Vec<String>,
    /// Tables of the restored server.
    pub tables: u64,
    /// The checks.
    pub checks: Vec<Check>,
    /// What came of the user's own queries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queries: Vec<Answer>,
    /// How long it took.
    pub seconds: Seconds,
}

impl Report {
    /// Everything found wrong.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let all = self
            .checks
            .iter()
            .flat_map(|check| check.failures.iter().map(move |failure| format!("{}: {failure}", check.name)));
        all.collect()
    }
}
