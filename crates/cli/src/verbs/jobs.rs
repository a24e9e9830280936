//! `backup`, `archive`, `restore`, `fsck`: what takes time.

use super::{DAMAGED, DONE, DONE_WITH_WARNINGS, Stop, open, place};
use crate::args::{Common, FsckArgs, Mode, On, Prove, Restore, RestoreCommand, RestoreVerb};
use crate::output::{Output, duration, size};
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::measured::{EstimatePart, EstimateView};
use holdfast_appliance::restore::{
    self, Delta, DeltaView, Options, Outlook, Part, Plan, PlanView, ProveLevel, ReplayMode, ReplicaOf,
    RestoredView, Settings, Tables, Target,
};
use holdfast_appliance::time::show_time;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// How many warnings of a backup are spelled out on a terminal.
const WARNINGS_MAX: usize = 10;

pub(super) fn backup(
    common: &Common,
    output: Output,
    name: &str,
    options: &holdfast_appliance::backup::Options,
) -> std::result::Result<u8, Stop> {
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let taken = holdfast_appliance::backup::backup(&catalogue, name, options, &meter);
    meter.finish();
    let view = taken?;
    output.answer(&view, |out| {
        let took = duration(view.completed.saturating_sub(view.started));
        writeln!(
            out,
            "Backup {} of '{}': {}, {} stored, in {took}.",
            view.id,
            view.server,
            size(view.data_bytes),
            size(view.stored_bytes)
        )?;
        if let Some(replica) = &view.copied_from {
            writeln!(out, "It was copied from the replica {replica}.")?;
        }
        if let Some(why) = &view.not_from_replica {
            writeln!(out, "It was copied from the server itself: {why}")?;
        }
        if let Some(position) = &view.position {
            writeln!(out, "It stands {}{position}.", if view.exact { "at " } else { "" })?;
        }
        view.warnings.iter().take(WARNINGS_MAX).try_for_each(|w| writeln!(out, "warning: {w}"))?;
        match view.warnings.len().checked_sub(WARNINGS_MAX) {
            Some(more) if more > 0 => {
                writeln!(out, "warning: and {more} more; `holdfast list --json` has them all")
            }
            _ => Ok(()),
        }
    })?;
    Ok(if view.warnings.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

pub(super) fn archive(
    common: &Common,
    output: Output,
    name: &str,
    semi_sync: bool,
) -> std::result::Result<u8, Stop> {
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let followed = holdfast_appliance::archive::archive(&catalogue, name, semi_sync, &meter);
    meter.finish();
    let view = followed?;
    output.answer(&view, |out| {
        writeln!(
            out,
            "Archived {} transactions ({}) of '{name}', up to {}.",
            view.transactions,
            size(view.bytes),
            view.until
        )
    })?;
    Ok(DONE)
}

pub(super) fn restore(
    common: &Common,
    output: Output,
    command: RestoreCommand,
) -> std::result::Result<u8, Stop> {
    match (command.after, command.restore) {
        (Some(RestoreVerb::Finish { dir, engine_dir }), _) => {
            let finished = restore::finish(&dir, engine_dir.as_deref())?;
            output.answer(&finished, |out| {
                writeln!(out, "{} is an ordinary data directory from here on.", finished.into)?;
                match finished.port {
                    Some(port) => writeln!(out, "Its server runs on 127.0.0.1:{port} and takes writes."),
                    None => writeln!(out, "start it with: {}", finished.start_with),
                }?;
                match (&finished.replica_of, finished.port) {
                    (Some(source), Some(_)) => writeln!(out, "It replicates from {source}."),
                    (Some(source), None) => writeln!(out, "It replicates from {source} when it is started."),
                    (None, _) => Ok(()),
                }?;
                finished.remarks.iter().try_for_each(|remark| writeln!(out, "note: {remark}"))
            })?;
            Ok(DONE)
        }
        (None, Some(restore)) => match (&restore.into, &restore.into_server) {
            (Some(into), _) => restore_to(common, output, &restore, into),
            (None, Some(to)) => super::side::side(common, output, &restore, to),
            (None, None) => super::in_place::restore(common, output, &restore),
        },
        (None, None) => {
            Err(Error::usage("What is to be restored?").with_next("see holdfast restore --help").into())
        }
    }
}

/// The source that `--as-replica-of` names, and the account.
fn replica(text: &str, wanted: &Restore) -> Result<ReplicaOf> {
    let On { host, port, .. } = super::side::server(text, wanted)?;
    let Some(host) = host else {
        return Err(Error::usage(format!("'{text}' is no host.")).with_next("write HOST or HOST:PORT"));
    };
    let (user, password_file) = (wanted.replica_user.clone(), wanted.replica_password_file.clone());
    Ok(ReplicaOf { host, port, user, password_file })
}

/// What was asked for, into the folder `into`.
pub(super) fn options(wanted: &Restore, into: &Path) -> Result<Options> {
    let into = std::path::absolute(into)
        .map_err(|e| Error::usage(format!("The folder {} can't be used: {e}.", into.display())))?;
    let target = target([&wanted.to, &wanted.before, &wanted.after])?;
    Ok(Options {
        engine_dir: wanted.engine_dir.clone(),
        start: wanted.start,
        going_on: wanted.going_on,
        delta: wanted.delta.then(|| Delta { confirm: wanted.confirm.clone(), keep: Vec::new() }),
        tables: Tables::parse(&wanted.table, &wanted.database)?,
        replica: wanted.as_replica_of.as_ref().map(|text| replica(text, wanted)).transpose()?,
        config: Settings::parse(wanted.with_config, &wanted.set)?,
        port: wanted.port,
        prove: level(wanted.prove),
        mode: match wanted.mode {
            Mode::Serial => ReplayMode::Serial,
            Mode::Ordered => ReplayMode::Ordered,
            Mode::Net => ReplayMode::Net,
            Mode::Auto => ReplayMode::Auto,
        },
        ..Options::new(target, into)
    })
}

fn restore_to(
    common: &Common,
    output: Output,
    wanted: &Restore,
    into: &Path,
) -> std::result::Result<u8, Stop> {
    let options = options(wanted, into)?;
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
    let restored = restore::restore(&catalogue, &wanted.name, &options, &meter);
    meter.finish();
    let view = restored?;
    output.answer(&view, |out| show_restored(out, &view))?;
    Ok(if view.report.lacking.is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

pub(super) fn level(wanted: Prove) -> ProveLevel {
    match wanted {
        Prove::Quick => ProveLevel::Quick,
        Prove::Standard => ProveLevel::Standard,
        Prove::Full => ProveLevel::Full,
    }
}

/// The moment that `--to`, `--before` and `--after` name.
pub(super) fn target(wanted: [&Option<String>; 3]) -> Result<Target> {
    match wanted {
        [Some(to), _, _] => Target::parse(to),
        [None, Some(id), _] => Ok(Target::before(id)),
        [None, None, Some(id)] => Ok(Target::after(id)),
        [None, None, None] => Err(Error::usage("Restore to which moment?")
            .with_next("use --to latest, --to TIME, --before ID or --after ID")),
    }
}

pub(super) fn show_plan(out: &mut dyn Write, view: &PlanView) -> io::Result<()> {
    let plan = &view.plan;
    writeln!(out, "Target   {}", plan.target)?;
    if let Some(kept) = &plan.last_kept {
        writeln!(out, "         last kept   {kept}")?;
    }
    if let Some(left) = &plan.first_left_out {
        writeln!(out, "         left out    {left}")?;
    }
    writeln!(
        out,
        "Plan     backup {} of {}, {} files, {}",
        plan.base,
        plan.base_finished,
        plan.files,
        size(plan.bytes)
    )?;
    writeln!(out, "         it stands {}", at(&plan.base_stands_at))?;
    match &plan.log {
        Some(log) => {
            writeln!(out, "         log: {} transactions, {}", log.size.transactions, size(log.size.bytes))?
        }
        None => writeln!(out, "         no log is replayed")?,
    }
    if let Some(part) = &plan.part {
        show_part(out, plan, part)?;
    }
    writeln!(out, "Needs    {} free for {}", size(plan.space_needed), view.into)?;
    if let Some(version) = &plan.version {
        writeln!(out, "         a server for {version}: {}", view.engine)?;
    }
    show_estimate(out, view.estimate.as_ref())?;
    if let Some(delta) = &view.delta {
        show_delta(out, delta)?;
    }
    if let Some(replay) = &view.replay {
        show_outlook(out, replay)?;
    }
    for line in &plan.not_restored {
        writeln!(out, "Note     {line}")?;
    }
    for line in &plan.passed_over {
        writeln!(out, "Not used {line}")?;
    }
    Ok(())
}

/// What a restore of some tables reads and replays, beside the whole server's.
fn show_part(out: &mut dyn Write, plan: &Plan, part: &Part) -> io::Result<()> {
    writeln!(out, "Only     {}", part.wanted)?;
    writeln!(
        out,
        "         {} of {} files, {} of {}",
        plan.files,
        part.of_files,
        size(plan.bytes),
        size(part.of_bytes)
    )?;
    if let Some(log) = &plan.log {
        writeln!(
            out,
            "         {} of {} transactions, {} of {} of log",
            part.transactions,
            log.size.transactions,
            size(part.log_bytes),
            size(log.size.bytes)
        )?;
    }
    Ok(())
}

/// What a restore takes, and what that goes by.
pub(super) fn show_estimate(out: &mut dyn Write, estimate: Option<&EstimateView>) -> io::Result<()> {
    let Some(made) = estimate else {
        return writeln!(out, "Takes    not known yet: no restore of this server was proved");
    };
    let words = |seconds: f64| duration((seconds * 1e6) as i64);
    let (least, most) = (words(made.seconds_min), words(made.seconds_max));
    writeln!(
        out,
        "Takes    about {} ({least} to {most}; {} restores measured)",
        words(made.seconds),
        made.restores
    )?;
    let part = |part: &EstimatePart| match part.bytes {
        Some(bytes) => format!("{} of {} {}", size(bytes), part.what, words(part.seconds)),
        None => format!("{} {}", part.what, words(part.seconds)),
    };
    let parts: Vec<String> = made.by.iter().map(part).collect();
    writeln!(out, "         {}; the load and the keys are taken to be as they were then", parts.join(", "))?;
    made.leaves_out.iter().try_for_each(|what| writeln!(out, "         without {what}"))
}

/// How the log would be replayed: tables that are not net change are named first.
fn show_outlook(out: &mut dyn Write, replay: &Outlook) -> io::Result<()> {
    writeln!(
        out,
        "Replay   {}{} row changes of {} tables, {} definitions, {} transactions one by one",
        replay.rows,
        replay.of_rows.map_or_else(String::new, |all| format!(" of {all}")),
        replay.tables.len(),
        replay.definitions,
        replay.one_by_one
    )?;
    let mut tables: Vec<_> = replay.tables.iter().collect();
    tables.sort_by_key(|table| table.class == "net");
    for table in tables.iter().take(NAMES_SHOWN) {
        let fences = match table.fences {
            0 => String::new(),
            count => format!("; {count} definitions are fences"),
        };
        writeln!(
            out,
            "         {:<9} {}  {} rows; {}{fences}",
            table.class, table.table, table.rows, table.why
        )?;
    }
    let more = tables.len().saturating_sub(NAMES_SHOWN);
    if more > 0 {
        writeln!(out, "         and {more} more tables")?;
    }
    for line in &replay.replay_settings {
        writeln!(out, "         server with {line}")?;
    }
    for line in &replay.refused {
        writeln!(out, "REFUSED  {line}")?;
    }
    for line in &replay.unsafe_statements {
        writeln!(out, "Unsafe   {line}")?;
    }
    Ok(())
}

/// Names of a kind that are shown to people; JSON has all of them.
const NAMES_SHOWN: usize = 20;

fn show_delta(out: &mut dyn Write, delta: &DeltaView) -> io::Result<()> {
    let (kept, written) = (size(delta.bytes_kept), size(delta.bytes_written));
    writeln!(out, "Keeps    {} files as they are; {kept} of blocks in all", delta.files_kept)?;
    writeln!(out, "Writes   {written} of blocks; {} files are made", delta.files_made)?;
    let rest = |out: &mut dyn Write, all: usize| match all.saturating_sub(NAMES_SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "         and {more} more"),
    };
    for (path, bytes) in delta.rewritten.iter().take(NAMES_SHOWN) {
        writeln!(out, "         rewrites {path}, {}", size(*bytes))?;
    }
    rest(out, delta.rewritten.len())?;
    for path in delta.removed.iter().take(NAMES_SHOWN) {
        writeln!(out, "Removes  {path}")?;
    }
    rest(out, delta.removed.len())
}

/// A place with its preposition: brackets bring their own.
fn at(place: &str) -> String {
    if place.starts_with("between") { place.to_owned() } else { format!("at {place}") }
}

pub(super) fn show_restored(out: &mut dyn Write, view: &RestoredView) -> io::Result<()> {
    writeln!(out, "Restored '{}' to {} in {}.", view.server, view.reached, view.into)?;
    show_evidence(out, view)?;
    match (&view.socket, view.port) {
        (Some(socket), Some(port)) => {
            writeln!(out, "  listens on   127.0.0.1:{port} and {socket}, read-only")?;
        }
        _ if view.start_with.is_some() => writeln!(out, "  the server is stopped")?,
        // A folder that is no server's is whole as it lies there.
        _ => return Ok(()),
    }
    writeln!(out, "next: holdfast restore finish {}", view.into)
}

/// What was proved, what was not looked at, and what is missing.
pub(super) fn show_evidence(out: &mut dyn Write, view: &RestoredView) -> io::Result<()> {
    if let Some(done) = view.report.went_on_after {
        writeln!(out, "  went on      where an earlier run stopped, behind {done} transactions of the log")?;
    }
    for line in &view.evidence {
        writeln!(out, "  proved       {line}")?;
    }
    for line in &view.not_checked {
        writeln!(out, "  not checked  {line}")?;
    }
    for line in &view.report.lacking {
        writeln!(out, "  LACKS        {line}")?;
    }
    for line in &view.report.replay_settings {
        writeln!(out, "  replay with  {line}")?;
    }
    for line in &view.report.remarks {
        writeln!(out, "  note         {line}")?;
    }
    for line in view.missing.iter().filter(|line| !view.report.lacking.contains(line)) {
        writeln!(out, "  note         {line}")?;
    }
    let times: Vec<String> =
        view.phases.iter().map(|p| format!("{} {}", p.name, duration(p.micros))).collect();
    writeln!(out, "  took         {}", times.join(", "))
}

pub(super) fn fsck(common: &Common, args: &FsckArgs, output: Output) -> std::result::Result<ExitCode, Stop> {
    let mut arguments: Vec<OsString> = vec!["holdfast fsck".into(), place(common)?.into()];
    if let Some(kit) = &common.recovery_kit {
        arguments.extend(["--kit".into(), kit.into()]);
    } else if let Some(file) = &common.key_file {
        arguments.extend(["--key-file".into(), file.into()]);
    } else if let Some(file) = &common.passphrase_file {
        arguments.extend(["--passphrase-file".into(), file.into()]);
    } else if let Some(command) = &common.passphrase_command {
        arguments.extend(["--passphrase-command".into(), command.into()]);
    }
    let flags = [
        (args.full, "--full"),
        (args.repair, "--repair"),
        (args.rebuild_index, "--rebuild-index"),
        (args.dry_run, "--dry-run"),
        (output.json, "--json"),
    ];
    arguments.extend(flags.iter().filter(|(given, _)| *given).map(|(_, flag)| OsString::from(flag)));
    Ok(holdfast_fsck::command::run(arguments))
}

pub(super) fn scrub(
    common: &Common,
    output: Output,
    rate: Option<u64>,
    time_max: Option<Duration>,
) -> std::result::Result<u8, Stop> {
    let catalogue = open(common)?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let rate = rate.map(|mib| mib.saturating_mul(1 << 20));
    let done = holdfast_appliance::scrub::scrub(&catalogue, rate, time_max, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| {
        writeln!(out, "Scrubbed {} segments, {}.", view.segments, size(view.bytes))?;
        view.healed.iter().try_for_each(|id| writeln!(out, "healed  segment {id}"))?;
        view.renewed
            .iter()
            .try_for_each(|name| writeln!(out, "healed  {name}, written anew from another copy"))?;
        view.left.iter().try_for_each(|why| writeln!(out, "LEFT    {why}"))?;
        view.lost
            .iter()
            .try_for_each(|id| writeln!(out, "LOST    segment {id} has more damage than its parity"))?;
        match (view.lost.is_empty() && view.left.is_empty(), view.round_over) {
            (false, _) => writeln!(out, "next: holdfast fsck --full, which names what depends on it"),
            (true, true) => writeln!(out, "Everything was read since {}.", show_time(view.round_began)),
            (true, false) => writeln!(out, "next: holdfast scrub goes on where this run stopped"),
        }
    })?;
    Ok(if view.lost.is_empty() && view.left.is_empty() { DONE } else { DAMAGED })
}
