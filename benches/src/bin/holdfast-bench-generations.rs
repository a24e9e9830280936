//! `holdfast-bench-generations`: one folder over many backups. Bytes by depth and by rule of re-basing, bytes beside
//! rustic, restores and dead space after a hundred generations, a repository of 400 backups. `tools/bench generations`
//! sets up what it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use holdfast_benches::generations::Failed;
use holdfast_benches::generations::aged::{Aged, Cost};
use holdfast_benches::generations::rebase::{Model, Rule};
use holdfast_benches::generations::rival::added;
use holdfast_benches::generations::tables::Tables;
use holdfast_benches::rig::figures::Spread;
use holdfast_benches::rig::machine::Machine;
use holdfast_benches::rig::measure::to_its_end;
use holdfast_benches::rig::tools::{Holdfast, Rustic, Tool, Verified};
use holdfast_benches::rows::Churn;
use holdfast_benches::section::{GENERATIONS, Table};

/// One folder over many backups.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Folder for repositories, removed afterwards
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The holdfast program
    #[arg(long, value_name = "FILE")]
    holdfast: Option<PathBuf>,
    /// The rustic program
    #[arg(long, value_name = "FILE")]
    rustic: Option<PathBuf>,
    /// 256 MiB of tables in place of 32: the figures of RESULTS.md
    #[arg(long)]
    full: bool,
    /// MiB of tables
    #[arg(long, value_parser = clap::value_parser!(u32).range(4..=4096))]
    mib: Option<u32>,
    /// Generations of the part `long`
    #[arg(long, default_value_t = 100)]
    generations: u64,
    /// Only these parts
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The page whose section is written
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes and restores by the depth of the store's chains
    Depth,
    /// Bytes by the rule of re-basing, in a model
    Rebase,
    /// Bytes beside rustic
    Rival,
    /// A hundred generations
    Long,
    /// 400 backups in one repository
    Many,
}

const CHURNS: [(Churn, &str); 2] = [(Churn::Skewed, "skewed"), (Churn::Uniform, "uniform")];

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-generations: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    arguments: Arguments,
    work: PathBuf,
    pages: u32,
}

fn run(arguments: Arguments) -> Result<(), Failed> {
    std::fs::create_dir_all(&arguments.data)?;
    let top = arguments.data.canonicalize()?;
    let machine = Machine::look(&top);
    let mib = arguments.mib.unwrap_or(if arguments.full { 256 } else { 32 });
    let pages = mib * 16;
    let bench = Bench { arguments, work: top.join("generations"), pages };
    type Measure = fn(&Bench) -> Result<Table, Failed>;
    let parts: [(Part, Measure); 5] = [
        (Part::Depth, Bench::depth),
        (Part::Rebase, Bench::rebase),
        (Part::Rival, Bench::rival),
        (Part::Long, Bench::long),
        (Part::Many, Bench::many),
    ];
    let arguments = &bench.arguments;
    let mut tables = Vec::new();
    for (part, work) in parts {
        if arguments.only.is_empty() || arguments.only.contains(&part) {
            let begun = Instant::now();
            let table = work(&bench)?;
            println!("{}", table.text());
            eprintln!("{part:?}: {:.0} s", begun.elapsed().as_secs_f64());
            tables.push(table);
        }
    }
    holdfast_benches::rig::folder::remove(&bench.work)?;
    if let Some(out) = &arguments.out {
        let date = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).date();
        let preface = format!(
            "Written by `tools/bench generations{}` on {date}: {} cores ({}), {}, load when it began {}. Four InnoDB-like \
             tables of {} MiB in all (`benches/src/generations/tables.rs`: sysbench's rows, which zstd halves). A generation \
             changes one to four rows in each page that it meets; with skewed churn four changes of five fall on a fifth \
             of the pages. Every restore was compared with its source.",
            if arguments.full { " --full" } else { "" },
            machine.cores,
            machine.processor,
            machine.file_system,
            machine.load,
            mib,
        );
        let page = std::fs::read_to_string(out).unwrap_or_default();
        std::fs::write(out, GENERATIONS.put_into(&page, &GENERATIONS.text(&preface, &tables)))?;
    }
    Ok(())
}

fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// The middle of three.
fn middle(costs: [Cost; 3], of: impl Fn(&Cost) -> f64) -> f64 {
    Spread::of(costs.iter().map(of).collect()).map_or(0.0, |spread| spread.median)
}

impl Bench {
    fn tables(&self) -> Tables {
        Tables::new(4, self.pages, 42)
    }

