//! `init`, `server`, `doctor`.

use super::{DONE, DONE_WITH_WARNINGS, Stop, open, place};
use crate::args::{Common, ServerAdd, ServerVerb, TlsArg};
use crate::output::{Output, table};
use crate::passphrase;
use holdfast_appliance::doctor::{Finding, Grade};
use holdfast_appliance::error::Error;
use holdfast_appliance::fail_over::host_and_port;
use holdfast_appliance::init::{self, KitFile};
use holdfast_appliance::server::{self, Added};
use holdfast_appliance::settings::{Environment, Login, Tls};
use holdfast_appliance::time::show_time_both;
use holdfast_appliance::views::ServerView;
use holdfast_appliance::{ServerKind, catalogue::Catalogue, server_lock};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// Exit status of a doctor that found something that must be mended.
const NOT_FIT: u8 = 1;

pub(super) fn init(
    common: &Common,
    output: Output,
    at: Option<PathBuf>,
    kit: Option<PathBuf>,
) -> Result<u8, Stop> {
    let place = match at {
        Some(at) => at,
        None => place(common)?,
    };
    let environment = Environment::read()?;
    if kit.is_none() && !std::io::stdout().is_terminal() {
        return Err(Error::usage("The recovery kit would go into a pipe or a log, where it is not safe.")
            .with_next("use --kit FILE, and move that file off this host afterwards")
            .into());
    }
    let key = passphrase::new_key(common)?;
    let kit_file = kit.as_deref().map(KitFile::reserve).transpose()?;
    let program = concat!("holdfast ", env!("CARGO_PKG_VERSION"));
    let made = match init::init(&environment, &place, &key, program) {
        Ok(made) => made,
        Err(error) => {
            if let Some(file) = kit_file {
                file.discard();
            }
            return Err(error.into());
        }
    };
    let on_terminal = kit_file.is_none();
    if let Some(file) = kit_file {
        file.write(&made.kit)?;
    }
    let answer = serde_json::json!({
        "repository": made.repository, "place": place, "recovery_kit_file": kit,
    });
    output.answer(&answer, |out| {
        writeln!(out, "Made the repository {} in {}.", made.repository, place.display())?;
        match &kit {
            Some(file) => writeln!(
                out,
                "The recovery kit is in {}. Keep it on another host, or print it.",
                file.display()
            ),
            None => writeln!(out, "Print this and lock it away:\n"),
        }
    })?;
    if on_terminal {
        writeln!(std::io::stdout(), "{}", made.kit.as_str())?;
    }
    Ok(DONE)
}

pub(super) fn server(common: &Common, output: Output, verb: ServerVerb) -> Result<u8, Stop> {
    let catalogue = open(common)?;
    match verb {
        ServerVerb::Add(add) => {
            let answer = server::add(&catalogue, added(*add)?)?;
            let view = &answer.server;
            output.answer(&answer, |out| {
                writeln!(out, "Added '{}': {} at {}.", view.name, view.engine, view.place)?;
                for warning in &answer.warnings {
                    writeln!(out, "warning: {warning}")?;
                }
                writeln!(
                    out,
                    "next: holdfast {} {}",
                    if view.engine == "folder" { "backup" } else { "doctor" },
                    view.name
                )
            })?;
            if !answer.warnings.is_empty() {
                return Ok(super::DONE_WITH_WARNINGS);
            }
        }
        ServerVerb::List { removed } => {
            let views = if removed { server_lock::removed(&catalogue)? } else { server::list(&catalogue)? };
            output.answer(&serde_json::json!({ "servers": views }), |out| {
                let rows: Vec<Vec<String>> = views.iter().map(row).collect();
                table(out, &["NAME", "ENGINE", "PLACE", "BACKUPS", "LOGIN"], &rows)
            })?;
        }
        ServerVerb::Show { name } => {
            let view = server::show(&catalogue, &name)?;
            let lock = server_lock::lock_of(&catalogue, &name)?;
            let answer = Shown { view: &view, lock: &lock };
            output.answer(&answer, |out| {
                show(out, &view)?;
                if lock.locked { super::lock::say(out, &lock) } else { Ok(()) }
            })?;
        }
        // The others are verbs of their own files.
        _ => {}
    }
    Ok(DONE)
}

/// A server with its lock.
#[derive(serde::Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    view: &'a ServerView,
    lock: &'a server_lock::LockView,
}

