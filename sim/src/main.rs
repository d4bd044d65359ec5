//! The runner's command line.

use clap::Parser;
use sim::planted::Bug;
use sim::probes::Probe;
use sim::runner::{Range, Totals, run, run_all, silence_panics};
use sim::trace::Words;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs the deterministic simulation.
#[derive(Parser)]
struct Args {
    /// How many seeds, at most
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// No new seed is begun after so many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// Run this seed alone
    #[arg(long)]
    replay: Option<u64>,
    /// Print what happens in a replay
    #[arg(long)]
    verbose: bool,
    /// Plant a bug, by its name
    #[arg(long)]
    plant: Option<String>,
    /// Plant every bug in turn; print how many seeds it takes to find each
    #[arg(long)]
    detect: bool,
    /// Print how often each state was reached
    #[arg(long)]
    probes: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let bug = match &args.plant {
        None => None,
        Some(name) => match Bug::ALL.iter().find(|bug| bug.name() == name) {
            Some(bug) => Some(*bug),
            None => {
                let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
                eprintln!("no bug is called {name}; there are {}", names.join(", "));
                return ExitCode::from(2);
            }
        },
    };
    if let Some(seed) = args.replay {
        return replay(seed, bug, args.verbose);
    }
    silence_panics();
    if args.detect {
        return detect(&args);
    }
    let begun = Instant::now();
    let range = Range {
        start: args.start,
        count: args.seeds,
        time: args
            .minutes
            .map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
    };
    let totals = run_all(range, bug, false, |totals| show(totals, args.seeds, begun));
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    report(&totals, begun.elapsed(), bug, args.probes);
    match totals.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn show(totals: &Totals, seeds: u64, begun: Instant) {
    if std::io::stderr().is_terminal() && totals.seeds.is_multiple_of(16) {
        let rate = totals.seeds as f64 / begun.elapsed().as_secs_f64();
        let bad = totals.violations.len();
        eprint!(
            "\r{} of {seeds} seeds, {rate:.0}/s, {bad} violations ",
            totals.seeds
        );
    }
}

fn report(totals: &Totals, time: Duration, bug: Option<Bug>, probes: bool) {
    for (seed, words) in totals.violations.iter().take(20) {
        println!("seed {seed}: {words}");
    }
    if let Some((seed, _)) = totals.violations.iter().min() {
        let outcome = run(*seed, bug, Words::Kept);
        println!("the end of seed {seed}; `--replay {seed} --verbose` prints all of it:");
        outcome.trace.iter().for_each(|line| println!("  {line}"));
    }
    if probes {
        for probe in Probe::ALL {
            println!("{:>10}  {}", totals.reached.times(*probe), probe.words());
        }
    }
    for probe in totals.reached.missing() {
        println!("never reached: {}", probe.words());
    }
    let seconds = time.as_secs_f64();
    println!(
        "{:.0} seeds/s, {:.0} writes a seed, {:.0} s of virtual time a second",
        totals.seeds as f64 / seconds,
        totals.writes as f64 / totals.seeds.max(1) as f64,
        totals.time_ns as f64 / 1e9 / seconds
    );
    println!(
        "seeds {} faults {} checks {} violations {}",
        totals.seeds,
        totals.faults,
        totals.checks,
        totals.violations.len()
    );
}

fn replay(seed: u64, bug: Option<Bug>, is_verbose: bool) -> ExitCode {
    let words = if is_verbose {
        Words::Printed
    } else {
        Words::Kept
    };
    let outcome = run(seed, bug, words);
    if !is_verbose {
        outcome.trace.iter().for_each(|line| println!("{line}"));
    }
    println!(
        "seed {seed} hash {:016x} writes {}",
        outcome.hash, outcome.writes
    );
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(words) => {
            println!("violation: {words}");
            ExitCode::FAILURE
        }
    }
}

/// How many seeds it takes to find each planted bug: the median over several starts.
fn detect(args: &Args) -> ExitCode {
    const STARTS: u64 = 7;
    let mut is_all = true;
    println!("| planted bug | median seeds to detection |\n|---|---|");
    for bug in Bug::ALL {
        let mut needed: Vec<u64> = (0..STARTS)
            .map(|nth| {
                let start = args.start + nth * 1_000_000;
                let found = (0..args.seeds).find(|seed| {
                    run(start + seed, Some(*bug), Words::None)
                        .violation
                        .is_some()
                });
                found.map_or(u64::MAX, |seed| seed + 1)
            })
            .collect();
        needed.sort_unstable();
        let median = needed[needed.len() / 2];
        is_all &= median < u64::MAX;
        let shown = match median {
            u64::MAX => format!("not in {}", args.seeds),
            median => median.to_string(),
        };
        println!("| {} | {shown} |", bug.words());
    }
    match is_all {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
