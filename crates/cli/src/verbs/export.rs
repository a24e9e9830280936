//! `export`.

use super::jobs::{level, show_evidence, target};
use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Export};
use crate::output::{Output, size, table};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::export::sql::{self, Part, SqlView};
use holdfast_appliance::export::{BinlogsView, DatadirView, Destination};
use holdfast_appliance::restore::Options;
use holdfast_appliance::time::{now, parse_time_or_age, show_time};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

pub(super) fn export(common: &Common, output: Output, wanted: &Export) -> std::result::Result<u8, Stop> {
    if let Some(file) = &wanted.sql {
        return script(common, output, wanted, file);
    }
    match (&wanted.into, &wanted.datadir, &wanted.tar) {
        (Some(into), _, _) => binlogs(common, output, wanted, into),
        (None, Some(folder), _) => datadir(common, output, wanted, folder),
        (None, None, Some(file)) => tar(common, output, wanted, file),
        (None, None, None) => {
            Err(Error::usage("What is to be exported?").with_next("see holdfast export --help").into())
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|e| Error::usage(format!("The path {} can't be used: {e}.", path.display())))
}

fn binlogs(common: &Common, output: Output, wanted: &Export, into: &Path) -> std::result::Result<u8, Stop> {
    let time = |text: &Option<String>| text.as_deref().map(|t| parse_time_or_age(t, now())).transpose();
    let times = (time(&wanted.since)?, time(&wanted.until)?);
    let into = absolute(into)?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = holdfast_appliance::export::binlogs(&catalogue, &wanted.name, &into, times, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| show_binlogs(out, &view))?;
    let whole = view.holes.is_empty() && !view.files.iter().any(|file| file.headless());
    Ok(if whole { DONE } else { DONE_WITH_WARNINGS })
}

fn show_binlogs(out: &mut dyn Write, view: &BinlogsView) -> io::Result<()> {
    let shown = |at: Option<i64>| at.map_or_else(|| "-".to_owned(), show_time);
    let row = |file: &holdfast_appliance::export::ExportedFile| {
        let (from, until) = (shown(file.from), shown(file.until));
        vec![file.file.clone(), size(file.end), file.transactions.to_string(), from, until]
    };
    let rows: Vec<Vec<String>> = view.files.iter().map(row).collect();
    table(out, &["FILE", "SIZE", "TRANSACTIONS", "FROM", "UNTIL"], &rows)?;
    for file in view.files.iter().filter(|file| file.headless()) {
        writeln!(
            out,
            "warning: {} is archived from {} on only: read it with mysqlbinlog --start-position={}",
            file.file, file.start, file.start
        )?;
    }
    for hole in &view.holes {
        writeln!(out, "warning: HOLE after {}: {}", hole.after, hole.reason)?;
    }
    writeln!(out, "{} files of '{}' are in {}.", view.files.len(), view.server, view.into)
}

fn options(wanted: &Export, into: PathBuf) -> Result<Options> {
    let target = target([&wanted.to, &wanted.before, &wanted.after])?;
    let (engine_dir, prove) = (wanted.engine_dir.clone(), level(wanted.prove));
    Ok(Options { engine_dir, prove, ..Options::new(target, into) })
}

fn datadir(common: &Common, output: Output, wanted: &Export, folder: &Path) -> std::result::Result<u8, Stop> {
    let options = options(wanted, absolute(folder)?)?;
    let view = carry_out(common, wanted, &options, None)?;
    output.answer(&view, |out| show_datadir(out, &view))?;
    Ok(status(&view))
}

fn tar(common: &Common, output: Output, wanted: &Export, file: &Path) -> std::result::Result<u8, Stop> {
    let to_stdout = file == Path::new("-");
    let scratch = match (&wanted.scratch, to_stdout) {
        (Some(scratch), _) => scratch.clone(),
        (None, false) => sql::scratch_beside(file),
        (None, true) => {
            return Err(Error::usage("An archive on standard output needs a folder to restore in.")
                .with_next("name one with --scratch DIR; it is removed again")
                .into());
        }
    };
    let options = options(wanted, absolute(&scratch)?)?;
    if !to_stdout {
        let view = carry_out(common, wanted, &options, Some(Destination::File(absolute(file)?)))?;
        output.answer(&view, |out| show_datadir(out, &view))?;
        return Ok(status(&view));
    }
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        return Err(Error::usage("Standard output is a terminal.")
            .with_next("send it into a file or a program, or use --tar FILE")
            .into());
    }
    let view = carry_out(common, wanted, &options, Some(Destination::Stream(&mut out)))?;
    let mut err = io::stderr().lock();
    if output.json {
        writeln!(err, "{}", serde_json::to_string(&view).map_err(io::Error::from)?)?;
    } else {
        show_datadir(&mut err, &view)?;
    }
    Ok(status(&view))
}

