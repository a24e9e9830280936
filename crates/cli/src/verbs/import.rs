//! `import`.

use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Import};
use crate::output::{Output, size};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::Error;
use holdfast_appliance::import::{ImportedLogView, ImportedView, LogOptions, Options};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(super) fn import(common: &Common, output: Output, wanted: &Import) -> std::result::Result<u8, Stop> {
    let absolute = |path: &Path| -> std::result::Result<PathBuf, Error> {
        std::path::absolute(path)
            .map_err(|e| Error::usage(format!("The path {} can't be used: {e}.", path.display())))
    };
    let Some(dump) = &wanted.dump else { return binlogs(common, output, wanted, &absolute) };
    let options = Options {
        engine_dir: wanted.engine_dir.clone(),
        scratch: wanted.scratch.as_deref().map(absolute).transpose()?,
        note: wanted.note.clone(),
        whole: wanted.whole,
    };
    let dump = absolute(dump)?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = holdfast_appliance::import::dump(&catalogue, &wanted.name, &dump, &options, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| show(out, &wanted.name, &view))?;
    Ok(if view.warnings.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

fn binlogs(
    common: &Common,
    output: Output,
    wanted: &Import,
    absolute: &dyn Fn(&Path) -> std::result::Result<PathBuf, Error>,
) -> std::result::Result<u8, Stop> {
    let mut paths = Vec::new();
    for path in &wanted.binlogs {
        paths.push(absolute(path)?);
    }
    let options = LogOptions { vouched: wanted.vouch, dry_run: wanted.dry_run };
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = holdfast_appliance::import::binlogs(&catalogue, &wanted.name, &paths, options, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| show_log(out, &wanted.name, options, &view))?;
    Ok(if view.warnings.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

fn show_log(out: &mut dyn Write, name: &str, options: LogOptions, view: &ImportedLogView) -> io::Result<()> {
    for warning in &view.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let from = view.from.as_deref().unwrap_or("its begin");
    let (transactions, bytes) = (view.transactions, size(view.bytes));
    if options.dry_run {
        return writeln!(
            out,
            "Would add {transactions} transactions ({bytes}) to the log of '{name}', from {from} to {}.",
            view.until
        );
    }
    if view.unchanged {
        return writeln!(out, "All of it is archived already: the log of '{name}' ends at {}.", view.until);
    }
    writeln!(
        out,
        "Added {transactions} transactions ({bytes}) to the log of '{name}', from {from} to {}.",
        view.until
    )
}

fn show(out: &mut dyn Write, name: &str, view: &ImportedView) -> io::Result<()> {
    for warning in &view.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if let Some(position) = &view.position {
        writeln!(out, "It stands at {position} in the log of '{name}'.")?;
    }
    writeln!(
        out,
        "Imported {} statements ({}) as the backup {} of '{name}'.",
        view.statements,
        size(view.bytes),
        view.backup.id
    )
}
