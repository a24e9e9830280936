//! How much there is to rely on, as one figure with the parts that make it: docs/trust.md has the formula.

use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::measured::{EstimateView, Measured, measured, to_the_end};
use crate::policy::Policy;
use crate::server::has_log;
use crate::status;
use crate::time::{Micros, now, show_time};
use crate::views::StatusView;
use holdfast_format::record::ServerRecord;
use serde::Serialize;

/// Drills whose verdicts count.
const DRILLS_COUNTED: usize = 10;
/// What a part is worth is lost between its span and this many of it.
const SPANS: f64 = 4.0;
/// Each hole of the window takes this share of the part besides the time that it takes.
const HOLE: f64 = 0.1;
/// A log whose end is older than this does not come in, whoever holds it: 10 minutes.
const END_AGE_MAX: Micros = 600_000_000;
/// The figure is no larger while the last drill is not proved, or the last check has found damage.
const FIGURE_MAX_DOUBTED: f64 = 40.0;
/// The whole repository is read so often, where no configuration says how often: 30 days.
const CHECK_EVERY: Micros = 30 * 86_400_000_000;

/// What somebody relies on, and by how much.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrustView {
    /// 0: nothing is known to work; 100: everything was shown to, lately.
    pub figure: u8,
    /// What it is the sum of.
    pub parts: Vec<PartView>,
    /// Why it is less than that sum, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limited: Option<String>,
}

/// One part of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartView {
    /// `drill_age`, `drills_passed`, `coverage`, `log`, `base_age`, `check`.
    pub name: &'static str,
    /// What there is of it.
    pub points: f64,
    /// What there could be.
    pub of: f64,
    /// Why, in words.
    pub says: String,
}

/// What is promised: ages up to these cost nothing. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Any moment of it is restorable; 0: of all time.
    pub window: Micros,
    /// So often a drill.
    pub drill: Micros,
    /// So often a base.
    pub base: Micros,
    /// So often everything is read.
    pub check: Micros,
}

impl Terms {
    /// Those of a policy. One without drills or checks is measured by the usual spans: what nobody does is not shown to work.
    #[must_use]
    pub fn of(policy: &Policy, check: Micros) -> Self {
        let or = |span: Micros, usual: Micros| if span > 0 { span } else { usual };
        Self {
            window: policy.window.0,
            drill: or(policy.drill.0, Policy::default().drill.0),
            base: policy.max_age.0,
            check: or(check, CHECK_EVERY),
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::of(&Policy::default(), CHECK_EVERY)
    }
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The time.
    pub now: Micros,
    /// Whether the server has a log.
    pub has_log: bool,
    /// What can be restored.
    pub status: &'a StatusView,
    /// Restores and drills, newest first.
    pub reports: &'a [Measured],
    /// When drills broke off without a report; `None`: nobody here would know of one.
    pub broken_off: Option<&'a [Micros]>,
    /// When the server's first backup ever was acknowledged, or else when the server was added.
    pub begun: Micros,
    /// Whether the log comes in now; `None`: nobody here knows but whether somebody holds it.
    pub follows: Option<bool>,
    /// When everything was read last, and whether it was whole.
    pub checked: Option<(Micros, bool)>,
}

impl Facts<'_> {
    /// The last drills with a verdict or without one, newest first: when, whether proved, and whether one has a report.
    fn drills(&self) -> Vec<(Micros, bool, bool)> {
        let told = self.reports.iter().filter(|m| m.drill).map(|m| (m.at, m.proved, true));
        let broken = self.broken_off.unwrap_or_default().iter().map(|at| (*at, false, false));
        let mut all: Vec<_> = told.chain(broken).collect();
        all.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        all.truncate(DRILLS_COUNTED);
        all
    }

    /// Does the log come in now?
    fn is_followed(&self) -> bool {
        self.follows.unwrap_or_else(|| {
            // Somebody holds it. Whether he reaches the source, the end of what he has written says.
            let end = self.status.spans.last().map(|span| span.until);
            self.status.archive_running
                && end.is_none_or(|until| self.now.saturating_sub(until) <= END_AGE_MAX)
        })
    }
}

