//! `forget`, `expire`, `lock`, `prune`.

use super::{DONE, DONE_WITH_WARNINGS, Stop, open};
use crate::args::{Common, Expire, Prune};
use crate::output::{Output, size, table};
use holdfast_appliance::keep::{self, Expired, Wanted};
use holdfast_appliance::own;
use holdfast_appliance::policy::{Keep, Reason};
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::prune::{self, Count, Options, PruneView};
use holdfast_appliance::time::{parse_time, show_time};
use std::io::{self, Write};

pub(super) fn forget(
    common: &Common,
    output: Output,
    backup: &str,
    reason: &str,
    dry_run: bool,
) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let view = keep::forget(&catalogue, backup, reason, dry_run)?;
    let answer = serde_json::json!({ "dry_run": dry_run, "backup": view });
    output.answer(&answer, |out| {
        let (id, server, at) = (&view.id, &view.server, show_time(view.completed));
        if dry_run {
            return writeln!(out, "Would forget {id} of '{server}', completed {at}.");
        }
        writeln!(out, "Forgot {id} of '{server}', completed {at}.")?;
        writeln!(out, "next: holdfast prune")
    })?;
    Ok(DONE)
}

pub(super) fn expire(common: &Common, output: Output, args: &Expire) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let keep = Keep {
        last: args.keep_last,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
    };
    let wanted = Wanted { keep, within: args.keep_within };
    let rows = keep::expire(&catalogue, &args.name, wanted, args.dry_run)?;
    let (kept, forgotten): (Vec<&Expired>, Vec<&Expired>) = rows.iter().partition(|r| !r.reasons.is_empty());
    let answer = serde_json::json!({ "dry_run": args.dry_run, "kept": kept, "forgotten": forgotten });
    output.answer(&answer, |out| {
        let cells = |row: &Expired| {
            let fate = if row.reasons.is_empty() { "forget" } else { "keep" };
            let why: Vec<&str> = row.reasons.iter().map(reason).collect();
            vec![
                row.backup.id.clone(),
                show_time(row.backup.completed),
                fate.to_owned(),
                why.join(", "),
                row.locked_until.map_or_else(|| "-".into(), show_time),
            ]
        };
        let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
        table(out, &["ID", "COMPLETED (UTC)", "", "WHY", "LOCKED UNTIL"], &cells)?;
        let words = if args.dry_run { "would be forgotten" } else { "forgotten" };
        writeln!(out, "{} kept, {} {words}.", kept.len(), forgotten.len())?;
        if args.dry_run || forgotten.is_empty() { Ok(()) } else { writeln!(out, "next: holdfast prune") }
    })?;
    Ok(DONE)
}

fn reason(reason: &Reason) -> &'static str {
    match reason {
        Reason::Window => "window",
        Reason::Anchor => "the window begins behind it",
        Reason::Held => "held",
        Reason::OwnDate => "its own date",
        Reason::Last => "newest",
        Reason::Daily => "daily",
        Reason::Weekly => "weekly",
        Reason::Monthly => "monthly",
        Reason::Yearly => "yearly",
        Reason::NewestProved => "newest proved",
    }
}

pub(super) fn lock(common: &Common, output: Output, backup: &str, until: &str) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let row = keep::lock(&catalogue, backup, parse_time(until)?)?;
    output.answer(&row, |out| {
        let until = row.locked_until.map_or_else(|| "?".into(), show_time);
        writeln!(out, "The backup {} is locked until {until}.", row.backup.id)
    })?;
    Ok(DONE)
}

pub(super) fn hold(common: &Common, output: Output, backup: &str, reason: &str) -> Result<u8, Stop> {
    let view = own::hold(&open(common)?, backup, reason)?;
    output.answer(&view, |out| held(out, &view.id, &view.server))?;
    Ok(DONE)
}

pub(super) fn held(out: &mut dyn Write, id: &str, server: &str) -> io::Result<()> {
    writeln!(out, "The backup {id} of '{server}' is held until it is released.")?;
    writeln!(out, "next: holdfast unhold {id} releases it")
}

pub(super) fn release(common: &Common, output: Output, backup: &str, reason: &str) -> Result<u8, Stop> {
    let view = own::release(&open(common)?, backup, reason, false)?;
    output.answer(&view, |out| {
        let until = view.keep_until.map(|until| format!(" It is kept until {} still.", show_time(until)));
        writeln!(out, "The backup {} of '{}' is not held.{}", view.id, view.server, until.unwrap_or_default())
    })?;
    Ok(DONE)
}

pub(super) fn prune(common: &Common, output: Output, args: &Prune) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let options = Options { dead_percent_max: args.max_dead, grace: args.grace };
    let view = prune::prune(&catalogue, options, args.dry_run, &Unwatched)?;
    output.answer(&view, |out| say(out, &view))?;
    Ok(if view.waiting > 0 || !view.damaged.is_empty() { DONE_WITH_WARNINGS } else { DONE })
}

fn say(out: &mut dyn Write, view: &PruneView) -> io::Result<()> {
    let line = |out: &mut dyn Write, what: &str, count: &Count| {
        if count.objects == 0 {
            Ok(())
        } else {
            writeln!(out, "{what:<34} {:>7}  {}", count.objects, size(count.bytes))
        }
    };
    line(out, "delete: nobody needs them", &view.dead)?;
    line(out, "delete: left by dead processes", &view.orphans)?;
    line(out, "delete: carried or deleted before", &view.superseded)?;
    line(out, "delete: log before every backup", &view.logs)?;
    line(out, "compact: partly dead or small", &view.compacted)?;
    line(out, "  into", &view.carriers)?;
    let words = if view.dry_run { "would be freed" } else { "freed" };
    writeln!(out, "{:<34} {:>7}  {}", words, "", size(view.freed_bytes))?;
    writeln!(
        out,
        "segments {} -> {}, {} -> {}, dead {:.1} % -> {:.1} %",
        view.before.segments,
        view.after.segments,
        size(view.before.bytes),
        size(view.after.bytes),
        view.before.dead_percent,
        view.after.dead_percent
    )?;
    if view.waiting > 0 {
        writeln!(
            out,
            "{} segments wait for a backup or a restore at work: run holdfast prune again after it.",
            view.waiting
        )?;
    }
    view.damaged.iter().try_for_each(|what| writeln!(out, "left alone: {what}"))
}