    /// The store itself, its chains cut at each depth.
    fn depth(&self) -> Result<Table, Failed> {
        let story = "30 generations, 5 % of the pages each, through the store itself, no prune. Bytes without parity; a \
                     restore of the last generation from a cold cache, median of three.";
        let head = ["churn", "depth", "added, MB", "deltas", "restore, s", "processor, s", "read, MB"];
        let mut table = Table::new("Depth of chains", story, &head);
        for (churn, name) in CHURNS {
            for depth in 0..=4 {
                let mut tables = self.tables();
                let mut aged = Aged::new(&self.work, depth)?;
                aged.back_up(&tables)?;
                let (mut added, mut new, mut deltas) = (0, 0, 0);
                for _ in 0..30 {
                    tables.age(50, churn);
                    let stats = aged.back_up(&tables)?.stats;
                    added += stats.stored_bytes.saturating_sub(stats.parity_bytes);
                    new += stats.new_blocks;
                    deltas += stats.delta_blocks;
                }
                let last = aged.kept.last().copied().ok_or("no backup was made")?;
                let costs = [
                    aged.restore(last, Some(&tables))?,
                    aged.restore(last, None)?,
                    aged.restore(last, None)?,
                ];
                table.row(vec![
                    name.to_owned(),
                    depth.to_string(),
                    mb(added),
                    format!("{:.0} %", deltas as f64 * 100.0 / new.max(1) as f64),
                    format!("{:.2}", middle(costs, |c| c.seconds)),
                    format!("{:.2}", middle(costs, |c| c.cpu_seconds)),
                    format!("{:.0}", middle(costs, |c| c.read_bytes as f64 / 1e6)),
                ]);
            }
        }
        Ok(table)
    }

    /// The model: which rule pays how much.
    fn rebase(&self) -> Result<Table, Failed> {
        const GENERATIONS: u32 = 60;
        let story = "A model of the payloads alone with the store's settings of zstd, 64 MiB of the tables at most, 60 \
                     generations: what the block is stored against once its chain is full. `whole`: stored whole. `root`: a \
                     delta against the chain's whole block, until that takes half a block. `levels N`: against the deepest \
                     link from which the delta is at most N, once for each link given up, times the smallest delta of the \
                     chain.";
        let head = [
            "churn",
            "pages a generation",
            "depth",
            "rule",
            "added, MB",
            "restore reads, MB",
            "frames a block",
        ];
        let mut table = Table::new("Where a chain begins again", story, &head);
        let rules = [
            (Rule::Chain, 0, "whole"),
            (Rule::Chain, 1, "whole"),
            (Rule::Chain, 2, "whole"),
            (Rule::Chain, 3, "whole"),
            (Rule::Chain, 4, "whole"),
            (Rule::Root, 4, "root"),
            (Rule::Levels(2), 2, "levels 2"),
            (Rule::Levels(4), 2, "levels 4"),
            (Rule::Levels(2), 4, "levels 2"),
            (Rule::Levels(3), 4, "levels 3"),
        ];
        for (churn, name) in CHURNS {
            for permille in [10, 50] {
                for (rule, depth, what) in rules {
                    let mut tables = Tables::new(4, self.pages.min(1024), 42);
                    let mut model = Model::new(rule, depth, &tables)?;
                    for _ in 0..GENERATIONS {
                        tables.age(permille, churn);
                        model.generation(&tables)?;
                    }
                    let outcome = model.outcome();
                    let blocks = tables.bytes() / 65_536;
                    table.row(vec![
                        name.to_owned(),
                        format!("{} %", permille / 10),
                        depth.to_string(),
                        what.to_owned(),
                        mb(outcome.added_bytes),
                        mb(outcome.last_bytes),
                        format!("{:.2}", outcome.last_payloads as f64 / blocks.max(1) as f64),
                    ]);
                }
            }
        }
        Ok(table)
    }

    /// Holdfast and rustic, as users call them.
    fn rival(&self) -> Result<Table, Failed> {
        const GENERATIONS: u32 = 30;
        let story = "30 generations through the programs themselves, 1 % of the pages each. MB, parity apart; asked: at \
                     most 0.33 of rustic's over all generations behind the first backup.";
        let head = ["churn", "", "first backup", "first generation", "all 30 generations"];
        let mut table = Table::new("Bytes added beside rustic", story, &head);
        let programs = (self.arguments.holdfast.as_ref(), self.arguments.rustic.as_ref());
        let (Some(holdfast), Some(rustic)) = programs else {
            return Err("the bytes beside rustic need --holdfast and --rustic".into());
        };
        for (churn, name) in CHURNS {
            let tools: [Box<dyn Tool>; 2] = [
                Box::new(Holdfast(holdfast.canonicalize()?, Verified::Full)),
                Box::new(Rustic(rustic.canonicalize()?)),
            ];
            let mut rest = Vec::new();
            for tool in &tools {
                let added = added(tool.as_ref(), &self.work, self.tables(), GENERATIONS, 10, churn)?;
                rest.push(added.rest_bytes);
                let cells = [added.first_bytes, added.second_bytes, added.rest_bytes].map(mb);
                table.row([vec![name.to_owned(), tool.name().to_owned()], cells.to_vec()].concat());
            }
            if let [ours, theirs] = rest.as_slice() {
                let ratio = format!("**{:.3}**", *ours as f64 / *theirs as f64);
                let cells = [name, "ratio", "", "", &ratio].map(str::to_owned);
                table.row(cells.to_vec());
            }
        }
        Ok(table)
    }