/// The figure.
#[must_use]
pub fn trust(facts: &Facts<'_>, terms: &Terms) -> TrustView {
    let drills = facts.drills();
    let last_proved = facts.reports.iter().find(|m| m.drill && m.proved).map(|m| m.at);
    let last_drill = (last_proved, "the last proved drill", "no drill was proved yet");
    let last_base = (
        facts.status.last_backup.as_ref().map(|last| last.started),
        "the newest backup",
        "there is no backup",
    );
    let mut parts =
        vec![aged("drill_age", 25.0, last_drill, (facts.now, terms.drill)), drills_passed(facts, &drills)];
    if facts.has_log {
        parts.extend([coverage(facts, terms), log(facts)]);
    }
    parts.extend([aged("base_age", 10.0, last_base, (facts.now, terms.base)), check(facts, terms)]);
    let sum = |of: fn(&PartView) -> f64| parts.iter().map(of).sum::<f64>();
    // A folder has no log: its other parts are the whole of it.
    let figure = 100.0 * sum(|part| part.points) / sum(|part| part.of).max(1.0);
    let doubted = match (drills.first(), facts.checked) {
        _ if facts.status.last_backup.is_none() => Some((0.0, "there is no backup")),
        (Some((_, false, true)), _) => Some((FIGURE_MAX_DOUBTED, "the last drill was not proved")),
        (Some((_, false, false)), _) => Some((FIGURE_MAX_DOUBTED, "the last drill broke off")),
        (_, Some((_, false))) => Some((FIGURE_MAX_DOUBTED, "the last check found damage")),
        _ => None,
    };
    let (figure, limited) = match doubted {
        Some((most, why)) if most < figure => (most, Some(format!("at most {most}, since {why}"))),
        _ => (figure, None),
    };
    // Never more than there is, but for what sums of tenths lack in binary.
    TrustView { figure: (figure + 1e-6).clamp(0.0, 100.0).floor() as u8, parts, limited }
}

/// 1 up to the span, then less and less, and nothing from four spans on.
fn fresh(age: Micros, span: Micros) -> f64 {
    let spans = age.max(0) as f64 / span.max(1) as f64;
    ((SPANS - spans) / (SPANS - 1.0)).clamp(0.0, 1.0)
}

fn part(name: &'static str, of: f64, share: f64, says: String) -> PartView {
    // Whole tenths: nobody can tell more.
    PartView { name, points: (of * share.clamp(0.0, 1.0) * 10.0).round() / 10.0, of, says }
}

/// An age in words: `3.2 days`.
fn age_words(age: Micros) -> String {
    let seconds = age.max(0) as f64 / 1e6;
    match seconds {
        s if s >= 86_400.0 => format!("{:.1} days", s / 86_400.0),
        s if s >= 3600.0 => format!("{:.1} hours", s / 3600.0),
        s => format!("{:.0} minutes", (s / 60.0).floor()),
    }
}

/// A part by the age of the last of something: when that was, what it is called, and what is said where there is none.
fn aged(
    name: &'static str,
    of: f64,
    (last, what, none): (Option<Micros>, &str, &str),
    (now, span): (Micros, Micros),
) -> PartView {
    let Some(at) = last else { return part(name, of, 0.0, none.to_owned()) };
    let age = now.saturating_sub(at);
    let says = format!("{what} is {} old; one is due every {}", age_words(age), age_words(span));
    part(name, of, fresh(age, span), says)
}

fn drills_passed(facts: &Facts<'_>, drills: &[(Micros, bool, bool)]) -> PartView {
    let passed = drills.iter().filter(|(_, proved, _)| *proved).count();
    let broken = drills.iter().filter(|(.., told)| !told).count();
    let more = match (facts.broken_off, broken) {
        (None, _) => ", as far as they came to a verdict".to_owned(),
        (_, 0) => String::new(),
        (_, broken) => format!(", and {broken} broke off"),
    };
    let (share, says) = match drills.len() {
        0 => (0.0, "there was no drill yet".to_owned()),
        all => (passed as f64 / all as f64, format!("{passed} of the last {all} drills were proved{more}")),
    };
    part("drills_passed", 20.0, share, says)
}

