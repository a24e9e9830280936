//! What takes something away, asked of the daemon, and the second person's word about it.

use super::daemon::{number, rows, text, when};
use super::keep::held;
use super::lock::{confirmed, removed};
use super::{DONE, DONE_WITH_WARNINGS, Stop};
use crate::args::{ApprovalVerb, ServerVerb};
use crate::client::{Client, encoded};
use crate::output::{Output, table};
use serde_json::{Value, json};
use std::io::{self, Write};

pub(super) fn approvals(client: &Client, output: Output, verb: &ApprovalVerb) -> Result<u8, Stop> {
    let (id, word) = match verb {
        ApprovalVerb::List => {
            let answer = client.get("/approvals")?;
            output.answer(&answer, |out| show(out, &answer))?;
            return Ok(DONE);
        }
        ApprovalVerb::Approve { id } => (id, "approve"),
        ApprovalVerb::Reject { id } => (id, "reject"),
    };
    let request = client.ask("POST", &format!("/approvals/{id}/{word}"), None)?;
    output.answer(&request, |out| table_of(out, std::slice::from_ref(&request)))?;
    let failed = request.pointer("/failure").is_some_and(|f| !f.is_null());
    Ok(if failed { DONE_WITH_WARNINGS } else { DONE })
}

pub(super) fn forget(client: &Client, output: Output, backup: &str, reason: &str) -> Result<u8, Stop> {
    let body = json!({ "reason": reason });
    let answer = client.ask("DELETE", &format!("/backups/{}", encoded(backup)), Some(&body))?;
    output.answer(&answer, |out| {
        if waits(&answer) {
            return told(out, &answer);
        }
        writeln!(out, "Forgot {} of '{}'.", text(&answer, "/id"), text(&answer, "/server"))?;
        writeln!(out, "next: holdfast prune")
    })?;
    Ok(DONE)
}

/// Asks for something to be done with the backup that is called so.
fn of_backup(client: &Client, backup: &str, what: &str, body: &Value) -> Result<Value, Stop> {
    Ok(client.ask("POST", &format!("/backups/{}/{what}", encoded(backup)), Some(body))?)
}

pub(super) fn lock(client: &Client, output: Output, backup: &str, until: &str) -> Result<u8, Stop> {
    let view = of_backup(client, backup, "lock", &json!({ "until": until }))?;
    output.answer(&view, |out| {
        let (id, until) = (text(&view, "/backup/id"), text(&view, "/locked_until"));
        writeln!(out, "The backup {id} is locked until {until}.")
    })?;
    Ok(DONE)
}

pub(super) fn hold(client: &Client, output: Output, backup: &str, reason: &str) -> Result<u8, Stop> {
    let view = of_backup(client, backup, "hold", &json!({ "reason": reason }))?;
    output.answer(&view, |out| held(out, text(&view, "/id"), text(&view, "/server")))?;
    Ok(DONE)
}

pub(super) fn release(client: &Client, output: Output, backup: &str, reason: &str) -> Result<u8, Stop> {
    let answer = of_backup(client, backup, "unhold", &json!({ "reason": reason }))?;
    output.answer(&answer, |out| {
        if waits(&answer) {
            return told(out, &answer);
        }
        writeln!(out, "The backup {} of '{}' is not held.", text(&answer, "/id"), text(&answer, "/server"))
    })?;
    Ok(DONE)
}

pub(super) fn server(client: &Client, output: Output, verb: ServerVerb) -> Result<u8, Stop> {
    let path = |name: &str, rest: &str| format!("/servers/{}{rest}", encoded(name));
    match verb {
        ServerVerb::Lock { name, reason, everything } => {
            let body = json!({ "reason": reason, "everything": everything });
            let lock = client.ask("POST", &path(&name, "/lock"), Some(&body))?;
            output.answer(&lock, |out| match lock.pointer("/terms").filter(|terms| !terms.is_null()) {
                Some(terms) => writeln!(out, "'{name}' is locked; retention keeps at least {terms}."),
                None => writeln!(out, "'{name}' is locked, and nothing of it is forgotten."),
            })?;
        }
        ServerVerb::Unlock { name, reason } => {
            let answer = client.ask("POST", &path(&name, "/unlock"), Some(&json!({ "reason": reason })))?;
            output.answer(&answer, |out| {
                if waits(&answer) {
                    told(out, &answer)
                } else {
                    writeln!(out, "'{name}' is not locked any more.")
                }
            })?;
        }
        ServerVerb::Remove { name, confirm } => {
            confirmed(&name, &confirm)?;
            let answer = client.ask("DELETE", &path(&name, ""), None)?;
            output.answer(&answer, |out| {
                if waits(&answer) {
                    told(out, &answer)
                } else {
                    removed(out, &name, number(&answer, "/backups"))
                }
            })?;
        }
        ServerVerb::Undelete { name } => {
            let view = client.ask("POST", &path(&name, "/undelete"), None)?;
            output.answer(&view, |out| {
                writeln!(out, "'{name}' is back, with {} backup(s).", number(&view, "/backups"))
            })?;
        }
        ServerVerb::Add(_) | ServerVerb::List { .. } | ServerVerb::Show { .. } => {}
    }
    Ok(DONE)
}

/// Whether the answer is a request that waits.
fn waits(answer: &Value) -> bool {
    text(answer, "/decision") == "waiting"
}

fn told(out: &mut dyn Write, request: &Value) -> io::Result<()> {
    let id = number(request, "/id");
    writeln!(out, "The request {id} waits for a second person, until {}.", text(request, "/until"))?;
    writeln!(out, "next: another administrator runs: holdfast approvals approve {id} --token-file FILE")
}

fn show(out: &mut dyn Write, answer: &Value) -> io::Result<()> {
    let requests = rows(answer, "/requests");
    if answer.pointer("/required").and_then(Value::as_bool) != Some(true) {
        writeln!(out, "Nobody has to agree: approval.required is not set in the daemon's configuration.")?;
    }
    if requests.is_empty() {
        return writeln!(out, "There was no request yet.");
    }
    table_of(out, requests)
}

fn table_of(out: &mut dyn Write, requests: &[Value]) -> io::Result<()> {
    let cells = |request: &Value| {
        let of = |path: &str| text(request, path).to_owned();
        let outcome = match request.pointer("/failure/message").and_then(Value::as_str) {
            Some(why) => why.to_owned(),
            None if request.pointer("/result").is_some_and(|r| !r.is_null()) => "done".to_owned(),
            None => "-".to_owned(),
        };
        vec![
            number(request, "/id").to_string(),
            of("/text"),
            of("/by"),
            when(request, "/asked"),
            when(request, "/until"),
            of("/decision"),
            of("/decided_by"),
            outcome,
        ]
    };
    let header = ["REQUEST", "WHAT", "BY", "ASKED", "UNTIL", "DECISION", "DECIDED BY", "OUTCOME"];
    table(out, &header, &requests.iter().map(cells).collect::<Vec<_>>())
}
