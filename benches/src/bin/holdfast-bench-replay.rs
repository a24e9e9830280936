//! `holdfast-bench-replay`: the replay of a burst of sysbench's writes, Holdfast beside the
//! server's own parallel applier and `mysqlbinlog | mysql`, in one run.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use holdfast_benches::rig::dataset::{self, Place, UNIFORM};
use holdfast_benches::rig::replay::{Rig, Sample, net};

/// Replay of the same log from the same folder, side by side.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Uniform keys instead of sysbench's default distribution
    #[arg(long, conflicts_with = "small")]
    uniform: bool,
    /// How often Holdfast and the applier take turns
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Also `mysqlbinlog | mysql`, once: minutes
    #[arg(long)]
    client: bool,
    /// Connections of Holdfast
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// KiB in a chunk
    #[arg(long, default_value_t = 4096)]
    chunk: usize,
    /// Holdfast alone
    #[arg(long)]
    alone: bool,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-replay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (top, servers) = (arguments.place.top()?, arguments.place.servers()?);
    let scale = if arguments.uniform { UNIFORM } else { arguments.place.scale() };
    let data = dataset::get(&top, scale, &servers)?;
    println!("{}", data.story);
    let rig = Rig::new(data, top.join(scale.name), top.join("replay"), &servers)?;
    println!("{} bytes of log", rig.files.bytes());
    for _ in 0..arguments.rounds {
        show(&rig.holdfast(&net(arguments.connections, arguments.chunk << 10))?);
        if !arguments.alone {
            show(&rig.applier(4)?);
        }
    }
    if arguments.client {
        show(&rig.client(&servers)?);
    }
    let own = std::fs::read_to_string("/proc/self/status")?;
    let peak = own.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("resident memory of this program: {peak}");
    Ok(())
}

fn show(sample: &Sample) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("?").to_owned();
    println!(
        "{:7.2} s, server {:6.2} s of processor, load {load}: {}",
        sample.seconds, sample.server_cpu, sample.side
    );
}