/// Of the window: from its begin, or the first backup ever of a younger server, up to now, how much can be restored to.
fn coverage(facts: &Facts<'_>, terms: &Terms) -> PartView {
    let (status, now) = (facts.status, facts.now);
    let begin = if terms.window == 0 { i64::MIN } else { now.saturating_sub(terms.window) };
    // Not from the first moment that can be restored: what was lost before it is missing, too.
    let from = begin.max(facts.begun);
    if status.spans.is_empty() || from >= now {
        return part("coverage", 20.0, 0.0, "no stretch of the log can be restored to".to_owned());
    }
    let followed = facts.is_followed();
    // While it is followed there is nothing behind its end that could be missing.
    let last = status.spans.len().saturating_sub(1);
    let until = |at: usize, until: Micros| if at == last && followed { now } else { until.min(now) };
    let covered: Micros = status
        .spans
        .iter()
        .enumerate()
        .map(|(at, span)| until(at, span.until).saturating_sub(span.from.max(from)).max(0))
        .sum();
    let share = covered as f64 / now.saturating_sub(from).max(1) as f64;
    let holes = status.gaps.iter().filter(|gap| gap.noticed.is_none_or(|at| at >= from)).count();
    // Cut, so that what is not all is never called 100 %.
    let percent = (share * 1000.0).floor() / 10.0;
    let says = format!(
        "{percent:.1} % of the time since {} can be restored to, with {holes} hole(s)",
        show_time(from)
    );
    part("coverage", 20.0, share - HOLE * holes as f64, says)
}

fn log(facts: &Facts<'_>) -> PartView {
    let (share, says) = match (facts.is_followed(), facts.status.archive_running, facts.status.log_until) {
        (true, ..) => (1.0, "the log is followed now".to_owned()),
        (_, true, Some(until)) => (0.0, format!("the log does not come in; it ends at {}", show_time(until))),
        (_, true, None) => (0.0, "the log does not come in".to_owned()),
        (_, false, Some(until)) => (0.0, format!("nobody follows the log; it ends at {}", show_time(until))),
        (_, false, None) => (0.0, "nobody follows the log".to_owned()),
    };
    part("log", 10.0, share, says)
}

fn check(facts: &Facts<'_>, terms: &Terms) -> PartView {
    let (share, says) = match facts.checked {
        Some((at, true)) => {
            let age = facts.now.saturating_sub(at);
            (
                fresh(age, terms.check),
                format!(
                    "everything was read and found whole {} ago; it is due every {}",
                    age_words(age),
                    age_words(terms.check)
                ),
            )
        }
        Some((at, false)) => (0.0, format!("the check of {} found damage", show_time(at))),
        None => (0.0, "everything was not read once yet: holdfast scrub".to_owned()),
    };
    part("check", 15.0, share, says)
}

/// A server with its figure.
#[derive(Clone, Debug, Serialize)]
pub struct TrustedView {
    /// What can be restored of it.
    #[serde(flatten)]
    pub status: StatusView,
    /// How much there is to rely on.
    pub trust: TrustView,
    /// How long a restore to the last moment would take; no restore was proved yet: `null`.
    pub estimate: Option<EstimateView>,
}

/// Since when the server is protected: the end of its first backup ever, or else when it was added.
#[must_use]
pub fn begun(catalogue: &Catalogue, server: &ServerRecord) -> Micros {
    catalogue.known(|known| known.of(server.id).and_then(|of| of.first)).unwrap_or(server.added_us)
}

