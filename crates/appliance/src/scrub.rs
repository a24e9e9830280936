//! `scrub`: the repository read again in the background, healed from parity.

use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::progress::{Reading, Watcher};
use crate::time::Micros;
use holdfast_store::ScrubOptions;
use serde::Serialize;
use std::time::Duration;

/// What one run did.
#[derive(Clone, Debug, Serialize)]
pub struct ScrubView {
    /// Segments looked at in this run.
    pub segments: u64,
    /// Bytes read in this run.
    pub bytes: u64,
    /// Segments healed in this run.
    pub healed: Vec<String>,
    /// Copies of keyring, heads, records and packs that were written anew in this run.
    pub renewed: Vec<String>,
    /// Small objects that are damaged and could not be written anew, each with the reason.
    pub left: Vec<String>,
    /// Segments of this round with damage past healing.
    pub lost: Vec<String>,
    /// Whether every segment was looked at since the round began.
    pub round_over: bool,
    /// When the round began.
    #[serde(serialize_with = "crate::views::time")]
    pub round_began: Micros,
}

/// Scrubs from where the last run stopped, at this rate in bytes a second and for this time at most.
///
/// # Errors
/// When the repository can't be read or written.
pub fn scrub(
    catalogue: &Catalogue,
    rate: Option<u64>,
    time_max: Option<Duration>,
    watcher: &dyn Watcher,
) -> Result<ScrubView> {
    let options = ScrubOptions { bytes_per_second: rate, time_max };
    let done = catalogue.repository.scrub(options, &|at| {
        watcher.reading(Reading {
            phase: "scrub",
            done: at.bytes,
            total: Some(at.total),
            bytes: true,
            limit: None,
        });
        !watcher.cancelled()
    });
    let done = done.map_err(|e| catalogue.store_error(e))?;
    Ok(ScrubView {
        segments: done.segments,
        bytes: done.bytes,
        healed: done.healed.iter().map(|h| h.segment.to_string()).collect(),
        renewed: done.renewed,
        left: done.left.iter().map(|(name, why)| format!("{name}: {why}")).collect(),
        lost: done.lost.iter().map(ToString::to_string).collect(),
        round_over: done.round_over,
        round_began: done.round_us,
    })
}
