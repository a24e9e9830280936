//! `key list|add|remove|rotate|export`.

use super::{DAMAGED, DONE, Stop, open};
use crate::args::{Common, KeyVerb, NewKey};
use crate::output::{Output, size, table};
use crate::passphrase;
use crate::progress::Meter;
use crate::signals::stop_flag;
use holdfast_appliance::catalogue::Key;
use holdfast_appliance::error::Error;
use holdfast_appliance::init::KitFile;
use holdfast_appliance::key::{self, KeyView, RekeyView, RotatedView};
use holdfast_appliance::time::show_time;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

pub(super) fn key(common: &Common, output: Output, verb: KeyVerb) -> Result<u8, Stop> {
    match verb {
        KeyVerb::List => list(common, output),
        KeyVerb::Add { new, label } => add(common, output, new, &label),
        KeyVerb::Remove { slot } => {
            let view = key::remove(&open(common)?, &slot)?;
            output.answer(&view, |out| {
                writeln!(out, "Removed the {} '{}' ({}).", view.kind, view.label, view.id)?;
                writeln!(
                    out,
                    "next: holdfast key rotate --rekey, if an old copy of the keyring may be in wrong hands"
                )
            })?;
            Ok(DONE)
        }
        KeyVerb::Rotate { rekey, dry_run, keep_passphrase_file, keep_key_file } => {
            let (current, keys) = kept_keys(common, keep_passphrase_file, keep_key_file)?;
            match (rekey, dry_run) {
                (true, true) => {
                    let view = key::plan_rekey(&super::open_with(common, &current)?, &keys)?;
                    output.answer(&view, |out| planned(out, &view))?;
                    Ok(DONE)
                }
                (true, false) => rekeyed(common, output, &keys),
                (false, _) => rotate(common, output, &current, &keys),
            }
        }
        KeyVerb::Export { kit } => export(common, output, kit),
    }
}

fn list(common: &Common, output: Output) -> Result<u8, Stop> {
    let views = key::list(&open(common)?)?;
    output.answer(&serde_json::json!({ "keys": views }), |out| {
        let rows: Vec<Vec<String>> = views.iter().map(row).collect();
        table(out, &["ID", "KIND", "ADDED (UTC)", "LABEL", ""], &rows)
    })?;
    Ok(DONE)
}

fn row(view: &KeyView) -> Vec<String> {
    let current = if view.current { "in use now" } else { "" };
    vec![view.id.clone(), view.kind.into(), show_time(view.added), view.label.clone(), current.into()]
}

fn add(common: &Common, output: Output, new: NewKey, label: &str) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    let key = match new {
        NewKey { new_passphrase_file: Some(file), .. } => Key::PassphraseFile(file),
        NewKey { new_passphrase_command: Some(command), .. } => Key::PassphraseCommand(command),
        NewKey { new_key_file: Some(file), .. } => Key::KeyFile(file),
        NewKey { .. } => passphrase::new_passphrase("The new passphrase: ")?,
    };
    let view = key::add(&catalogue, &key, label)?;
    output.answer(&view, |out| writeln!(out, "Added the {} '{}' ({}).", view.kind, view.label, view.id))?;
    Ok(DONE)
}

/// The key that opens the repository, and those whose ways in stay.
fn kept_keys(
    common: &Common,
    passphrase_files: Vec<PathBuf>,
    key_files: Vec<PathBuf>,
) -> Result<(Key, Vec<Key>), Stop> {
    let current = passphrase::key(common)?;
    if matches!(current, Key::RecoveryKit(_)) && passphrase_files.is_empty() && key_files.is_empty() {
        return Err(Error::usage("With a recovery kit alone no way in would be left.")
            .with_next("add a passphrase first: holdfast key add; then rotate with it")
            .into());
    }
    let mut keys: Vec<Key> = Vec::new();
    if !matches!(current, Key::RecoveryKit(_)) {
        keys.push(current.clone());
    }
    keys.extend(passphrase_files.into_iter().map(Key::PassphraseFile));
    keys.extend(key_files.into_iter().map(Key::KeyFile));
    Ok((current, keys))
}

fn rotate(common: &Common, output: Output, current: &Key, keys: &[Key]) -> Result<u8, Stop> {
    let view = key::rotate(&super::open_with(common, current)?, keys)?;
    output.answer(&view, |out| {
        slots(out, &view, "are", ["kept", "removed"])?;
        writeln!(out, "next: holdfast key export, because kits made before open nothing that is newer")
    })?;
    Ok(DONE)
}

