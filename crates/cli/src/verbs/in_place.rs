//! `restore --in-place` and `restore --undo`.

use super::jobs::{options, show_plan, show_restored};
use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Restore};
use crate::output::{Output, size};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::in_place::{self, InPlaceView, Place, UndoneView};
use holdfast_appliance::views::BackupView;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder that an option names, if it names one.
fn place(wanted: &Restore, folder: &str) -> Result<Place> {
    let named = (!folder.is_empty()).then(|| absolute(Path::new(folder))).transpose()?;
    Ok(Place {
        folder: named,
        confirm: wanted.confirm.clone(),
        stop_command: wanted.stop_command.clone(),
        saved: wanted.saved.clone(),
        no_save: wanted.no_save,
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|e| Error::usage(format!("The path {} can't be used: {e}.", path.display())))
}

/// One of both, whichever was asked for.
pub(super) fn restore(common: &Common, output: Output, wanted: &Restore) -> std::result::Result<u8, Stop> {
    let undo = wanted.undo.as_deref();
    let Some(folder) = wanted.in_place.as_deref().or(undo) else {
        return Err(Error::usage("Restore into what?")
            .with_next("use --into DIR, --in-place, or --into-server for some tables")
            .into());
    };
    let place = place(wanted, folder)?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    if undo.is_some() {
        let undone = in_place::undo(&catalogue, &wanted.name, &place, &meter);
        meter.finish();
        let view = undone?;
        output.answer(&view, |out| show_undone(out, &view))?;
        return Ok(DONE);
    }
    // The folder is found by its server.
    let options = options(wanted, Path::new("/"))?;
    if wanted.dry_run {
        let plan = in_place::plan(&catalogue, &wanted.name, &options, &place, &meter)?;
        meter.finish();
        output.answer(&plan, |out| {
            show_plan(out, &plan)?;
            writeln!(out, "Saves    what is in {} first, in this repository", plan.into)?;
            writeln!(out, "Nothing was changed.")
        })?;
        return Ok(DONE);
    }
    let restored = in_place::restore(&catalogue, &wanted.name, &options, &place, &meter);
    meter.finish();
    let view = restored?;
    output.answer(&view, |out| show(out, &view))?;
    Ok(if view.restored.report.lacking.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

fn saved_words(saved: &BackupView) -> String {
    format!("backup {} ({}, {} stored)", saved.id, size(saved.data_bytes), size(saved.stored_bytes))
}

fn show(out: &mut dyn Write, view: &InPlaceView) -> io::Result<()> {
    let (restored, saved) = (&view.restored, &view.saved);
    writeln!(
        out,
        "What was in {} before is {}; only `forget` removes it.",
        restored.into,
        saved_words(saved)
    )?;
    show_restored(out, restored)?;
    writeln!(out, "back: holdfast restore {} --undo {}", restored.server, restored.into)
}

fn show_undone(out: &mut dyn Write, view: &UndoneView) -> io::Result<()> {
    let Some(back) = &view.laid_back else {
        return writeln!(
            out,
            "The restore of '{}' to {} had changed nothing in {}: nothing was to be undone.",
            view.server, view.target, view.folder
        );
    };
    writeln!(
        out,
        "{} is what it was before the restore of '{}' to {}: {}.",
        view.folder,
        view.server,
        view.target,
        saved_words(back)
    )?;
    writeln!(
        out,
        "  {} blocks were rewritten, {} stood there already",
        view.blocks_written, view.blocks_kept
    )?;
    match &view.saved {
        Some(saved) => writeln!(
            out,
            "What was there until now is {}; the same command again puts it back.",
            saved_words(saved)
        ),
        None => writeln!(out, "What was there until now was not saved."),
    }
}
