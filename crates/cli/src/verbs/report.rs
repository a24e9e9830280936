//! `report`: what drills and restores have shown, and whether it is what was signed.

use super::{DAMAGED, DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, ReportVerb};
use crate::output::{Output, table};
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::reports::{self, ReportView, VerifiedView};
use holdfast_appliance::time::show_time;
use std::io::{self, Write};
use std::path::Path;

pub(super) fn report(common: &Common, output: Output, verb: &ReportVerb) -> std::result::Result<u8, Stop> {
    match verb {
        ReportVerb::List { name } => {
            let views = reports::list(&open(common)?, name.as_deref())?;
            output.answer(&serde_json::json!({ "reports": views }), |out| rows(out, &views))?;
            Ok(DONE)
        }
        ReportVerb::Show { number, out } => {
            let bytes = reports::show(&open(common)?, *number)?;
            give(out.as_deref(), &bytes)?;
            Ok(DONE)
        }
        ReportVerb::Key { out } => {
            let keys = reports::keys(&open(common)?)?;
            let text: String =
                keys.iter().map(|key| format!("generation {}\n{}", key.generation, key.pem)).collect();
            match out {
                Some(file) => give(Some(file), text.as_bytes())?,
                None => output
                    .answer(&serde_json::json!({ "keys": keys }), |out| out.write_all(text.as_bytes()))?,
            }
            Ok(DONE)
        }
        ReportVerb::Verify { report: Some(file), public_key } => {
            let trusted = match public_key {
                Some(keys) => {
                    let text = String::from_utf8_lossy(&read(keys)?).into_owned();
                    reports::read_keys(&text, &keys.display().to_string())?
                }
                None => reports::trusted(&open(common)?)?,
            };
            let view = reports::verify(&read(file)?, &file.display().to_string(), &trusted)?;
            output.answer(&view, |out| verified(out, &view))?;
            Ok(DONE)
        }
        ReportVerb::Verify { report: None, .. } => all(common, output),
    }
}

/// Everything that is kept.
fn all(common: &Common, output: Output) -> std::result::Result<u8, Stop> {
    let views = reports::list(&open(common)?, None)?;
    let count = |signature: &str| views.iter().filter(|view| view.signature == signature).count();
    let (good, other, none, bad) = (count("good"), count("other key"), count("none"), count("bad"));
    let answer =
        serde_json::json!({ "good": good, "other_key": other, "none": none, "bad": bad, "reports": views });
    output.answer(&answer, |out| {
        writeln!(
            out,
            "{} reports: {good} are as they were signed, {other} are too, by keys of before a re-encryption, {none} were never \
             signed, {bad} are not to be believed.",
            views.len()
        )?;
        let bad = |view: &&ReportView| view.signature == "bad";
        views.iter().filter(bad).try_for_each(|view| writeln!(out, " BAD {}", view.number))
    })?;
    // Since reports are signed, one without a signature is odd.
    let unsigned =
        views.iter().skip_while(|view| view.signature == "none").any(|view| view.signature == "none");
    Ok(match (bad, other > 0 || unsigned) {
        (0, false) => DONE,
        (0, true) => DONE_WITH_WARNINGS,
        _ => DAMAGED,
    })
}

fn rows(out: &mut dyn Write, views: &[ReportView]) -> io::Result<()> {
    if views.is_empty() {
        return writeln!(out, "No report is kept yet: holdfast drill NAME makes one.");
    }
    let cells = |view: &ReportView| {
        vec![
            view.number.to_string(),
            view.kind.clone(),
            format!("{}{}", view.server, if view.removed { " (removed)" } else { "" }),
            show_time(view.at),
            view.target.clone(),
            if view.proved { "yes" } else { "NO" }.to_owned(),
            view.signature.to_owned(),
        ]
    };
    let header = ["NUMBER", "KIND", "SERVER", "KEPT", "TO", "PROVED", "SIGNATURE"];
    table(out, &header, &views.iter().map(cells).collect::<Vec<_>>())
}

fn verified(out: &mut dyn Write, view: &VerifiedView) -> io::Result<()> {
    writeln!(out, "{} is what the key {} signed:", view.report, view.key)?;
    let proved = if view.proved { "proved" } else { "NOT PROVED" };
    writeln!(out, "the {} of '{}' to {}, kept {}: {proved}.", view.kind, view.server, view.target, view.kept)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file)
        .map_err(|error| Error::usage(format!("The file {} can't be read: {error}.", file.display())))
}

/// Onto standard output, or into a new file.
fn give(to: Option<&Path>, bytes: &[u8]) -> std::result::Result<(), Stop> {
    let Some(file) = to else {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        if !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        return Ok(out.flush()?);
    };
    let write = || -> io::Result<()> {
        let mut to = std::fs::File::options().write(true).create_new(true).open(file)?;
        to.write_all(bytes)?;
        to.sync_all()
    };
    write().map_err(|error| {
        Error::usage(format!("The file {} can't be written: {error}.", file.display()))
            .with_next("name a file that does not exist yet")
            .into()
    })
}
