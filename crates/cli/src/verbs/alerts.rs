//! `alerts`: what the daemon worries about, and whether anybody hears of it.

use super::daemon::{number, rows, text, when};
use super::{DONE, DONE_WITH_WARNINGS, Stop};
use crate::client::Client;
use crate::output::{Output, table};
use serde_json::Value;
use std::io::{self, Write};

pub(super) fn alerts(client: &Client, output: Output, test: bool) -> Result<u8, Stop> {
    if test {
        let answer = client.ask("POST", "/alerts/test", None)?;
        output.answer(&answer, |out| show_tested(out, rows(&answer, "/receivers")))?;
        let taken = |r: &Value| r.pointer("/taken").and_then(Value::as_bool) == Some(true);
        return Ok(if rows(&answer, "/receivers").iter().all(taken) { DONE } else { DONE_WITH_WARNINGS });
    }
    let answer = client.get("/alerts")?;
    output.answer(&answer, |out| show(out, &answer))?;
    Ok(if rows(&answer, "/alerts").is_empty() { DONE } else { DONE_WITH_WARNINGS })
}

fn show(out: &mut dyn Write, answer: &Value) -> io::Result<()> {
    let open = rows(answer, "/alerts");
    if open.is_empty() {
        writeln!(out, "There is no open alert.")?;
    } else {
        let cells = |alert: &Value| {
            let server = alert.pointer("/server").and_then(Value::as_str).unwrap_or("repository");
            let of = |path: &str| text(alert, path).to_owned();
            vec![server.to_owned(), of("/level"), of("/code"), when(alert, "/since"), of("/text")]
        };
        let cells: Vec<Vec<String>> = open.iter().map(cells).collect();
        table(out, &["SERVER", "LEVEL", "CODE", "SINCE", ""], &cells)?;
    }
    writeln!(
        out,
        "Told: {} webhook(s), {} recipient(s) of mail; {} message(s) on the way.",
        number(answer, "/webhooks"),
        number(answer, "/people"),
        number(answer, "/waiting")
    )
}

fn show_tested(out: &mut dyn Write, receivers: &[Value]) -> io::Result<()> {
    for receiver in receivers {
        let trouble = receiver.pointer("/trouble").and_then(Value::as_str);
        let verdict = trouble.map_or_else(|| "taken".to_owned(), |why| format!("NOT taken: {why}"));
        writeln!(out, "{} {}: {verdict}", text(receiver, "/kind"), text(receiver, "/receiver"))?;
    }
    Ok(())
}