fn row(view: &ServerView) -> Vec<String> {
    let login = if view.engine == "folder" {
        "not needed"
    } else if view.login_known {
        "known"
    } else {
        "unknown here"
    };
    vec![view.name.clone(), view.engine.clone(), view.place.clone(), view.backups.to_string(), login.into()]
}

fn show(out: &mut dyn Write, view: &ServerView) -> std::io::Result<()> {
    writeln!(out, "name     {}", view.name)?;
    writeln!(out, "engine   {}", view.engine)?;
    writeln!(out, "place    {}", view.place)?;
    if let Some(uuid) = &view.uuid {
        writeln!(out, "uuid     {uuid}")?;
    }
    writeln!(out, "added    {}", show_time_both(view.added))?;
    if let Some(origin) = &view.origin {
        writeln!(out, "origin   {}", origin.words())?;
    }
    writeln!(out, "backups  {}", view.backups)
}

fn added(add: ServerAdd) -> Result<Added, Error> {
    let mut hosts = Vec::new();
    for text in add.host.iter().flat_map(|host| host.split(',')) {
        let host = host_and_port(text.trim(), add.port)?;
        if hosts.contains(&host) {
            return Err(Error::usage(format!("The host {}:{} is named twice.", host.0, host.1)));
        }
        hosts.push(host);
    }
    let kind = match (&add.folder, &add.socket, hosts.first()) {
        (Some(folder), _, _) => ServerKind::Folder { path: text(folder)? },
        (None, Some(socket), _) => {
            ServerKind::Network { host: String::new(), port: 0, socket: Some(text(socket)?) }
        }
        (None, None, Some((host, port))) => {
            ServerKind::Network { host: host.clone(), port: *port, socket: None }
        }
        (None, None, None) => {
            return Err(Error::usage(format!("Where is the server '{}'?", add.name))
                .with_next("use --host HOST, --socket FILE, or --folder DIR"));
        }
    };
    let absolute = |path: Option<PathBuf>| -> Result<Option<PathBuf>, Error> {
        path.map(|p| {
            std::path::absolute(&p)
                .map_err(|error| Error::usage(format!("The path {} can't be used: {error}.", p.display())))
        })
        .transpose()
    };
    let login = Login {
        user: add.user,
        password_file: absolute(add.password_file)?,
        defaults_file: absolute(add.defaults_file)?,
        tls: match add.tls {
            TlsArg::Disabled => Tls::Disabled,
            TlsArg::Preferred => Tls::Preferred,
            TlsArg::Required => Tls::Required,
            TlsArg::VerifyCa => Tls::VerifyCa,
            TlsArg::VerifyIdentity => Tls::VerifyIdentity,
        },
        tls_ca: absolute(add.tls_ca)?,
        server_public_key: absolute(add.server_public_key_path)?,
        get_server_public_key: add.get_server_public_key,
        // A host alone is in the repository; it may move there.
        hosts: hosts.iter().skip_while(|_| hosts.len() < 2).map(host_words).collect(),
        fail_over_after_s: (hosts.len() > 1).then_some(add.fail_over_after),
        backup_command: add
            .backup_command
            .map(|c| c.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        ..Login::default()
    };
    Ok(Added { name: add.name, kind, login, rebuilt: add.rebuilt })
}

fn host_words((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn text(path: &std::path::Path) -> Result<String, Error> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("The path {} is not valid UTF-8.", path.display())))
}

pub(super) fn doctor(common: &Common, output: Output, name: &str) -> Result<u8, Stop> {
    let catalogue: Catalogue = open(common)?;
    let findings = holdfast_appliance::doctor::doctor(&catalogue, name)?;
    let worst = |grade| findings.iter().any(|f| f.grade == grade);
    let status = if worst(Grade::Failed) {
        NOT_FIT
    } else if worst(Grade::Warning) {
        DONE_WITH_WARNINGS
    } else {
        DONE
    };
    let answer = serde_json::json!({ "server": name, "fit": !worst(Grade::Failed), "findings": findings });
    output.answer(&answer, |out| findings.iter().try_for_each(|finding| say(out, finding)))?;
    Ok(status)
}

fn say(out: &mut dyn Write, finding: &Finding) -> std::io::Result<()> {
    let grade = match finding.grade {
        Grade::Ok => "OK",
        Grade::Warning => "WARNING",
        Grade::Failed => "FAILED",
    };
    writeln!(out, "{grade:<8} {:<18} {}", finding.probe, finding.found)?;
    match &finding.fix {
        Some(fix) => writeln!(out, "         {:<18} {fix}", ""),
        None => Ok(()),
    }
}
