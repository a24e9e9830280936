//! The program `holdfastd`.

use clap::{CommandFactory, Parser, Subcommand};
use holdfast_appliance::error::Error;
use holdfast_daemon::config::Config;
use holdfast_daemon::daemon::{Daemon, run};
use holdfast_daemon::tokens::{Role, fresh};
use holdfast_daemon::{logging, tokens};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Keeps MySQL and MariaDB servers restorable to any moment, by itself.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/holdfast/holdfast.toml",
        env = "HOLDFASTD_CONFIG"
    )]
    config: PathBuf,
    /// What to do; nothing: run until SIGTERM
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Make a token for the API over the network: printed once, with the lines for the file of tokens
    Token {
        /// What the token is called in the audit log
        name: String,
        /// viewer, operator, restorer or admin
        #[arg(long)]
        role: Role,
    },
    /// Print the manual page
    #[command(hide = true)]
    Man,
    /// The second reader, as the daemon's own checks run it
    #[command(hide = true, disable_help_flag = true)]
    Fsck {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Say whether it can be used, and what it means
    Check,
}

fn main() -> ExitCode {
    holdfast_io::cores::forbid();
    let arguments = Arguments::parse();
    match begin(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfastd: {}", error.message);
            if let Some(next) = &error.next {
                eprintln!("  next: {next}");
            }
            ExitCode::from(error.code.exit_status())
        }
    }
}

fn begin(arguments: Arguments) -> Result<ExitCode, Error> {
    match arguments.verb {
        Some(Verb::Config(ConfigVerb::Check)) => {
            let config = Config::load(&arguments.config)?;
            if let Some(listen) = &config.listen {
                tokens::Tokens::load(&listen.tokens)?;
            }
            println!("{} can be used.", arguments.config.display());
            for (name, policy) in &config.policies {
                println!(
                    "policy {name}: a base every {} at least, any second of the last {} restorable",
                    policy.max_age,
                    if policy.window.0 == 0 { "of all time".to_owned() } else { policy.window.to_string() }
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Man) => {
            let page = clap_mangen::Man::new(Arguments::command());
            page.render(&mut std::io::stdout())
                .map_err(|error| Error::failed(format!("The manual page can't be written: {error}.")))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Token { name, role }) => {
            let (token, lines) = fresh(&name, role)?;
            println!("{}", token.as_str());
            eprintln!(
                "Add to the file of tokens; holdfastd reads it when it is started or told to reload:\n{lines}"
            );
            Ok(ExitCode::SUCCESS)
        }
        Some(Verb::Fsck { arguments }) => {
            // It ends with the daemon that began it, however that ends.
            let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
            let arguments = std::iter::once(OsString::from("holdfastd fsck")).chain(arguments);
            Ok(holdfast_fsck::command::run(arguments))
        }
        None => {
            let config = Config::load(&arguments.config)?;
            logging::begin(&config.log);
            let stop = stop_flag()?;
            let hangup = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(SIGHUP, Arc::clone(&hangup)).map_err(|e| no_signals(&e))?;
            let mut daemon = Daemon::open(config)?;
            daemon.hangup = hangup;
            let daemon = Arc::new(daemon);
            run(&daemon, &stop)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A flag that the first SIGTERM or SIGINT sets; a second one ends the process at once.
fn stop_flag() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| no_signals(&error))?;
    }
    Ok(stop)
}

fn no_signals(error: &std::io::Error) -> Error {
    Error::failed(format!("Signals can't be handled: {error}."))
}
