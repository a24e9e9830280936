//! `check`: is every server protected? One line each, or one line in all for Nagios and its kin.

use super::{DONE, DONE_WITH_WARNINGS, Stop, daemon, open};
use crate::args::Common;
use crate::client::Client;
use crate::output::Output;
use holdfast_appliance::error::{Error, Result};
use serde::Serialize;
use std::io::{self, Write};

/// Exit status when a server is not protected.
const NOT_PROTECTED: u8 = 1;
/// What Nagios calls the grades, and their exit statuses.
const NAGIOS: [&str; 3] = ["OK", "WARNING", "CRITICAL"];
/// Nagios' exit status when nothing can be said.
const NAGIOS_UNKNOWN: u8 = 3;

/// One server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    /// Its name.
    pub(super) server: String,
    /// 0: protected; 1: something wants a look; 2: not protected.
    pub(super) grade: u8,
    /// Why.
    pub(super) sentence: String,
    /// How far the log is behind, where a daemon tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lag_seconds: Option<f64>,
}

pub(super) fn check(
    common: &Common,
    output: Output,
    name: Option<&str>,
    nagios: bool,
) -> std::result::Result<u8, Stop> {
    let verdicts = match verdicts(common, name) {
        Err(error) if nagios => {
            writeln!(io::stdout(), "HOLDFAST UNKNOWN - {}", one_line(&error.message))?;
            return Ok(NAGIOS_UNKNOWN);
        }
        other => other?,
    };
    // Nobody to protect is nothing to be calm about.
    let worst = verdicts.iter().map(|v| v.grade).max().unwrap_or(2).min(2);
    if nagios {
        writeln!(io::stdout(), "{}", nagios_line(&verdicts, worst))?;
        return Ok(worst);
    }
    output.answer(&serde_json::json!({ "servers": verdicts }), |out| {
        verdicts.iter().try_for_each(|v| {
            let grade = ["OK", "WARNING", "FAILED"].get(usize::from(v.grade)).copied().unwrap_or("FAILED");
            writeln!(out, "{grade:<8} {}  {}", v.server, v.sentence)
        })
    })?;
    Ok(match worst {
        0 => DONE,
        1 => DONE_WITH_WARNINGS,
        _ => NOT_PROTECTED,
    })
}

fn verdicts(common: &Common, name: Option<&str>) -> Result<Vec<Verdict>> {
    let mut all = match &common.daemon {
        Some(socket) => daemon::verdicts(&Client::new(socket, common.token_file.as_deref())?)?,
        None => of_repository(common)?,
    };
    if let Some(name) = name {
        all.retain(|v| v.server == name);
        if all.is_empty() {
            return Err(Error::usage(format!("There is no server called '{name}'.")));
        }
    }
    Ok(all)
}

fn of_repository(common: &Common) -> Result<Vec<Verdict>> {
    let views = holdfast_appliance::status::status(&open(common)?)?;
    let verdict = |view: holdfast_appliance::views::StatusView| Verdict {
        server: view.server,
        grade: match view.protected {
            "yes" => 0,
            "no" => 2,
            _ => 1,
        },
        sentence: view.sentence,
        lag_seconds: None,
    };
    Ok(views.into_iter().map(verdict).collect())
}

fn one_line(text: &str) -> String {
    // A pipe begins the figures, and a line ends the answer.
    text.replace(['|', '\n'], " ")
}

fn nagios_line(verdicts: &[Verdict], worst: u8) -> String {
    let word = NAGIOS.get(usize::from(worst)).copied().unwrap_or("CRITICAL");
    let bad: Vec<String> = verdicts
        .iter()
        .filter(|v| v.grade > 0)
        .map(|v| one_line(&format!("{}: {}", v.server, v.sentence)))
        .collect();
    let text = if verdicts.is_empty() {
        "no server is protected".to_owned()
    } else if bad.is_empty() {
        format!("{} server(s) protected", verdicts.len())
    } else {
        bad.join("; ")
    };
    let lags = verdicts.iter().filter_map(|v| Some((v, v.lag_seconds?)));
    let figures: Vec<String> = lags.map(|(v, lag)| format!("'{} lag'={lag:.3}s", v.server)).collect();
    let figures = if figures.is_empty() { String::new() } else { format!(" | {}", figures.join(" ")) };
    format!("HOLDFAST {word} - {text}{figures}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(server: &str, grade: u8, lag: Option<f64>) -> Verdict {
        Verdict { server: server.into(), grade, sentence: "a | b".into(), lag_seconds: lag }
    }

    #[test]
    fn nagios_gets_one_line_with_the_worst_word_and_figures_behind_one_pipe() {
        let all = [verdict("shop", 0, Some(0.25)), verdict("crm", 2, None)];
        assert_eq!(nagios_line(&all, 2), "HOLDFAST CRITICAL - crm: a   b | 'shop lag'=0.250s");
        assert_eq!(nagios_line(&all[..1], 0), "HOLDFAST OK - 1 server(s) protected | 'shop lag'=0.250s");
        assert_eq!(nagios_line(&[], 2), "HOLDFAST CRITICAL - no server is protected");
    }
}