    /// A hundred generations, expired and pruned on the way.
    fn long(&self) -> Result<Table, Failed> {
        let generations = self.arguments.generations;
        let story = format!(
            "{generations} generations, 1 % of the pages each; the newest seven backups and four weekly ones are kept, a \
             prune with its defaults follows each backup. Restores from a cold cache of the newest backup and of the first \
             one in a repository of its own, in turns, medians of three. Asked: at least 0.80 of the first one's speed, at \
             most 15 % dead."
        );
        let head = [
            "churn",
            "first, s",
            "last, s",
            "speed",
            "processor, s",
            "read, MB",
            "dead, most and last",
            "stored, MB",
        ];
        let mut table = Table::new("After many generations", &story, &head);
        for (churn, name) in CHURNS {
            let mut tables = self.tables();
            let mut young = Aged::new(&self.work.join("young"), 4)?;
            let first = young.back_up(&tables)?.id;
            let mut aged = Aged::new(&self.work.join("aged"), 4)?;
            aged.back_up(&tables)?;
            let (mut weekly, mut dead_most, mut dead_last) = (Vec::new(), 0.0_f64, 0.0);
            for generation in 1..=generations {
                tables.age(10, churn);
                aged.back_up(&tables)?;
                aged.expire(generation, &mut weekly)?;
                dead_last = aged.prune()?.after.dead_percent();
                dead_most = dead_most.max(dead_last);
            }
            let last = aged.kept.last().copied().ok_or("no backup was made")?;
            let (mut firsts, mut lasts) = ([Cost::default(); 3], [Cost::default(); 3]);
            aged.restore(last, Some(&tables))?;
            for (a, b) in firsts.iter_mut().zip(&mut lasts) {
                *a = young.restore(first, None)?;
                *b = aged.restore(last, None)?;
            }
            let (a, b) = (middle(firsts, |c| c.seconds), middle(lasts, |c| c.seconds));
            let both = |of: fn(&Cost) -> f64, digits: usize| {
                format!("{:.digits$} and {:.digits$}", middle(firsts, of), middle(lasts, of))
            };
            table.row(vec![
                name.to_owned(),
                format!("{a:.2}"),
                format!("{b:.2}"),
                format!("**{:.2}**", a / b),
                both(|c| c.cpu_seconds, 2),
                both(|c| c.read_bytes as f64 / 1e6, 0),
                format!("{dead_most:.1} %, {dead_last:.1} %"),
                format!("{} and {}", mb(young.stored_bytes()?), mb(aged.stored_bytes()?)),
            ]);
        }
        Ok(table)
    }

    /// 400 backups in one repository.
    fn many(&self) -> Result<Table, Failed> {
        const BACKUPS: u32 = 400;
        let story = "400 backups of a small folder in one repository; asked: it opens in less than a second.";
        let mut table = Table::new("Many backups", story, &["what", "seconds"]);
        let mut tables = Tables::new(1, 64, 42);
        let mut aged = Aged::new(&self.work, 4)?;
        aged.protect()?;
        for _ in 0..BACKUPS {
            tables.age(10, Churn::Uniform);
            aged.back_up(&tables)?;
        }
        let mut opened = Vec::new();
        for _ in 0..3 {
            aged.evict()?;
            let (repository, seconds) = aged.reopen()?;
            if repository.backups().len() != BACKUPS as usize {
                return Err("the repository lists other backups than were made".into());
            }
            opened.push(seconds);
        }
        let median = |seconds| Spread::of(seconds).map_or(0.0, |s| s.median);
        table.row(vec![
            "opened through the store, cold, the key's derivation made cheap".to_owned(),
            format!("{:.3}", median(opened)),
        ]);
        if let Some(holdfast) = &self.arguments.holdfast {
            let mut listed = Vec::new();
            for _ in 0..3 {
                aged.evict()?;
                listed.push(list(holdfast, &aged, &self.work)?);
            }
            table.row(vec!["`holdfast list`, cold".to_owned(), format!("{:.3}", median(listed))]);
        }
        Ok(table)
    }
}

fn list(holdfast: &Path, aged: &Aged, work: &Path) -> Result<f64, Failed> {
    let passphrase = work.join("passphrase");
    std::fs::write(&passphrase, holdfast_benches::generations::aged::PASSPHRASE)?;
    let log = work.join("said");
    let mut command = Command::new(holdfast.canonicalize()?);
    command
        .env("HOLDFAST_REPO", aged.folder())
        .env("HOLDFAST_PASSPHRASE_FILE", &passphrase)
        .env("HOME", work);
    command.env("XDG_CONFIG_HOME", work.join("config")).args(["list", "--json"]);
    let begun = Instant::now();
    to_its_end(&mut command, &log)?;
    let seconds = begun.elapsed().as_secs_f64();
    let said = std::fs::read_to_string(&log)?;
    if said.matches("\"started\"").count() < 400 {
        return Err(format!("`holdfast list` does not name 400 backups:\n{said}").into());
    }
    Ok(seconds)
}
