//! Wraps a disk with capture into a ring whose consumer only advances the cursor, runs a command
//! with `DEV` set to the device, and takes the device down again:
//! `passthrough DISK [--queues N] [--depth N] [--ring-mib N] [--stall MS] [--closed] [--shadow]
//! -- CMD...`
//!
//! `--stall` lets the consumer stand still that long every two seconds, so that writes are parked;
//! `--closed` gives the stream up at once; `--shadow` makes an image from the records and compares
//! it with the disk at the end. `passthrough --devices` and `passthrough --delete ID` look after
//! devices that were left behind. For trying the block path by hand in the lab.

use ring::{Consumer, Entry, Ring, RingConfig};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ublk_tap::device::{
    Device, DeviceConfig, Frontend, Parking, RetireError, Shape, Transfer, become_io_flusher,
    kernel,
};
use ublk_tap::disk::Disk;
use ublk_tap::ranges::RangeTable;
use wire::{Incarnation, Name, RecordKind, Stamp, VolumeIndex};

struct Options {
    disk: String,
    shape: Shape,
    ring_bytes: u64,
    stall: Duration,
    closed: bool,
    shadow: bool,
    command: Vec<String>,
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("--devices") => {
            kernel::devices()
                .iter()
                .for_each(|device| println!("{device:?}"));
            return ExitCode::SUCCESS;
        }
        Some("--delete") => {
            let id = args.next().and_then(|id| id.parse().ok()).expect("ID");
            return match kernel::delete(id) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("passthrough: {error}");
                    ExitCode::from(error.exit_code())
                }
            };
        }
        _ => {}
    }
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
        shadow: false,
        command: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let mut number = || args.next().expect("value").parse::<u64>().expect("number");
        match arg.as_str() {
            "--queues" => options.shape.queues = number() as u16,
            "--depth" => options.shape.depth = number() as u16,
            "--ring-mib" => options.ring_bytes = number() << 20,
            "--stall" => options.stall = Duration::from_millis(number()),
            "--shadow" => options.shadow = true,
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
    let disk = match Disk::open(Path::new(&options.disk), Duration::from_secs(5)) {
        Ok(disk) => Arc::new(disk),
        Err(error) => {
            eprintln!("passthrough: {error}");
            return Ok(error.exit_code());
        }
    };
    eprintln!(
        "{} {} {:?}",
        disk.identity(),
        disk.size_bytes(),
        disk.traits()
    );
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
    let mut shadow = if options.shadow {
        image_of(&disk)?
    } else {
        Vec::new()
    };
    let mut code = std::thread::scope(|scope| {
        scope.spawn(|| consume(&consumer, options.stall, &stop, &mut shadow));
        scope.spawn(|| kick(&parking, &stop));
        let code = serve(options, &disk, &ring, &parking);
        stop.store(true, Ordering::Relaxed);
        code
    });
    if options.shadow {
        let image = image_of(&disk)?;
        let differs = (0..image.len()).find(|&at| image[at] != shadow[at]);
        eprintln!("shadow: first difference {differs:?}");
        if differs.is_some() {
            code = Ok(99);
        }
    }
    ring.remove_file()?;
    std::fs::remove_dir_all(&run_dir)?;
    code
}

fn image_of(disk: &Disk) -> std::io::Result<Vec<u8>> {
    let mut image = memmap2::MmapMut::map_anon(disk.size_bytes() as usize)?;
    for (chunk, at) in image.chunks_mut(1 << 20).zip((0..).step_by(1 << 20)) {
        disk.read_at(chunk, at)?;
    }
    Ok(image.to_vec())
}

fn serve(
    options: &Options,
    disk: &Arc<Disk>,
    ring: &Arc<Ring>,
    parking: &Arc<Parking>,
) -> Result<u8, Box<dyn std::error::Error>> {
    let mut device = match Device::start(DeviceConfig {
        group: Name::new("try")?,
        volume: Name::new("disk")?,
        index: VolumeIndex(0),
        disk: Arc::clone(disk),
        ring: Arc::clone(ring),
        ranges: Arc::new(RangeTable::new()),
        parking: Arc::clone(parking),
        shape: options.shape,
        frontend: Frontend::Ublk,
        transfer: Transfer::default(),
        recovers: None,
    }) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("passthrough: {error}");
            return Ok(error.exit_code());
        }
    };
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
    eprintln!(
        "faults {:?} ended {}",
        device.take_faults(),
        device.has_ended()
    );
    let start = Instant::now();
    while let Err(error) = device.retire(true) {
        if !matches!(error, RetireError::Writing) {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    eprintln!("retired in {} ms", start.elapsed().as_millis());
    device.stop(Duration::from_secs(30))?;
    eprintln!("stopped in {} ms", start.elapsed().as_millis());
    // The consumer takes what is left.
    while ring.acked() < ring.captured() && !options.closed {
        ring.try_reclaim().map_err(|error| format!("{error:?}"))?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(status as u8)
}

fn consume(consumer: &Consumer, stall: Duration, stop: &AtomicBool, shadow: &mut [u8]) {
    let mut voids = Vec::new();
    let mut stalled = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        voids.clear();
        let after = consumer.acked();
        match consumer.settle_scan(after, 1 << 16, &mut voids) {
            Ok(upto) => {
                if !shadow.is_empty() {
                    apply(consumer, after, upto, &voids, shadow);
                }
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

fn apply(consumer: &Consumer, after: Stamp, upto: Stamp, voids: &[Stamp], shadow: &mut [u8]) {
    let voids = voids.iter().collect::<BTreeSet<_>>();
    let mut entries = Vec::<Entry>::new();
    consumer
        .peek_filled(after, 1 << 16, &mut entries)
        .expect("filled before settled");
    for entry in entries.iter().filter(|entry| entry.stamp <= upto) {
        if voids.contains(&entry.stamp) {
            continue;
        }
        let at = entry.fields.offset_bytes as usize;
        let bytes = &mut shadow[at..at + entry.fields.length_bytes as usize];
        if entry.fields.kind == RecordKind::Write {
            let mut payload = Vec::new();
            consumer
                .read_payload(entry, &mut payload)
                .expect("held until acked");
            bytes.copy_from_slice(&payload);
        } else {
            bytes.fill(0);
        }
    }
}

fn kick(parking: &Parking, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        parking.kick();
        std::thread::sleep(Duration::from_millis(2));
    }
}
