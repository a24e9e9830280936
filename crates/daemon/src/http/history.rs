//! `history`: what the board said, minute by minute.

use super::answer::{Outcome, json};
use super::api::{Request, known};
use crate::daemon::Daemon;
use crate::history::{Asked, Of, look};
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::time::{Micros, now, parse_time_or_age};
use hyper::StatusCode;

/// What is shown when nothing is said.
const DAY: Micros = 86_400_000_000;
/// Points that are given when nothing is said.
const POINTS: u32 = 300;

pub(super) fn of_server(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    answer(daemon, asked, Of::Server(asked.part()))
}

pub(super) fn of_repository(daemon: &Daemon, asked: &Request) -> Outcome {
    answer(daemon, asked, Of::Repository)
}

fn answer(daemon: &Daemon, asked: &Request, of: Of<'_>) -> Outcome {
    let wanted = wanted(asked, of)?;
    json(StatusCode::OK, &look(&daemon.config().state, of, &wanted)?)
}

fn wanted(asked: &Request, of: Of<'_>) -> Result<Asked> {
    let time = |name: &str| -> Result<Option<Micros>> {
        asked.param(name)?.map(|text| parse_time_or_age(&text, now())).transpose()
    };
    let to = time("to")?.unwrap_or_else(now);
    let points = asked.param("points")?.map(|text| {
        text.parse().map_err(|_| Error::usage(format!("'points' is a number of points, not '{text}'.")))
    });
    let metrics = match asked.param("metric")? {
        Some(names) => names.split(',').map(str::to_owned).collect(),
        None => of.metrics().iter().map(|name| (*name).to_owned()).collect(),
    };
    Ok(Asked {
        metrics,
        from: time("from")?.unwrap_or_else(|| to.saturating_sub(DAY)),
        to,
        points: points.transpose()?.unwrap_or(POINTS),
    })
}
