//! Wraps a disk with capture into a ring whose consumer only advances the cursor, runs a command
//! with `DEV` set to the device, and takes the device down again:
//! `passthrough DISK [--queues N] [--depth N] [--ring-mib N] [--stall MS] [--closed] -- CMD...`
//!
//! `--stall` lets the consumer stand still that long every two seconds, so that writes are parked;
//! `--closed` gives the stream up at once. For trying the block path by hand in the lab.

use ring::{Consumer, Ring, RingConfig};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ublk_tap::device::{Device, DeviceConfig, Parking, Shape, become_io_flusher};
use ublk_tap::disk::Disk;
use ublk_tap::ranges::RangeTable;
use wire::{Incarnation, Name, VolumeIndex};

struct Options {
    disk: String,
    shape: Shape,
    ring_bytes: u64,
    stall: Duration,
    closed: bool,
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&options()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("passthrough: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Options {
    let mut args = std::env::args().skip(1);
    let mut options = Options {
        disk: args.next().expect("DISK"),
        shape: Shape::default(),
        ring_bytes: 64 << 20,
        stall: Duration::ZERO,
        closed: false,
        command: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut number = || args.next().expect("value").parse::<u64>().expect("number");
        match arg.as_str() {
            "--queues" => options.shape.queues = number() as u16,
            "--depth" => options.shape.depth = number() as u16,
            "--ring-mib" => options.ring_bytes = number() << 20,
            "--stall" => options.stall = Duration::from_millis(number()),
            "--closed" => options.closed = true,
            "--" => options.command = args.by_ref().collect(),
            other => panic!("unknown option {other}"),
        }
    }
    options
}

fn run(options: &Options) -> Result<u8, Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    become_io_flusher()?;
    let run_dir = Path::new("/dev/shm").join(format!("passthrough-{}", std::process::id()));
    std::fs::create_dir_all(&run_dir)?;
    let incarnation = Incarnation { counter: 1, id: 1 };
    let config = RingConfig::for_payload(options.ring_bytes)?;
    let ring = Arc::new(Ring::create(&run_dir, incarnation, config)?);
    if options.closed {
        ring.close();
    }
    let parking = Arc::new(Parking::new());
    let stop = AtomicBool::new(false);
    let consumer = Consumer::open(ring.consumer_fds()?)?;
    let code = std::thread::scope(|scope| {
        scope.spawn(|| consume(&consumer, options.stall, &stop));
        scope.spawn(|| kick(&parking, &stop));
        let code = serve(options, &ring, &parking);
        stop.store(true, Ordering::Relaxed);
        code
    });
    ring.remove_file()?;
    std::fs::remove_dir_all(&run_dir)?;
    code
}

fn serve(
    options: &Options,
    ring: &Arc<Ring>,
    parking: &Arc<Parking>,
) -> Result<u8, Box<dyn std::error::Error>> {
    let disk = Arc::new(Disk::open(
        Path::new(&options.disk),
        Duration::from_secs(5),
    )?);
    eprintln!(
        "{} {} {:?}",
        disk.identity(),
        disk.size_bytes(),
        disk.traits()
    );
    let mut device = Device::start(DeviceConfig {
        group: Name::new("try")?,
        volume: Name::new("disk")?,
        index: VolumeIndex(0),
        disk,
        ring: Arc::clone(ring),
        ranges: Arc::new(RangeTable::new()),
        parking: Arc::clone(parking),
        shape: options.shape,
    })?;
    eprintln!(
        "{} with {} queues",
        device.path().display(),
        device.queues()
    );
    let status = match options.command.split_first() {
        Some((program, args)) => Command::new(program)
            .args(args)
            .env("DEV", device.path())
            .status()?
            .code()
            .unwrap_or(1),
        None => {
            std::thread::sleep(Duration::from_secs(3600));
            0
        }
    };
    eprintln!(
        "{:?} {:?} captured {}",
        device.stats(),
        ring.usage(),
        ring.captured()
    );
    let start = Instant::now();
    device.stop(Duration::from_secs(30))?;
    eprintln!("stopped in {} ms", start.elapsed().as_millis());
    Ok(status as u8)
}

fn consume(consumer: &Consumer, stall: Duration, stop: &AtomicBool) {
    let mut voids = Vec::new();
    let mut stalled = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        voids.clear();
        match consumer.settle_scan(consumer.acked(), 1 << 16, &mut voids) {
            Ok(upto) => {
                consumer.set_sent(upto);
                consumer.set_acked(upto);
            }
            Err(fault) => eprintln!("consumer: {fault:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
        if !stall.is_zero() && stalled.elapsed() > Duration::from_secs(2) {
            std::thread::sleep(stall);
            stalled = Instant::now();
        }
    }
}

fn kick(parking: &Parking, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        parking.kick();
        std::thread::sleep(Duration::from_millis(2));
    }
}
