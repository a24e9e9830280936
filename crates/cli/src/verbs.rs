//! One function a verb: call the appliance, print the answer.

mod alerts;
mod approvals;
mod check;
mod daemon;
mod drill;
mod export;
mod import;
mod in_place;
mod jobs;
mod keep;
mod key;
mod lock;
mod look;
mod report;
mod setup;
mod side;
mod undo;

use crate::args::{Backup, Cli, Common, ServerVerb, Verb};
use crate::client::Client;
use crate::output::Output;
use crate::passphrase;
use clap::CommandFactory;
use holdfast_appliance::backup::Options;
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::copy_from::CopyFrom;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::own::Own;
use holdfast_appliance::settings::Environment;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a verb ended before its end.
#[derive(Debug)]
pub enum Stop {
    /// It failed, and this is what to tell.
    Error(Error),
    /// The answer could not be written.
    Output(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Exit status when everything was done.
const DONE: u8 = 0;
/// Exit status when it was done, and the user should read the warnings.
const DONE_WITH_WARNINGS: u8 = 3;

/// Exit status when something is damaged past repair.
const DAMAGED: u8 = 21;

/// Runs the verb to its exit status.
///
/// # Errors
/// See [`Stop`].
pub fn run(cli: Cli) -> std::result::Result<ExitCode, Stop> {
    let Cli { verb, common } = cli;
    let output = Output { json: common.json };
    let status = match verb {
        Verb::Init { at, kit } => setup::init(&common, output, at, kit),
        Verb::Server(verb) => match verb {
            ServerVerb::Add(_) | ServerVerb::List { .. } | ServerVerb::Show { .. } => {
                setup::server(&common, output, verb)
            }
            _ if common.daemon.is_some() => approvals::server(&client(&common)?, output, verb),
            _ => lock::server(&common, output, verb),
        },
        Verb::Doctor { name } => setup::doctor(&common, output, &name),
        Verb::Backup(args) => {
            let Backup {
                server,
                note,
                name,
                keep_for,
                hold,
                from,
                max_lag,
                or_source,
                jobs,
                force,
                verify_write,
            } = *args;
            let own = Own { name, keep_for, hold };
            if common.daemon.is_some() {
                if !from.is_empty() {
                    return Err(Error::usage(
                        "The daemon copies from the replicas that its configuration names.",
                    )
                    .with_next("set copy_from in the [[server]] section, or leave --from away")
                    .into());
                }
                daemon::backup(&client(&common)?, output, &server, &note, &own, common.quiet)
            } else {
                let verify_sample = verify_write == "sample";
                let copy_from = if from.is_empty() {
                    None
                } else {
                    Some(CopyFrom::new(&from, max_lag.duration(), or_source)?)
                };
                let options =
                    Options { note, jobs, force, verify_sample, own, copy_from, ..Options::default() };
                jobs::backup(&common, output, &server, &options)
            }
        }
        Verb::Archive { name, semi_sync } => jobs::archive(&common, output, &name, semi_sync),
        Verb::List { name } => look::list(&common, output, name.as_deref()),
        Verb::Status { name } if common.daemon.is_some() => {
            daemon::status(&client(&common)?, output, name.as_deref())
        }
        Verb::Status { name } => look::status(&common, output, name.as_deref()),
        Verb::Timeline { name } => look::timeline(&common, output, &name),
        Verb::Find(find) => look::find(&common, output, &find),
        Verb::Show { name, id, limit } => look::show(&common, output, &name, &id, limit),
        Verb::Diff(wanted) => undo::diff(&common, output, &wanted),
        Verb::Undo(wanted) => undo::undo(&common, output, &wanted),
        Verb::Restore(command) => jobs::restore(&common, output, *command),
        Verb::Drill(wanted) if common.daemon.is_some() => {
            drill::by_daemon(&client(&common)?, output, &wanted, common.quiet)
        }
        Verb::Drill(wanted) => drill::drill(&common, output, &wanted),
        Verb::Report(verb) => report::report(&common, output, &verb),
        Verb::Export(wanted) => export::export(&common, output, &wanted),
        Verb::Import(wanted) => import::import(&common, output, &wanted),
        Verb::Forget { backup, reason, dry_run } if common.daemon.is_some() && !dry_run => {
            approvals::forget(&client(&common)?, output, &backup, &reason)
        }
        Verb::Forget { backup, reason, dry_run } => keep::forget(&common, output, &backup, &reason, dry_run),
        Verb::Expire(expire) => keep::expire(&common, output, &expire),
        Verb::Lock { backup, until } if common.daemon.is_some() => {
            approvals::lock(&client(&common)?, output, &backup, &until)
        }
        Verb::Hold { backup, reason } if common.daemon.is_some() => {
            approvals::hold(&client(&common)?, output, &backup, &reason)
        }
        Verb::Unhold { backup, reason } if common.daemon.is_some() => {
            approvals::release(&client(&common)?, output, &backup, &reason)
        }
        Verb::Hold { backup, reason } => keep::hold(&common, output, &backup, &reason),
        Verb::Unhold { backup, reason } => keep::release(&common, output, &backup, &reason),
        Verb::Lock { backup, until } => keep::lock(&common, output, &backup, &until),
        Verb::Prune(prune) => keep::prune(&common, output, &prune),
        Verb::Key(verb) => key::key(&common, output, verb),
        Verb::Fsck(args) => return jobs::fsck(&common, &args, output),
        Verb::Scrub { rate, time_max } => jobs::scrub(&common, output, rate, time_max),
        Verb::Jobs { id, cancel } => daemon::jobs(&client(&common)?, output, id, cancel),
        Verb::Approvals(verb) => approvals::approvals(&client(&common)?, output, &verb),
        Verb::Alerts { test } => alerts::alerts(&client(&common)?, output, test),
        Verb::Check { name, nagios } => check::check(&common, output, name.as_deref(), nagios),
        Verb::Completion { .. } => Ok(DONE),
        Verb::Man { folder } => man(&folder),
    };
    status.map(ExitCode::from)
}

/// One page for the command, and one for each of its verbs.
fn man(folder: &Path) -> std::result::Result<u8, Stop> {
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| {
        Error::failed(format!("The manual pages can't be written to {}: {error}.", folder.display()))
            .with_next("name a folder that is there, and that you may write to")
    })?;
    Ok(DONE)
}

/// The daemon that the user named.
fn client(common: &Common) -> Result<Client> {
    let socket = common.daemon.as_deref().ok_or_else(|| {
        Error::usage("No daemon is named.").with_next("use --daemon SOCKET, or set HOLDFAST_SOCKET")
    })?;
    Client::new(socket, common.token_file.as_deref())
}

/// The repository that the user named.
fn place(common: &Common) -> Result<PathBuf> {
    common.repo.clone().ok_or_else(|| {
        Error::usage("No repository is named.").with_next("use --repo DIR, or set HOLDFAST_REPO")
    })
}

/// Opens the repository that the user named.
fn open(common: &Common) -> Result<Catalogue> {
    // What is wrong with the arguments is said before anybody types a passphrase.
    place(common)?;
    open_with(common, &passphrase::key(common)?)
}

/// Opens the repository that the user named with this key.
fn open_with(common: &Common, key: &Key) -> Result<Catalogue> {
    let environment = Environment::read()?;
    let catalogue = Catalogue::open(environment, &place(common)?, key)?;
    if let Some(damage) = catalogue.repository.damage() {
        let message = format!(
            "{} can be read only, and what is shown may be out of date: {damage}.",
            catalogue.place.display()
        );
        let next = match key {
            Key::RecoveryKit(_) => {
                "use a kit from after the last `holdfast key rotate`, or a passphrase; else `holdfast fsck`"
            }
            _ => "holdfast fsck says what is damaged, and with --repair mends it",
        };
        Output { json: common.json }.warning(&message, next);
    }
    for (name, why) in catalogue.repository.bad_copies() {
        let message =
            format!("{name} in {} can't be read, and another copy serves: {why}.", catalogue.place.display());
        // A scrub refuses a damaged manifest.
        let next = if catalogue.repository.damage().is_some() {
            "holdfast fsck --repair --dry-run says what a repair does about it"
        } else {
            "holdfast scrub writes it anew"
        };
        Output { json: common.json }.warning(&message, next);
    }
    Ok(catalogue)
}