fn slots(out: &mut dyn Write, view: &RotatedView, are: &str, [kept, removed]: [&str; 2]) -> io::Result<()> {
    writeln!(out, "The keys {are} of generation {} now.", view.generation)?;
    for (slots, word) in [(&view.kept, kept), (&view.removed, removed)] {
        for slot in slots {
            writeln!(out, "  {word:<9} {} {} '{}'", slot.id, slot.kind, slot.label)?;
        }
    }
    Ok(())
}

fn planned(out: &mut dyn Write, view: &RekeyView) -> io::Result<()> {
    if view.resumed {
        writeln!(out, "A re-encryption was begun and would go on.")?;
    }
    slots(out, &view.rotated, "would be", ["stays", "goes"])?;
    objects(out, "would be sealed anew", view)?;
    writeln!(out, "free space needed: {}", size(view.free_bytes))?;
    if view.quarantined > 0 {
        writeln!(
            out,
            "refused as long as quarantine/ holds {} objects sealed under old keys",
            view.quarantined
        )?;
        writeln!(out, "next: move quarantine/ out of the repository; no backup needs what is in it")?;
    }
    if !view.rotated.removed.is_empty() {
        writeln!(
            out,
            "next: --keep-passphrase-file FILE or --keep-key-file FILE for each way in that is to stay"
        )?;
    }
    Ok(())
}

fn objects(out: &mut dyn Write, words: &str, view: &RekeyView) -> io::Result<()> {
    let (segments, logs, records) = (view.segments, view.logs, view.records);
    writeln!(out, "{words}: {segments} segments, {logs} logs, {records} records; {}", size(view.bytes))
}

fn rekeyed(common: &Common, output: Output, keys: &[Key]) -> Result<u8, Stop> {
    let place = super::place(common)?;
    let environment = holdfast_appliance::settings::Environment::read()?;
    let meter = Meter::new(stop_flag()?, common.quiet);
    let done = key::rekey(&environment, &place, keys, &meter);
    meter.finish();
    let view = done?;
    output.answer(&view, |out| {
        slots(out, &view.rotated, "are", ["kept", "removed"])?;
        objects(out, "sealed anew", &view)?;
        view.left.iter().try_for_each(|what| writeln!(out, "left: {what}"))?;
        if view.left.is_empty() {
            writeln!(
                out,
                "The older keys are gone; what was deleted may still be on the disk until it is written over."
            )?;
            writeln!(out, "next: holdfast key export, because kits made before open nothing")
        } else {
            view.needed_by.iter().try_for_each(|backup| writeln!(out, "needed by: backup {backup}"))?;
            writeln!(out, "The older keys stay because of what is left: its parity does not bring it back.")?;
            writeln!(out, "next: {}; then the same command", leave_behind(&view))
        }
    })?;
    Ok(if view.left.is_empty() { DONE } else { DAMAGED })
}

/// What is to be done about what a re-encryption left.
fn leave_behind(view: &RekeyView) -> String {
    let mut steps = Vec::new();
    if !view.needed_by.is_empty() {
        steps.push("holdfast forget BACKUP for each of these backups, which can't be restored whole, and holdfast prune --grace 0d");
    }
    if view.left.iter().any(|left| left.contains("logs/")) {
        steps.push(
            "for logs, holdfast fsck --repair, or forget the backups that lead into them, and holdfast prune",
        );
    }
    if steps.is_empty() {
        steps.push("holdfast fsck --repair");
    }
    steps.push("if a repair made quarantine/, move that out of the repository");
    steps.join("; ")
}

fn export(common: &Common, output: Output, kit: Option<PathBuf>) -> Result<u8, Stop> {
    if kit.is_none() && (output.json || !std::io::stdout().is_terminal()) {
        return Err(Error::usage("The recovery kit would go into a pipe or a log, where it is not safe.")
            .with_next("use --kit FILE, and move that file off this host afterwards")
            .into());
    }
    let catalogue = open(common)?;
    let text = catalogue.repository.recovery_kit().map_err(|e| catalogue.store_error(e))?.to_text();
    match kit {
        Some(path) => {
            KitFile::reserve(&path)?.write(&text)?;
            output.answer(&serde_json::json!({ "recovery_kit_file": path }), |out| {
                writeln!(
                    out,
                    "The recovery kit is in {}. Keep it on another host, or print it.",
                    path.display()
                )
            })?;
        }
        None => writeln!(std::io::stdout(), "{}", text.as_str())?,
    }
    Ok(DONE)
}
