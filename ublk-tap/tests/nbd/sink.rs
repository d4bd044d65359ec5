//! The shipper's place at the tap's socket: every record is folded into a replica, and acknowledged.

use ring::handoff::{Channel, ChannelError, LinkReport, LinkState, ToShipper, ToTap};
use ring::{Consumer, Entry};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::{RecordKind, Stamp};

/// What the records make of a disk full of nothing in particular.
pub(crate) struct Sink {
    replica: Arc<Mutex<Vec<u8>>>,
    /// Newest stamp that is folded.
    upto: Arc<AtomicU64>,
    /// Records are acknowledged and not looked at.
    forgets: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Session {
    channel: Channel,
    consumer: Consumer,
    at: Stamp,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Sink {
    /// Attends to whatever tap listens at `socket`, one life after the other.
    pub(crate) fn start(socket: &Path, size_bytes: usize) -> Self {
        let replica = Arc::new(Mutex::new(vec![0xee; size_bytes]));
        let (upto, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let forgets = Arc::<AtomicBool>::default();
        let thread = {
            let (replica, upto, ends) = (replica.clone(), upto.clone(), ends.clone());
            let (socket, forgets) = (socket.to_owned(), forgets.clone());
            std::thread::spawn(move || attend(&socket, &replica, &upto, &forgets, &ends))
        };
        Self {
            replica,
            upto,
            forgets,
            ends,
            thread: Some(thread),
        }
    }

    /// From now on only the cursor is moved, as fast as can be.
    pub(crate) fn forget(&self) {
        self.forgets.store(true, Ordering::Release);
    }

    /// Waits until everything up to `stamp` is folded.
    pub(crate) fn await_stamp(&self, stamp: u64) {
        let start = Instant::now();
        while self.upto.load(Ordering::Acquire) < stamp {
            assert!(start.elapsed() < PATIENCE, "stamp {stamp} never settles");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The first byte that is not as in `disk`.
    pub(crate) fn difference(&self, disk: &[u8]) -> Option<usize> {
        let replica = self.replica.lock().unwrap();
        assert_eq!(replica.len(), disk.len());
        (0..disk.len()).find(|at| replica[*at] != disk[*at])
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the sink failed");
        }
    }
}

fn attend(
    socket: &Path,
    replica: &Mutex<Vec<u8>>,
    upto: &AtomicU64,
    forgets: &AtomicBool,
    ends: &AtomicBool,
) {
    let mut session = None;
    while !ends.load(Ordering::Acquire) {
        let Some(current) = &mut session else {
            session = Session::begin(socket);
            if let Some(begun) = &session {
                // What is freed was folded before.
                upto.store(begun.at.0, Ordering::Release);
            }
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        if current.has_ended() {
            session = None;
            continue;
        }
        let forgets = forgets.load(Ordering::Acquire);
        match current.fold(&mut replica.lock().unwrap(), forgets) {
            Some(stamp) => upto.store(stamp.0, Ordering::Release),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// A stream that was given up begins anew only with a link.
fn link_up() -> ToTap {
    ToTap::Link(LinkReport {
        state: LinkState::Up,
        reason: String::new(),
        peer: "the test".into(),
    })
}

impl Session {
    fn begin(socket: &Path) -> Option<Self> {
        let channel = Channel::connect(socket).ok()?;
        let start = Instant::now();
        loop {
            match channel.recv_from_tap() {
                Ok((ToShipper::Welcome(_), Some(fds))) => {
                    let consumer = Consumer::open(fds).ok()?;
                    let at = consumer.freed();
                    channel.send_to_tap(&link_up()).ok()?;
                    return Some(Self {
                        channel,
                        consumer,
                        at,
                    });
                }
                Err(ChannelError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                _ => return None,
            }
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(
            self.channel.recv_from_tap(),
            Ok(_) | Err(ChannelError::WouldBlock)
        )
    }

    /// Folds and acknowledges what has settled; none if there was nothing.
    fn fold(&mut self, replica: &mut [u8], forgets: bool) -> Option<Stamp> {
        let (upto, entries) = self.settled(forgets)?;
        for entry in &entries {
            let fields = &entry.fields;
            let at = fields.offset_bytes as usize;
            let bytes = at..at + fields.length_bytes as usize;
            match fields.kind {
                RecordKind::Write | RecordKind::Copy => {
                    let mut payload = Vec::new();
                    self.consumer.read_payload(entry, &mut payload).unwrap();
                    replica[bytes].copy_from_slice(&payload);
                }
                RecordKind::Discard | RecordKind::Zero => replica[bytes].fill(0),
                _ => {}
            }
        }
        self.consumer.set_sent(upto);
        self.consumer.set_acked(upto);
        self.at = upto;
        Some(upto)
    }

    /// What has settled well since the last time, and up to which stamp.
    fn settled(&self, forgets: bool) -> Option<(Stamp, Vec<Entry>)> {
        let (mut voids, mut entries) = (Vec::new(), Vec::new());
        let scanned = self.consumer.settle_scan(self.at, 1024, &mut voids);
        let upto = scanned.expect("the ring is sound");
        if upto == self.at {
            return None;
        }
        if forgets {
            return Some((upto, entries));
        }
        let count = upto.records_since(self.at) as usize;
        let peeked = self.consumer.peek_filled(self.at, count, &mut entries);
        peeked.expect("the ring is sound");
        entries.retain(|entry| !voids.contains(&entry.stamp));
        Some((upto, entries))
    }
}