fn carry_out(
    common: &Common,
    wanted: &Export,
    options: &Options,
    tar: Option<Destination<'_>>,
) -> std::result::Result<DatadirView, Stop> {
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = holdfast_appliance::export::datadir(&catalogue, &wanted.name, options, tar, &meter);
    meter.finish();
    Ok(done?)
}

fn show_datadir(out: &mut dyn Write, view: &DatadirView) -> io::Result<()> {
    let place = view.into.as_deref().unwrap_or("standard output");
    writeln!(out, "Exported '{}' as of {} to {place}.", view.restored.server, view.restored.reached)?;
    show_evidence(out, &view.restored)?;
    let Some(version) = &view.version else { return Ok(()) };
    writeln!(out, "A server of the series of {version} starts on it, with the source's settings:")?;
    writeln!(out, "  {}", view.options.join(" "))
}

fn status(view: &DatadirView) -> u8 {
    if view.restored.report.lacking.is_empty() { DONE } else { DONE_WITH_WARNINGS }
}

fn script(common: &Common, output: Output, wanted: &Export, file: &Path) -> std::result::Result<u8, Stop> {
    let to_stdout = file == Path::new("-");
    let scratch = match (&wanted.scratch, to_stdout) {
        (Some(scratch), _) => absolute(scratch)?,
        (None, false) => sql::scratch_beside(&absolute(file)?),
        (None, true) => {
            return Err(Error::usage("A script on standard output needs a folder to restore in.")
                .with_next("name one with --scratch DIR; it is removed again")
                .into());
        }
    };
    let tables = wanted.table.iter().map(|table| sql::table_name(table)).collect::<Result<Vec<_>>>()?;
    let what = sql::Wanted {
        databases: wanted.database.clone(),
        tables,
        part: match (wanted.schema_only, wanted.data_only) {
            (true, _) => Part::Schema,
            (_, true) => Part::Data,
            _ => Part::All,
        },
        users: wanted.users,
        set_gtids: wanted.set_gtids,
        zstd: wanted.zstd,
    };
    let options = options(wanted, scratch.clone())?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let mut out = io::stdout().lock();
    if to_stdout && wanted.zstd && out.is_terminal() {
        return Err(Error::usage("Standard output is a terminal.")
            .with_next("send it into a file or a program, or use --sql FILE")
            .into());
    }
    let to = if to_stdout { Destination::Stream(&mut out) } else { Destination::File(absolute(file)?) };
    let done = sql::sql(&catalogue, &wanted.name, &options, &scratch, &what, to, &meter);
    meter.finish();
    let view = done?;
    drop(out);
    if !to_stdout {
        output.answer(&view, |out| show_script(out, &view))?;
    } else if output.json {
        writeln!(io::stderr().lock(), "{}", serde_json::to_string(&view).map_err(io::Error::from)?)?;
    } else {
        show_script(&mut io::stderr().lock(), &view)?;
    }
    let whole = view.warnings.is_empty() && view.restored.report.lacking.is_empty();
    Ok(if whole { DONE } else { DONE_WITH_WARNINGS })
}

fn show_script(out: &mut dyn Write, view: &SqlView) -> io::Result<()> {
    let place = view.into.as_deref().unwrap_or("standard output");
    writeln!(out, "Exported '{}' as of {} to {place}.", view.restored.server, view.restored.reached)?;
    show_evidence(out, &view.restored)?;
    for warning in &view.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(
        out,
        "{} tables, {} rows, {}; its longest statement has {} bytes, so the server that reads it needs a larger \
         max_allowed_packet.",
        view.tables,
        view.rows,
        size(view.bytes),
        view.longest_statement
    )
}
