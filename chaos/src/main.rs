//! The driver's command line.

use chaos::plan::{Order, Plant, draw};
use chaos::run::run;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Kills, stops and restarts the real daemons under load and judges what can be recovered.
///
/// Needs root, for the tap, and the daemons: `cargo build --workspace`. Exit codes: 0 no violation, 1
/// a violation, 2 usage, 3 it could not be set up.
#[derive(Parser)]
struct Args {
    /// Where all chance comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many SIGKILLs
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// How long it is under load, in seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Where the site is made; a tmpfs, for the ring
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
    /// Print what is done, and when
    #[arg(long)]
    verbose: bool,
    /// Plant a fault that must be found
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Print what the seed draws, and do nothing
    #[arg(long)]
    plan: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let order = Order {
        seed: args.seed,
        kills: args.kills,
        time: Duration::from_secs(args.seconds),
        plant: args.plant,
    };
    if args.plan {
        let plan = draw(order);
        println!("{}", plan.settings);
        for (at, deed) in plan.deeds {
            println!("{:>9.3} {deed:?}", at.as_secs_f64());
        }
        return ExitCode::SUCCESS;
    }
    println!("seed {}", args.seed);
    match run(order, &args.dir, args.verbose) {
        Ok(outcome) => {
            println!("{outcome}");
            match outcome.violations.is_empty() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::from(3)
        }
    }
}