/// One server, or all of them, by the default policy: without a daemon nobody knows another one.
///
/// # Errors
/// `Usage` when there is no server of that name; when the repository can't be read.
pub fn status(catalogue: &Catalogue, name: Option<&str>) -> Result<Vec<TrustedView>> {
    let servers = match name {
        Some(name) => vec![catalogue.server(name)?],
        None => catalogue.servers(),
    };
    let checked = catalogue.known(|known| known.scrubbed());
    let view = |server: &ServerRecord| {
        let (status, reports) = (status::status_of(catalogue, &server.name)?, measured(catalogue, server));
        let facts = Facts {
            now: now(),
            has_log: has_log(server),
            status: &status,
            reports: &reports,
            broken_off: None,
            begun: begun(catalogue, server),
            follows: None,
            checked,
        };
        let trust = trust(&facts, &Terms::default());
        let (estimate, _) = to_the_end(&reports, &status);
        Ok(TrustedView { status, trust, estimate })
    };
    servers.iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::{BackupView, GapView, SpanView};

    const DAY: Micros = 86_400_000_000;
    const NOW: Micros = 20_000 * DAY;

    fn drill(days_ago: i64, proved: bool) -> Measured {
        let json = serde_json::json!({
            "plan": {"target": "t", "base": "b", "bytes": 7}, "proved": proved,
            "seconds": {"lay_out": 1.0, "replay": 1.0, "recover": 1.0, "restart": 1.0, "prove": 1.0, "total": 5.0},
        });
        crate::measured::read(&json, NOW - days_ago * DAY, crate::drill::KIND).unwrap()
    }

    /// Backed up half a day ago, followed without a hole for ten days.
    fn good() -> StatusView {
        let mut status = StatusView::unknown("shop", "");
        status.archive_running = true;
        status.spans = vec![span(10.0, 0.0)];
        status.last_backup = Some(BackupView {
            id: String::new(),
            server: String::new(),
            source: String::new(),
            started: NOW - DAY / 2,
            completed: NOW - DAY / 2,
            data_bytes: 1,
            stored_bytes: 1,
            position: None,
            exact: true,
            note: String::new(),
            warnings: Vec::new(),
            proof: None,
            copied_from: None,
            not_from_replica: None,
            held: false,
            keep_until: None,
            name: None,
        });
        status
    }

    fn span(from_days: f64, until_days: f64) -> SpanView {
        let at = |days: f64| NOW - (days * DAY as f64) as i64;
        SpanView {
            from: at(from_days),
            until: at(until_days),
            from_position: String::new(),
            until_position: String::new(),
            transactions: 1,
        }
    }

    fn of(status: &StatusView, reports: &[Measured], checked: Option<(i64, bool)>) -> TrustView {
        let checked = checked.map(|(days, clean)| (NOW - days * DAY, clean));
        trust(&Facts { checked, ..facts(status, reports) }, &Terms::default())
    }

    /// Ten days old, with a daemon in which no drill broke off.
    fn facts<'a>(status: &'a StatusView, reports: &'a [Measured]) -> Facts<'a> {
        Facts {
            now: NOW,
            has_log: true,
            status,
            reports,
            broken_off: Some(&[]),
            begun: NOW - 10 * DAY,
            follows: None,
            checked: Some((NOW - DAY, true)),
        }
    }

    #[test]
    fn a_drill_that_broke_off_counts_as_one_that_was_not_proved() {
        let (status, reports) = (good(), [drill(2, true), drill(9, true)]);
        let of = |broken_off: Option<&[Micros]>| {
            trust(&Facts { broken_off, ..facts(&status, &reports) }, &Terms::default())
        };
        let view = of(Some(&[NOW - DAY, NOW - 5 * DAY]));
        assert_eq!((view.figure, points(&view, "drills_passed")), (40, 10.0), "{view:?}");
        assert!(view.limited.as_ref().unwrap().contains("broke off"), "{view:?}");
        // One that a proved one came after holds nothing down.
        let view = of(Some(&[NOW - 5 * DAY]));
        assert_eq!((&view.limited, points(&view, "drills_passed")), (&None, 13.3), "{view:?}");
        // However many they are, the last proved one has its age.
        let many: Vec<Micros> = (0..20).map(|hours| NOW - hours * DAY / 24).collect();
        let view = of(Some(&many));
        assert_eq!((points(&view, "drill_age"), points(&view, "drills_passed")), (25.0, 0.0), "{view:?}");
        assert!(of(None).parts[1].says.contains("as far as"), "{:?}", of(None));
    }

    #[test]
    fn what_was_lost_before_the_first_moment_that_is_left_is_missing() {
        let mut lost = good();
        lost.spans = vec![span(0.7, 0.0)];
        let reports = [drill(2, true)];
        let of = |begun| trust(&Facts { begun, ..facts(&lost, &reports) }, &Terms::default());
        let view = of(NOW - 365 * DAY);
        assert!((points(&view, "coverage") - 2.0).abs() < 1e-9, "{view:?}");
        // A younger server has lost nothing.
        let view = of(NOW - 7 * DAY / 10);
        assert!((points(&view, "coverage") - 20.0).abs() < 1e-9, "{view:?}");
    }

    #[test]
    fn a_log_that_is_held_and_does_not_come_in_is_not_followed() {
        let reports = [drill(2, true)];
        let mut held = good();
        held.spans = vec![span(10.0, 3.5)];
        let of = |follows| trust(&Facts { follows, ..facts(&held, &reports) }, &Terms::default());
        for follows in [None, Some(false)] {
            let view = of(follows);
            assert_eq!((points(&view, "log"), points(&view, "coverage")), (0.0, 10.0), "{view:?}");
        }
        let view = of(Some(true));
        assert_eq!((points(&view, "log"), points(&view, "coverage")), (10.0, 20.0), "{view:?}");
    }

    fn points(view: &TrustView, name: &str) -> f64 {
        view.parts.iter().find(|part| part.name == name).unwrap().points
    }

    #[test]
    fn what_is_promised_and_shown_is_all_of_it_and_the_parts_are_its_sum() {
        let view = of(&good(), &[drill(2, true), drill(9, true)], Some((29, true)));
        assert_eq!((view.figure, &view.limited), (100, &None), "{view:?}");
        assert!((view.parts.iter().map(|part| part.of).sum::<f64>() - 100.0).abs() < 1e-9);
        assert!(view.parts.iter().all(|part| part.points == part.of && !part.says.is_empty()));
    }

    #[test]
    fn each_part_loses_what_docs_say_and_no_other_one_does() {
        let best = [drill(2, true), drill(9, true)];
        let whole = Some((3, true));
        let change = |name: &str, view: TrustView, left: f64| {
            assert!((points(&view, name) - left).abs() < 1e-9, "{name}: {view:?}");
            let others = view.parts.iter().filter(|part| part.name != name);
            assert!(others.clone().all(|part| part.points == part.of), "{name}: {view:?}");
            let lost: f64 = view.parts.iter().map(|part| part.of - part.points).sum();
            assert_eq!(view.figure, (100.0 - lost).floor() as u8, "{view:?}");
        };
        // A drill is due every 7 days: at 17.5 days half of it is left, at 28 nothing.
        change("drill_age", of(&good(), &[drill(14, true)], whole), 16.7);
        change("drill_age", of(&good(), &[drill(28, true)], whole), 0.0);
        change("drills_passed", of(&good(), &[drill(1, true), drill(2, false)], whole), 10.0);
        let mut old = good();
        old.last_backup.as_mut().unwrap().started = NOW - 5 * DAY / 2;
        change("base_age", of(&old, &best, whole), 5.0);
        change("check", of(&good(), &best, Some((75, true))), 7.5);
        change("check", of(&good(), &best, None), 0.0);
        let mut idle = good();
        idle.archive_running = false;
        change("log", of(&idle, &best, whole), 0.0);
        // 7 days of window, 3.5 of them lost, and a tenth for the hole.
        let mut holed = good();
        holed.spans = vec![span(10.0, 5.0), span(1.5, 0.0)];
        holed.gaps =
            vec![GapView { after: String::new(), noticed: Some(NOW - 4 * DAY), reason: String::new() }];
        change("coverage", of(&holed, &best, whole), 8.0);
        // One before the window is no hole of it.
        let mut before = good();
        before.gaps =
            vec![GapView { after: String::new(), noticed: Some(NOW - 9 * DAY), reason: String::new() }];
        assert_eq!(of(&before, &best, whole).figure, 100);
    }

    #[test]
    fn a_failed_drill_or_damage_outweighs_the_rest_and_without_a_backup_there_is_nothing() {
        let best = [drill(1, false), drill(2, true), drill(3, true), drill(4, true)];
        let view = of(&good(), &best, Some((1, true)));
        assert_eq!(view.figure, 40, "{view:?}");
        assert!(view.limited.unwrap().contains("last drill"));
        let view = of(&good(), &[drill(1, true)], Some((1, false)));
        assert_eq!(view.figure, 40, "{view:?}");
        assert!(view.limited.unwrap().contains("damage"));
        let mut none = good();
        none.last_backup = None;
        let view = of(&none, &best, Some((1, true)));
        assert_eq!(view.figure, 0, "{view:?}");
        // The limit raises nothing.
        assert!(of(&StatusView::unknown("shop", ""), &[drill(60, false)], None).figure < 40);
    }

    #[test]
    fn a_folder_is_measured_by_what_it_has() {
        let status = good();
        let reports = [drill(1, true)];
        let folder = Facts { has_log: false, ..facts(&status, &reports) };
        let view = trust(&folder, &Terms::default());
        assert_eq!((view.figure, view.parts.len()), (100, 4), "{view:?}");
    }

    #[test]
    fn a_policy_without_drills_is_measured_by_the_usual_span() {
        let never = Policy { drill: crate::policy::Span(0), ..Policy::default() };
        assert_eq!(Terms::of(&never, 0), Terms::default());
    }
}
