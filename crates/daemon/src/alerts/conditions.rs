//! What is wrong now, under names that stay the same while it lasts; and which of it is news.

use crate::board::{Board, Level};
use holdfast_appliance::time::Micros;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes of a hundred that should be free where the repository is.
const FREE_PERCENT_MIN: u64 = 10;

/// Something that wants a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The server, or nothing for the repository.
    pub server: Option<String>,
    /// What it is, in one word that stays the same: `no_backup`, `stream_broken`, …
    pub code: String,
    /// How bad.
    pub level: Level,
    /// The sentence on the board.
    pub text: String,
}

impl Condition {
    /// What makes it the same one as before.
    fn key(&self) -> String {
        format!("{}/{}", self.server.as_deref().unwrap_or_default(), self.code)
    }

    pub(crate) fn level_word(&self) -> &'static str {
        match self.level {
            Level::Red => "red",
            Level::Amber | Level::Green => "amber",
        }
    }
}

/// An alert that was told and is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAlert {
    /// What is wrong.
    pub condition: Condition,
    /// Since when.
    pub since: Micros,
}

/// Everything that is wrong on this board.
pub(super) fn now_open(board: &Board) -> Vec<Condition> {
    let mut open: Vec<Condition> = board.servers.iter().flat_map(|s| s.conditions.iter().cloned()).collect();
    let repository = &board.repository;
    let mut of_repository = |code: &str, level: Level, text: String| {
        open.push(Condition { server: None, code: code.to_owned(), level, text });
    };
    if let Some(damage) = &repository.damage {
        of_repository(
            "repository_damaged",
            Level::Red,
            format!("the repository's manifest is damaged: {damage}"),
        );
    }
    if repository.clean == Some(false) {
        of_repository("check_failed", Level::Red, "the last whole check found damage".to_owned());
    }
    if repository.canary_clean == Some(false) {
        of_repository(
            "canary_failed",
            Level::Red,
            "the last check of one block of 32 found damage".to_owned(),
        );
    }
    if repository.total_bytes > 0
        && u128::from(repository.free_bytes) * 100
            < u128::from(repository.total_bytes) * u128::from(FREE_PERCENT_MIN)
    {
        of_repository(
            "space",
            Level::Amber,
            format!("less than {FREE_PERCENT_MIN} % is free where the repository is"),
        );
    }
    open
}

/// What is news.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// New alerts by key.
    pub(super) raised: BTreeMap<String, OpenAlert>,
    /// Keys of alerts that are over.
    pub(super) resolved: Vec<String>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.raised.is_empty() && self.resolved.is_empty()
    }
}

/// Since when each condition is there, and each told one is gone.
#[derive(Debug, Default)]
pub(super) struct Told {
    there: BTreeMap<String, Micros>,
    gone: BTreeMap<String, Micros>,
}

impl Told {
    /// What is news now: conditions that have lasted for `after`, and told ones that have been gone for as long.
    pub(super) fn change(
        &mut self,
        open: &[Condition],
        told: &BTreeMap<String, OpenAlert>,
        after: Micros,
        now: Micros,
    ) -> Change {
        let open: BTreeMap<String, &Condition> = open.iter().map(|c| (c.key(), c)).collect();
        self.there.retain(|key, _| open.contains_key(key));
        self.gone.retain(|key, _| told.contains_key(key) && !open.contains_key(key));
        let mut change = Change::default();
        for (key, condition) in &open {
            let since = *self.there.entry(key.clone()).or_insert(now);
            // One that grew worse is told again.
            let known = told.get(key).is_some_and(|t| t.condition.level == condition.level);
            if !known && now.saturating_sub(since) >= after {
                change.raised.insert(key.clone(), OpenAlert { condition: (*condition).clone(), since });
            }
        }
        for key in told.keys().filter(|key| !open.contains_key(*key)) {
            let since = *self.gone.entry(key.clone()).or_insert(now);
            if now.saturating_sub(since) >= after {
                change.resolved.push(key.clone());
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(level: Level) -> Condition {
        Condition { server: Some("shop".into()), code: "paused".into(), level, text: "it is paused".into() }
    }

    #[test]
    fn what_lasts_is_told_once_and_what_flickers_never() {
        let mut told = Told::default();
        let mut open = BTreeMap::new();
        assert!(told.change(&[paused(Level::Amber)], &open, 10, 0).is_empty(), "not yet");
        assert!(told.change(&[], &open, 10, 5).is_empty());
        assert!(told.change(&[paused(Level::Amber)], &open, 10, 6).is_empty());
        assert!(told.change(&[paused(Level::Amber)], &open, 10, 15).is_empty(), "it was gone at 5");
        let change = told.change(&[paused(Level::Amber)], &open, 10, 16);
        assert_eq!(change.raised["shop/paused"].since, 6);
        open.extend(change.raised);
        assert!(told.change(&[paused(Level::Amber)], &open, 10, 99).is_empty(), "told already");
        let worse = told.change(&[paused(Level::Red)], &open, 10, 100);
        assert_eq!(worse.raised.len(), 1, "it grew worse");
        assert!(told.change(&[], &open, 10, 101).is_empty());
        assert!(told.change(&[paused(Level::Amber)], &open, 10, 105).is_empty());
        assert!(told.change(&[], &open, 10, 106).is_empty());
        assert_eq!(told.change(&[], &open, 10, 116).resolved, ["shop/paused"]);
    }

    #[test]
    fn the_repository_has_conditions_of_its_own() {
        let mut board = Board::default();
        assert!(now_open(&board).is_empty());
        board.repository.damage = Some("torn".into());
        board.repository.clean = Some(false);
        board.repository.canary_clean = Some(false);
        (board.repository.free_bytes, board.repository.total_bytes) = (9, 100);
        let codes: Vec<String> = now_open(&board).into_iter().map(|c| c.code).collect();
        assert_eq!(codes, ["repository_damaged", "check_failed", "canary_failed", "space"]);
    }
}
