//! The `holdfast` command: arguments in, sentences or JSON out.
//!
//! Owns arguments, output and progress; everything else is a call into
//! `holdfast-appliance`.

mod args;
mod client;
mod output;
mod passphrase;
mod progress;
mod signals;
mod verbs;

use args::Cli;
use clap::{CommandFactory, Parser};
use holdfast_appliance::error::Code;
use output::Output;
use std::process::ExitCode;

fn main() -> ExitCode {
    holdfast_io::cores::forbid();
    let cli = Cli::parse();
    let output = Output { json: cli.common.json };
    if let args::Verb::Completion { shell } = &cli.verb {
        clap_complete::generate(*shell, &mut Cli::command(), "holdfast", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    match verbs::run(cli) {
        Ok(status) => status,
        // Whoever read our output went away; that is his right.
        Err(verbs::Stop::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(verbs::Stop::Output(error)) => {
            output.error(&holdfast_appliance::error::Error::failed(format!(
                "Standard output can't be written: {error}."
            )));
            ExitCode::from(Code::Failed.exit_status())
        }
        Err(verbs::Stop::Error(error)) => {
            output.error(&error);
            ExitCode::from(error.code.exit_status())
        }
    }
}
