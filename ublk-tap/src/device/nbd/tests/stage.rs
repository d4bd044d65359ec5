//! A volume over a file, served over NBD, and what the records make of an empty one.

use super::super::{NbdDevice, NbdPlace};
use super::client::Client;
use crate::device::{DeviceConfig, Frontend, Parking, Shape, Transfer};
use crate::disk::Disk;
use crate::ranges::RangeTable;
use ring::{Consumer, Ring, RingConfig};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::{Incarnation, Name, RecordKind, Stamp, VolumeIndex};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Stage {
    pub(super) device: NbdDevice,
    pub(super) ring: Arc<Ring>,
    pub(super) parking: Arc<Parking>,
    disk: std::fs::File,
    replica: Arc<Mutex<Replica>>,
    /// While set, the ring is not emptied.
    pub(super) is_stalled: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    sink: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
    _run: tempfile::TempDir,
}

struct Replica {
    bytes: Vec<u8>,
    upto: Stamp,
    voids: u64,
}

pub(super) struct Setup {
    pub(super) size_bytes: usize,
    pub(super) ring_bytes: u64,
    pub(super) shape: Shape,
    pub(super) ranges: RangeTable,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            size_bytes: 64 << 20,
            ring_bytes: 16 << 20,
            shape: Shape::default(),
            ranges: RangeTable::new(),
        }
    }
}

impl Stage {
    pub(super) fn new(setup: Setup) -> Self {
        let run = tempfile::tempdir_in("/dev/shm").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = std::fs::File::create_new(&path).unwrap();
        file.set_len(setup.size_bytes as u64).unwrap();
        let incarnation = Incarnation { counter: 1, id: 7 };
        let config = RingConfig::for_payload(setup.ring_bytes).unwrap();
        let ring = Arc::new(Ring::create(run.path(), incarnation, config).unwrap());
        let parking = Arc::new(Parking::new());
        let place = NbdPlace {
            socket: run.path().join("data.nbd"),
            group: None,
        };
        let config = DeviceConfig {
            group: Name::new("pg").unwrap(),
            volume: Name::new("data").unwrap(),
            index: VolumeIndex(3),
            disk: Arc::new(Disk::open(&path, Duration::ZERO).unwrap()),
            ring: Arc::clone(&ring),
            ranges: Arc::new(setup.ranges),
            parking: Arc::clone(&parking),
            shape: setup.shape,
            frontend: Frontend::Nbd(place.clone()),
            transfer: Transfer::default(),
            recovers: None,
        };
        let device = NbdDevice::start(config, &place).unwrap();
        let replica = Arc::new(Mutex::new(Replica {
            bytes: vec![0; setup.size_bytes],
            upto: Stamp::ZERO,
            voids: 0,
        }));
        let (is_stalled, ends) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let sink = {
            let consumer = Consumer::open(ring.consumer_fds().unwrap()).unwrap();
            let (ring, parking, replica) = (ring.clone(), parking.clone(), replica.clone());
            let (is_stalled, ends) = (is_stalled.clone(), ends.clone());
            std::thread::spawn(move || {
                while !ends.load(Ordering::Acquire) {
                    let is_idle = is_stalled.load(Ordering::Acquire)
                        || !replica.lock().unwrap().take(&consumer);
                    // What the group does in its turns.
                    let _ = ring.try_reclaim();
                    parking.kick();
                    if is_idle {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                }
            })
        };
        Self {
            device,
            ring,
            parking,
            disk: std::fs::File::open(&path).unwrap(),
            replica,
            is_stalled,
            ends,
            sink: Some(sink),
            _dir: dir,
            _run: run,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.device.path().to_owned()
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.device.path(), true)
    }

    /// Stops the volume; everything taken is finished then.
    pub(super) fn stop(&mut self) {
        self.device.stop(PATIENCE).unwrap();
    }

    /// The first byte in `at` at which disk and records differ, once everything has settled.
    pub(super) fn difference(&self, at: std::ops::Range<usize>) -> Option<usize> {
        eventually("the records are taken", || {
            self.replica.lock().unwrap().upto == self.ring.captured()
        });
        let mut disk = vec![0; at.len()];
        self.disk.read_exact_at(&mut disk, at.start as u64).unwrap();
        let replica = self.replica.lock().unwrap();
        let mut both = disk.iter().zip(&replica.bytes[at.clone()]);
        both.position(|(one, other)| one != other)
            .map(|found| at.start + found)
    }

    /// Compares all of it.
    #[track_caller]
    pub(super) fn agrees(&self) {
        let size = self.replica.lock().unwrap().bytes.len();
        assert_eq!(self.difference(0..size), None, "P4: disk and records agree");
    }

    pub(super) fn voids(&self) -> u64 {
        self.replica.lock().unwrap().voids
    }

    pub(super) fn disk_bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.disk.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        self.is_stalled.store(false, Ordering::Release);
        if let Some(sink) = self.sink.take() {
            let ended = sink.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the sink failed");
        }
    }
}

impl Replica {
    /// Applies what has settled, and acknowledges it; whether there was anything.
    fn take(&mut self, consumer: &Consumer) -> bool {
        let mut voids = Vec::new();
        let upto = consumer.settle_scan(self.upto, 4096, &mut voids).unwrap();
        if upto == self.upto {
            return false;
        }
        self.voids += voids.len() as u64;
        let mut entries = Vec::new();
        let count = upto.records_since(self.upto) as usize;
        consumer
            .peek_filled(self.upto, count, &mut entries)
            .unwrap();
        for entry in entries.iter().filter(|entry| !voids.contains(&entry.stamp)) {
            assert_eq!(entry.fields.volume, VolumeIndex(3));
            let at = entry.fields.offset_bytes as usize..;
            let bytes = &mut self.bytes[at][..entry.fields.length_bytes as usize];
            match entry.fields.kind {
                RecordKind::Write => {
                    let mut payload = Vec::new();
                    consumer.read_payload(entry, &mut payload).unwrap();
                    bytes.copy_from_slice(&payload);
                }
                RecordKind::Discard | RecordKind::Zero => bytes.fill(0),
                other => panic!("a worker makes no {other:?}"),
            }
        }
        self.upto = upto;
        consumer.set_sent(upto);
        consumer.set_acked(upto);
        true
    }
}

#[track_caller]
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
