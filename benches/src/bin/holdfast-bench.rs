//! `holdfast-bench`: makes the data sets, runs every tool that it is given through the same
//! work, prints the table and writes it. `tools/bench` sets up what it needs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use holdfast_benches::rig::dataset::{self, Place};
use holdfast_benches::rig::folder::bytes_below;
use holdfast_benches::rig::machine::Machine;
use holdfast_benches::rig::measure::drop_caches;
use holdfast_benches::rig::report::{Setting, page};
use holdfast_benches::rig::scenario::{Plan, compare};
use holdfast_benches::rig::tools::{Borg, Copy, Holdfast, Restic, Rustic, Tool, Verified};

/// Holdfast beside other tools: the same work in one run.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The holdfast program
    #[arg(long, value_name = "FILE")]
    holdfast: Option<PathBuf>,
    /// The rustic program
    #[arg(long, value_name = "FILE")]
    rustic: Option<PathBuf>,
    /// The restic program
    #[arg(long, value_name = "FILE")]
    restic: Option<PathBuf>,
    /// The borg program
    #[arg(long, value_name = "FILE")]
    borg: Option<PathBuf>,
    /// How often everything is done; the medians are shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// The page to write; its notes are kept
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (top, servers, scale) = (arguments.place.top()?, arguments.place.servers()?, arguments.place.scale());
    eprintln!("data set '{}': made now unless it is there", scale.name);
    let data = dataset::get(&top, scale, &servers)?;
    eprintln!("{}", data.story);
    let setting = Setting {
        machine: Machine::look(&top),
        date: jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date().to_string(),
        data: data.story.clone(),
        data_bytes: (bytes_below(&data.gen0)?, bytes_below(&data.gen1)?),
        rounds: arguments.rounds,
        cold: drop_caches().is_ok(),
        small: arguments.place.small,
    };
    let plan = Plan { data, work: top.join("work"), rounds: arguments.rounds, cold: setting.cold };
    let courses = compare(&plan, &tools(arguments)?, |line| eprintln!("{line}"))?;
    let earlier = arguments.out.as_deref().map(read_or_empty).transpose()?.unwrap_or_default();
    let page = page(&setting, &courses, &earlier);
    println!("{page}");
    if let Some(out) = &arguments.out {
        std::fs::write(out, page)?;
    }
    Ok(())
}

fn tools(arguments: &Arguments) -> Result<Vec<Box<dyn Tool>>, Box<dyn Error>> {
    let program = |path: &Option<PathBuf>| path.as_ref().map(|p| p.canonicalize()).transpose();
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    if let Some(path) = program(&arguments.holdfast)? {
        tools.push(Box::new(Holdfast(path.clone(), Verified::Full)));
        tools.push(Box::new(Holdfast(path, Verified::Sample)));
    }
    if let Some(path) = program(&arguments.rustic)? {
        tools.push(Box::new(Rustic(path)));
    }
    if let Some(path) = program(&arguments.restic)? {
        tools.push(Box::new(Restic(path)));
    }
    if let Some(path) = program(&arguments.borg)? {
        tools.push(Box::new(Borg(path)));
    }
    tools.push(Box::new(Copy));
    Ok(tools)
}

fn read_or_empty(path: &Path) -> std::io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}
