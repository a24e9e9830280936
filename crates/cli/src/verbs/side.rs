//! `restore --into-server`.

use super::jobs::{options, show_evidence, show_plan};
use super::undo::on;
use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, On, Restore};
use crate::output::{Output, table};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::restore;
use holdfast_appliance::side::{self, SideView, TableView, Wanted, plain};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The server that `--into-server` names.
pub(super) fn server(text: &str, wanted: &Restore) -> Result<On> {
    const PORT: u16 = 3306;
    let (user, password_file) = (wanted.user.clone(), wanted.password_file.clone());
    let named = On { host: None, port: PORT, socket: None, user, password_file };
    if text.is_empty() {
        return Ok(named);
    }
    if text.starts_with('/') {
        return Ok(On { socket: Some(PathBuf::from(text)), ..named });
    }
    let wrong = || {
        Error::usage(format!("'{text}' is no server."))
            .with_next("write HOST, HOST:PORT, [ADDRESS]:PORT, or the path of a socket")
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or_else(wrong)?;
            (host, if behind.is_empty() { None } else { Some(behind.strip_prefix(':').ok_or_else(wrong)?) })
        }
        None => match text.split_once(':') {
            // More than one colon is an address by itself.
            Some((_, rest)) if rest.contains(':') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| wrong()))?;
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(On { host: Some(host.to_owned()), port, ..named })
}

pub(super) fn side(
    common: &Common,
    output: Output,
    wanted: &Restore,
    to: &str,
) -> std::result::Result<u8, Stop> {
    let absolute = |path: &PathBuf| {
        std::path::absolute(path)
            .map_err(|e| Error::usage(format!("The path {} can't be used: {e}.", path.display())))
    };
    let server = server(to, wanted)?;
    let scratch = wanted.scratch.as_ref().map(absolute).transpose()?;
    let options = options(wanted, scratch.as_deref().unwrap_or(Path::new("/var/tmp")))?;
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    if wanted.dry_run {
        let plan = restore::plan(&catalogue, &wanted.name, &options, &meter)?;
        meter.finish();
        output.answer(&plan, |out| {
            show_plan(out, &plan)?;
            writeln!(out, "Nothing was changed.")
        })?;
        return Ok(DONE);
    }
    let wanted_of = Wanted {
        on: on(&catalogue, &wanted.name, &server)?,
        schema: wanted.schema.clone(),
        scratch,
        no_binlog: wanted.no_binlog,
        copy_back: wanted.copy_back.as_ref().map(absolute).transpose()?,
        deletes: wanted.delete_new,
    };
    let done = side::side(&catalogue, &wanted.name, &options, &wanted_of, &meter);
    meter.finish();
    let view = done?;
    if wanted.sql {
        let mut out = io::stdout().lock();
        view.script.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        let mut err = io::stderr().lock();
        if output.json {
            writeln!(err, "{}", serde_json::to_string(&view).map_err(io::Error::from)?)?;
        } else {
            show(&mut err, &view)?;
        }
    } else {
        output.answer(&view, |out| show(out, &view))?;
    }
    let whole = view.conflicts.is_empty()
        && view.warnings.is_empty()
        && view.tables.iter().all(|table| table.not_compared.is_none())
        && view.restored.report.lacking.is_empty();
    Ok(if whole { DONE } else { DONE_WITH_WARNINGS })
}

fn show(out: &mut dyn Write, view: &SideView) -> io::Result<()> {
    let restored = &view.restored;
    writeln!(
        out,
        "Copied tables of '{}' as of {} into {} at {}.",
        restored.server,
        plain(&restored.reached),
        view.schemas.join(", "),
        view.at
    )?;
    show_evidence(out, restored)?;
    let count = |count: Option<u64>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let row = |of: &TableView| {
        let counts = [of.only_then, of.only_now, of.changed].map(count);
        [vec![plain(&of.table), plain(&of.copy), of.rows.to_string()], counts.to_vec()].concat()
    };
    let rows: Vec<Vec<String>> = view.tables.iter().map(row).collect();
    table(out, &["TABLE", "COPY", "ROWS", "GONE SINCE", "NEW SINCE", "CHANGED"], &rows)?;
    for of in &view.tables {
        if let Some(why) = &of.not_compared {
            writeln!(out, "warning: {} was not compared: {}", plain(&of.table), plain(why))?;
        }
        of.notes.iter().try_for_each(|note| writeln!(out, "note: {}: {}", plain(&of.table), plain(note)))?;
    }
    view.notes.iter().try_for_each(|note| writeln!(out, "note: {}", plain(note)))?;
    view.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {}", plain(warning)))?;
    view.conflicts.iter().try_for_each(|conflict| writeln!(out, "CONFLICT {}", plain(conflict)))?;
    match &view.copy_back {
        Some(file) => writeln!(out, "The script that puts rows back is {file}: read it before you run it."),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    #[test]
    fn a_server_is_named_by_host_address_or_socket() {
        let cli = Cli::parse_from("holdfast restore shop --to latest --table a.b --into-server".split(' '));
        let Verb::Restore(command) = cli.verb else { panic!() };
        let wanted = command.restore.unwrap();
        let read = |text: &str| server(text, &wanted).map(|on| (on.host, on.port, on.socket));
        let host = |host: &str, port| (Some(host.to_owned()), port, None);
        assert_eq!(read("").unwrap(), (None, 3306, None));
        assert_eq!(read("db2").unwrap(), host("db2", 3306));
        assert_eq!(read("db2:3307").unwrap(), host("db2", 3307));
        assert_eq!(read("[::1]:3307").unwrap(), host("::1", 3307));
        assert_eq!(read("::1").unwrap(), host("::1", 3306));
        assert_eq!(read("/run/s").unwrap(), (None, 3306, Some(PathBuf::from("/run/s"))));
        for wrong in ["db2:x", ":3306", "[::1", "[::1]3307"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
