//! A group without a kernel that has ublk: its devices write to the disk as a queue thread would,
//! and the receiver is an image per volume, kept by a shipper of the test's own.

use crate::clock;
use crate::control::{
    AddRequest, Added, Asked, BarrierReached, BarrierRequest, GroupStatus, RemoveRequest, Removed,
    Reply, ReplyTo, Request, Settling,
};
use crate::device::Shape;
use crate::device::{DeviceConfig, DeviceError, Fault, FaultList, RetireError, Stats, StopError};
use crate::disk::Disk;
use crate::failure::Failure;
use crate::group::clerk::{Clerk, Job};
use crate::group::{
    Driver, DriverConfig, Front, FrontKind, Fronts, Input, Recovery, Reopened, Roster, Waits,
};
use crate::ranges::{HeldRange, Range, RangeTable};
use crate::settings::{Dirs, Settings};
use crate::shipper::{Account, Admission, Port};
use crate::state::{State, StateFile};
use ring::handoff::{Channel, CopyWanted, GenerationReport, LinkReport, LinkState, Progress};
use ring::handoff::{ToShipper, ToTap, Welcome};
use ring::{Claim, ClaimError, Consumer, Entry, Filled, RecordFields, Ring, RingConfig};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wire::{
    Generation, Incarnation, Member, MemberAction, Name, RecordKind, Stamp, TimeMark, VolumeIndex,
    VolumeSpec,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A host: directories, disks, and the tap of group `pg` while it runs.
pub(super) struct Host {
    root: tempfile::TempDir,
    pub(super) settings: Settings,
    pub(super) on_demand: Option<Duration>,
    pub(super) fronts: Arc<FakeFronts>,
    pub(super) site: Arc<Site>,
    /// A successor could not go on with a device.
    pub(super) gave_up: Arc<AtomicBool>,
    lives: AtomicU64,
}

/// A tap at work.
pub(super) struct Tap {
    post: Sender<Input>,
    driver: JoinHandle<()>,
    clerk: JoinHandle<StateFile>,
    pub(super) ring: Arc<Ring>,
    shipper: Option<Shipper>,
}

/// The receiver: what the records have made of each volume, and who joined when.
#[derive(Default)]
pub(super) struct Site {
    pub(super) images: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(super) members: Mutex<Vec<(String, MemberAction)>>,
    pub(super) gaps: AtomicU64,
    /// Nothing is taken while set.
    pub(super) stalls: AtomicBool,
    /// What the shipper is to say next.
    pub(super) says: Mutex<Vec<ToTap>>,
    /// The next thing it writes on its page is a lie.
    pub(super) lies: AtomicBool,
}

/// The shipper of one tap.
struct Shipper {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Host {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        for dir in ["etc", "state", "run/pg", "dev"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let settings = Settings {
            ring_bytes: 4 << 20,
            park: Duration::from_millis(300),
            stop: Duration::from_secs(2),
            ..Settings::default()
        };
        Self {
            root,
            settings,
            on_demand: None,
            fronts: Arc::new(FakeFronts::default()),
            site: Arc::new(Site::default()),
            gave_up: Arc::default(),
            lives: AtomicU64::new(0),
        }
    }

    pub(super) fn dirs(&self) -> Dirs {
        let dir = |name: &str| self.root.path().join(name);
        Dirs {
            config: dir("etc"),
            state: dir("state"),
            run: dir("run"),
            dev: dir("dev"),
        }
    }

    /// A file to be tapped, full of data that depends on `seed`.
    pub(super) fn disk(&self, name: &str, size_bytes: usize, seed: u8) -> PathBuf {
        let path = self.root.path().join(name);
        let bytes: Vec<u8> = (0..size_bytes).map(|n| (n / 512) as u8 ^ seed).collect();
        fs::write(&path, bytes).unwrap();
        path
    }

    pub(super) fn link(&self, volume: &str) -> PathBuf {
        self.root.path().join("dev/pg").join(volume)
    }

    pub(super) fn state(&self) -> State {
        StateFile::peek(&self.dirs().state_file(&group()), &group())
            .unwrap()
            .unwrap()
    }

    /// A new tap with a shipper.
    pub(super) fn tap(&self) -> Tap {
        let mut tap = self.tap_without_shipper();
        tap.shipper = Some(self.shipper());
        tap
    }

    pub(super) fn tap_without_shipper(&self) -> Tap {
        let dirs = self.dirs();
        let id = u128::from(self.lives.fetch_add(1, Ordering::Relaxed)) + 1;
        let fresh = State::new(group(), 100);
        let mut state = StateFile::open_or_create(&dirs.state_file(&group()), fresh).unwrap();
        let counter = state.state().incarnation.counter + 1;
        let incarnation = Incarnation { counter, id };
        state
            .update(|state| state.incarnation = incarnation)
            .unwrap();
        let config = RingConfig::for_payload(self.settings.ring_bytes).unwrap();
        let ring = Ring::create(&dirs.group_run(&group()), incarnation, config).unwrap();
        self.tap_with(state, ring, None)
    }

    /// The tap after one that was killed; it goes on with its ring and with `volumes`.
    pub(super) fn successor(&self, volumes: &[(&str, &Path)]) -> Tap {
        let dirs = self.dirs();
        let fresh = State::new(group(), 100);
        let state = StateFile::open_or_create(&dirs.state_file(&group()), fresh).unwrap();
        let life = state.state().incarnation;
        let roster = Roster::load(&dirs.roster(&group()), life).unwrap();
        let found = Ring::recover(&dirs.group_run(&group()), life, clock::now()).unwrap();
        let reopened = volumes.iter().map(|(volume, path)| {
            let spec = roster.volume(&name(volume)).expect("it was in the stream");
            Reopened {
                name: name(volume),
                path: path.to_path_buf(),
                disk: Arc::new(Disk::open(path, PATIENCE).unwrap()),
                waits: Waits::Device(u32::from(spec.index.0)),
                shape: Shape::default(),
                start: roster.start(spec.index, &found.ring),
            }
        });
        let is_gone = |spec: &&VolumeSpec| volumes.iter().all(|v| spec.name.as_str() != v.0);
        let gave_up = Arc::clone(&self.gave_up);
        let recovery = Recovery {
            orphans: found.orphans,
            volumes: reopened.collect(),
            gone: roster
                .volumes
                .iter()
                .filter(is_gone)
                .map(|spec| spec.name.clone())
                .collect(),
            roster,
            give_up: Box::new(move |_| gave_up.store(true, Ordering::Release)),
        };
        let mut tap = self.tap_with(state, found.ring, Some(recovery));
        tap.shipper = Some(self.shipper());
        tap
    }

    fn tap_with(&self, state: StateFile, ring: Ring, recovery: Option<Recovery>) -> Tap {
        let dirs = self.dirs();
        let ring = Arc::new(ring);
        let (post, inbox) = channel();
        let (jobs, job_inbox) = channel::<Job>();
        let generation = state.state().generation;
        let clerk = Clerk::new(
            dirs.clone(),
            Arc::clone(&self.fronts) as Arc<dyn Fronts>,
            state,
        );
        let done = post.clone();
        let clerk = std::thread::spawn(move || {
            clerk.run(&job_inbox, move |what| drop(done.send(Input::Clerk(what))))
        });
        let account = Account::own();
        let admission = Admission::Anybody(account);
        let port = Port::bind(&dirs.shipper_socket(&group()), admission, account).unwrap();
        let driver = Driver::new(DriverConfig {
            group: group(),
            source: name("db1"),
            dirs,
            settings: self.settings.clone(),
            ring: Arc::clone(&ring),
            generation,
            port,
            supervisor: None,
            clerk: jobs,
            inbox,
            post: post.clone(),
            on_demand: self.on_demand,
            recovery,
            becomes: Box::new(|program| Failure::failed(format!("no {}", program.display()))),
        });
        let driver = std::thread::spawn(move || driver.run());
        Tap {
            post,
            driver,
            clerk,
            ring,
            shipper: None,
        }
    }

    fn shipper(&self) -> Shipper {
        let ends = Arc::new(AtomicBool::new(false));
        let (own, site) = (Arc::clone(&ends), Arc::clone(&self.site));
        let socket = self.dirs().shipper_socket(&group());
        let thread = std::thread::spawn(move || {
            while !own.load(Ordering::Acquire) {
                if let Ok(channel) = Channel::connect(&socket) {
                    site.serve(&channel, &own);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Shipper { ends, thread }
    }

    /// Fails unless the receiver has what the disk holds.
    #[track_caller]
    pub(super) fn assert_equal(&self, volume: &str, disk: &Path) {
        let images = self.site.images.lock().unwrap();
        let image = images.get(volume).expect("the volume is at the receiver");
        assert!(
            *image == fs::read(disk).unwrap(),
            "{volume}: the image is not the disk"
        );
    }

    pub(super) fn members(&self) -> Vec<(String, MemberAction)> {
        self.site.members.lock().unwrap().clone()
    }
}

impl Tap {
    pub(super) fn ask(&self, request: Request) -> Reply {
        let (reply, answer) = ReplyTo::pair();
        self.post
            .send(Input::Asked(Asked { request, reply }))
            .unwrap();
        answer.recv_timeout(PATIENCE).expect("the tap answers")
    }

    pub(super) fn add(&self, disk: &Path, volume: &str) -> Result<Added, Failure> {
        let reply = self.ask(Request::Add(AddRequest {
            disk: disk.to_owned(),
            volume: volume.into(),
            queues: None,
            depth: None,
            ring_bytes: None,
            frontend: FrontKind::Ublk,
        }));
        match reply {
            Reply::Added(added) => Ok(added),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn remove(&self, volume: Option<&str>, abandon: bool) -> Result<Removed, Failure> {
        self.remove_within(volume, abandon, PATIENCE)
    }

    pub(super) fn remove_within(
        &self,
        volume: Option<&str>,
        abandon: bool,
        within: Duration,
    ) -> Result<Removed, Failure> {
        let reply = self.ask(Request::Remove(RemoveRequest {
            volume: volume.map(str::to_owned),
            abandon,
            timeout_ms: within.as_millis() as u64,
        }));
        match reply {
            Reply::Removed(removed) => Ok(removed),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn barrier(&self, within: Duration) -> Result<BarrierReached, Failure> {
        self.barrier_of(Settling::Applied, within)
    }

    pub(super) fn barrier_of(
        &self,
        wait: Settling,
        within: Duration,
    ) -> Result<BarrierReached, Failure> {
        let timeout_ms = within.as_millis() as u64;
        let reply = self.ask(Request::Barrier(BarrierRequest { wait, timeout_ms }));
        match reply {
            Reply::Barrier(reached) => Ok(reached),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn forget(&self, volume: &str) -> Result<(), Failure> {
        match self.ask(Request::Forget {
            volume: volume.into(),
        }) {
            Reply::Forgotten => Ok(()),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn status(&self) -> GroupStatus {
        match self.ask(Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(super) fn wait_mode(&self, mode: &str) -> GroupStatus {
        let start = Instant::now();
        loop {
            let status = self.status();
            if status.mode == mode {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "never {mode}: {status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(super) fn stop(&self) {
        self.post.send(Input::Stop).unwrap();
    }

    pub(super) fn is_over(&self) -> bool {
        self.driver.is_finished()
    }

    /// Waits for a tap that ends by itself.
    pub(super) fn end(mut self) {
        self.driver.join().unwrap();
        self.clerk.join().unwrap();
        end(self.shipper.take());
    }

    /// The tap is killed, and its disks are free for the next one.
    pub(super) fn die(self) {
        let (told, dead) = channel();
        self.post.send(Input::Die(told)).unwrap();
        dead.recv_timeout(PATIENCE).unwrap();
        self.crash();
    }

    /// The tap is killed: nobody writes anything down any more.
    pub(super) fn crash(mut self) {
        end(self.shipper.take());
        // The threads stay, as nothing can kill them; they have nobody to talk to.
        std::mem::forget(self);
    }
}

fn end(shipper: Option<Shipper>) {
    let Some(shipper) = shipper else { return };
    shipper.ends.store(true, Ordering::Release);
    shipper.thread.join().unwrap();
}

impl Site {
    /// Serves one tap until it goes or the test ends.
    fn serve(&self, channel: &Channel, ends: &AtomicBool) {
        let Some((welcome, consumer)) = attach(channel, ends) else {
            return;
        };
        let mut names: BTreeMap<u16, String> = BTreeMap::new();
        learn(&mut names, &welcome);
        let up = LinkReport {
            state: LinkState::Up,
            reason: String::new(),
            peer: "h:1".into(),
        };
        if channel.send_to_tap(&ToTap::Link(up)).is_err() {
            return;
        }
        while !ends.load(Ordering::Acquire) {
            if let Err(ring::handoff::ChannelError::Closed) = channel.recv_from_tap() {
                return;
            }
            if self.lies.swap(false, Ordering::AcqRel) {
                consumer.set_acked(Stamp(u64::MAX));
            }
            for what in self.says.lock().unwrap().drain(..) {
                channel.send_to_tap(&what).unwrap();
            }
            if !self.stalls.load(Ordering::Acquire) {
                self.take(&consumer, &mut names, channel);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take(&self, consumer: &Consumer, names: &mut BTreeMap<u16, String>, channel: &Channel) {
        let at = consumer.acked();
        let (mut entries, mut voids) = (Vec::new(), Vec::new());
        let Ok(settled) = consumer.settle_scan(at, 256, &mut voids) else {
            return;
        };
        if consumer.peek_filled(at, 256, &mut entries).is_err() || settled == at {
            return;
        }
        let mut mark = TimeMark(0);
        for entry in entries.iter().filter(|entry| entry.stamp <= settled) {
            mark = entry.mark;
            if !voids.contains(&entry.stamp) {
                self.apply(consumer, entry, names);
            }
        }
        consumer.set_sent(settled);
        consumer.set_acked(settled);
        let progress = Progress {
            durable: settled,
            settled,
            applied: settled,
            recoverable: mark,
            clock_offset_ns: 0,
        };
        // A tap that has gone needs no report.
        let _ = channel.send_to_tap(&ToTap::Progress(progress));
    }

    fn apply(&self, consumer: &Consumer, entry: &Entry, names: &mut BTreeMap<u16, String>) {
        let fields = entry.fields;
        let mut payload = Vec::new();
        consumer.read_payload(entry, &mut payload).unwrap();
        match fields.kind {
            RecordKind::Member => {
                let member = Member::parse(&payload).unwrap();
                names.insert(member.spec.index.0, member.spec.name.to_string());
                self.member(&member);
            }
            RecordKind::Gap => {
                self.gaps.fetch_add(1, Ordering::AcqRel);
            }
            RecordKind::Write | RecordKind::Copy | RecordKind::Zero => {
                let mut images = self.images.lock().unwrap();
                let name = names.get(&fields.volume.0).expect("a member comes first");
                let image = images.get_mut(name).expect("a member comes first");
                let start = fields.offset_bytes as usize;
                let range = start..start + fields.length_bytes as usize;
                payload.resize(range.len(), 0);
                image[range].copy_from_slice(&payload);
            }
            other => panic!("{other:?}"),
        }
    }

    fn member(&self, member: &Member) {
        let name = member.spec.name.to_string();
        let size = member.spec.size_bytes as usize;
        self.images
            .lock()
            .unwrap()
            .entry(name.clone())
            .or_insert_with(|| vec![0xa5; size]);
        self.members.lock().unwrap().push((name, member.action));
    }

    pub(super) fn want_copy(&self) {
        let wanted = CopyWanted {
            volume: None,
            reason: "journal lost".into(),
        };
        self.says.lock().unwrap().push(ToTap::CopyWanted(wanted));
    }

    pub(super) fn tell_generation(&self, generation: Generation) {
        self.says
            .lock()
            .unwrap()
            .push(ToTap::Generation(GenerationReport(generation)));
    }
}

fn attach(channel: &Channel, ends: &AtomicBool) -> Option<(Welcome, Consumer)> {
    loop {
        match channel.recv_from_tap() {
            Ok((ToShipper::Welcome(welcome), Some(fds))) => {
                return Some((welcome, Consumer::open(fds).unwrap()));
            }
            Err(ring::handoff::ChannelError::WouldBlock) if !ends.load(Ordering::Acquire) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => return None,
        }
    }
}

fn learn(names: &mut BTreeMap<u16, String>, welcome: &Welcome) {
    for volume in &welcome.volumes {
        names.insert(volume.index.0, volume.name.to_string());
    }
}

/// Makes devices that are none.
#[derive(Default)]
pub(super) struct FakeFronts {
    /// The next device cannot be made.
    pub(super) fails: AtomicBool,
    /// The clerk waits with the next disk while a test holds this.
    pub(super) opening: Mutex<()>,
    /// The clerk waits with the next device while a test holds this.
    pub(super) making: Mutex<()>,
    devices: Mutex<BTreeMap<String, Arc<Fake>>>,
}

/// A device that is none: writes as a queue thread would.
pub(super) struct Fake {
    id: u64,
    index: VolumeIndex,
    ring: Arc<Ring>,
    ranges: Arc<RangeTable>,
    file: File,
    stats: Mutex<Stats>,
    faults: Mutex<FaultList>,
    pub(super) is_mounted: AtomicBool,
    /// Happens while it stops, after the group has looked at it for the last time.
    pub(super) at_end: Mutex<Option<AtEnd>>,
    /// What the kernel has cached for it cannot be written.
    pub(super) loses_cache: AtomicBool,
    /// What is cached for it, and how often it was asked to write it.
    pub(super) retirement: Mutex<(Option<AtEnd>, u32)>,
    /// Happens right after the group has taken its faults.
    pub(super) behind: Mutex<Option<AtEnd>>,
    /// How often it was asked to be kept from mounts, and how often it must be until it is known.
    pub(super) asked_to_hold: AtomicU64,
    pub(super) holds_after: AtomicU64,
    /// The disk does not answer for what is in flight.
    pub(super) drains: AtomicBool,
    was_asked_to_stop: AtomicBool,
    is_stopped: AtomicBool,
}

type AtEnd = Box<dyn FnOnce(&Fake) + Send>;

impl FakeFronts {
    pub(super) fn device(&self, volume: &str) -> Arc<Fake> {
        Arc::clone(
            self.devices
                .lock()
                .unwrap()
                .get(volume)
                .expect("the device was made"),
        )
    }
}

impl Fronts for FakeFronts {
    fn check(&self, _kind: FrontKind) -> Result<(), DeviceError> {
        drop(self.opening.lock().unwrap());
        Ok(())
    }

    fn start(&self, config: DeviceConfig) -> Result<Box<dyn Front>, DeviceError> {
        drop(self.making.lock().unwrap());
        if self.fails.swap(false, Ordering::AcqRel) {
            return Err(DeviceError::NoDriver);
        }
        let mut devices = self.devices.lock().unwrap();
        let file = fs::OpenOptions::new()
            .write(true)
            .open(config.disk.path())
            .unwrap();
        let fake = Arc::new(Fake {
            id: devices.len() as u64,
            file,
            stats: Mutex::default(),
            faults: Mutex::default(),
            is_mounted: AtomicBool::new(false),
            at_end: Mutex::default(),
            loses_cache: AtomicBool::new(false),
            retirement: Mutex::default(),
            behind: Mutex::default(),
            asked_to_hold: AtomicU64::new(0),
            holds_after: AtomicU64::new(3),
            drains: AtomicBool::new(false),
            was_asked_to_stop: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            index: config.index,
            ring: config.ring,
            ranges: config.ranges,
        });
        devices.insert(config.volume.to_string(), Arc::clone(&fake));
        Ok(Box::new(fake))
    }
}

impl Fake {
    /// A write: range, place, disk, answer. It gets no place in a stream that is given up.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        assert!(self.try_write(at, bytes, true), "the ring is full");
    }

    /// A write that the disk refuses after it has changed half of it.
    pub(super) fn write_badly(&self, at: u64, bytes: &[u8]) {
        self.file
            .write_all_at(&bytes[..bytes.len() / 2], at)
            .unwrap();
        assert!(self.try_write(at, bytes, false), "the ring is full");
    }

    /// A write that fails and changes nothing.
    pub(super) fn fail(&self, at: u64, bytes: u64) {
        let fault = Fault {
            range: Range::of_length(at, bytes),
            errno: 5,
        };
        self.faults.lock().unwrap().faults.push(fault);
        self.ring.doubt(self.index);
    }

    /// What a failed write may do.
    pub(super) fn change_behind(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// More writes failed than could be noted.
    pub(super) fn overflow(&self) {
        self.faults.lock().unwrap().overflowed = true;
    }

    /// Nobody changes or reads `range` while the guard lives.
    pub(super) fn hold(&self, at: u64, bytes: u64) -> HeldRange<'_> {
        self.ranges.admit_blocking(Range::of_length(at, bytes))
    }

    /// Writes until the ring is full; how many records there was room for.
    pub(super) fn fill_ring(&self) -> usize {
        let sizes = [64 << 10, 512];
        let fill = |size| {
            let bytes = vec![7; size];
            (0..1 << 20)
                .take_while(|_| self.try_write(0, &bytes, true))
                .count()
        };
        sizes.map(fill).iter().sum()
    }

    /// A write the disk has yet to answer for.
    pub(super) fn begin(&self, at: u64, bytes: &[u8]) -> Filled {
        self.try_begin(at, bytes).expect("the ring has room")
    }

    /// The same, if the ring has room.
    pub(super) fn try_begin(&self, at: u64, bytes: &[u8]) -> Option<Filled> {
        let length = bytes.len() as u32;
        let mut claim = self.ring.claim(length, clock::now()).ok()?;
        claim.payload_mut().copy_from_slice(bytes);
        let filled = claim.fill(RecordFields::write(self.index, at, length, false));
        self.ring.notify_consumer();
        Some(filled)
    }

    /// A discard the disk has yet to answer for.
    pub(super) fn begin_discard(&self, at: u64, length_bytes: u32) -> Filled {
        let claim = self.ring.claim(0, clock::now()).unwrap();
        let filled = claim.fill(RecordFields::discard(self.index, at, length_bytes));
        self.ring.notify_consumer();
        filled
    }

    /// Waits until the receiver has everything up to here.
    pub(super) fn await_acked(&self, stamp: Stamp) {
        eventually("it is acked", || {
            self.ring.try_reclaim().unwrap();
            self.ring.acked() >= stamp
        });
    }

    fn try_write(&self, at: u64, bytes: &[u8], is_good: bool) -> bool {
        assert!(
            !self.is_stopped.load(Ordering::Acquire),
            "the device is gone"
        );
        let range = Range::of_length(at, bytes.len() as u64);
        let held = self.ranges.admit_blocking(range);
        if !is_good {
            self.fail(at, range.length_bytes());
        }
        match self.ring.claim(bytes.len() as u32, clock::now()) {
            Ok(claim) => self.captured(claim, at, bytes, is_good),
            Err(ClaimError::Full) => return false,
            Err(ClaimError::Closed | ClaimError::AckViolation(_)) => self.uncaptured(at, bytes),
            Err(error) => panic!("{error}"),
        }
        drop(held);
        true
    }

    fn captured(&self, mut claim: Claim, at: u64, bytes: &[u8], is_good: bool) {
        claim.payload_mut().copy_from_slice(bytes);
        let index = self.index;
        let filled = claim.fill(RecordFields::write(index, at, bytes.len() as u32, false));
        if is_good {
            self.file.write_all_at(bytes, at).unwrap();
            filled.settle();
        } else {
            filled.void();
        }
        self.ring.notify_consumer();
    }

    fn uncaptured(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
        self.stats.lock().unwrap().uncaptured_bytes += bytes.len() as u64;
    }
}

impl Front for Arc<Fake> {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/fake{}", self.id))
    }

    fn queues(&self) -> usize {
        1
    }

    fn stats(&self) -> Stats {
        *self.stats.lock().unwrap()
    }

    fn take_faults(&self) -> FaultList {
        let faults = std::mem::take(&mut *self.faults.lock().unwrap());
        if let Some(behind) = self.behind.lock().unwrap().take() {
            behind(self);
        }
        faults
    }

    fn hold(&mut self) -> Result<(), RetireError> {
        let asked = self.asked_to_hold.fetch_add(1, Ordering::AcqRel) + 1;
        if asked < self.holds_after.load(Ordering::Acquire) {
            return Err(RetireError::Writing);
        }
        if self.is_mounted.load(Ordering::Acquire) {
            return Err(RetireError::InUse);
        }
        Ok(())
    }

    fn has_ended(&self) -> bool {
        self.was_asked_to_stop.load(Ordering::Acquire)
    }

    fn retire(&mut self, must_be_free: bool) -> Result<(), RetireError> {
        if must_be_free && self.is_mounted.load(Ordering::Acquire) {
            return Err(RetireError::InUse);
        }
        if self.loses_cache.load(Ordering::Acquire) {
            return Err(RetireError::Sync("EIO".into()));
        }
        let mut steps = self.retirement.lock().unwrap();
        if let Some(cached) = steps.0.take() {
            cached(self);
        }
        steps.1 += 1;
        if steps.1 < 3 {
            Err(RetireError::Writing)
        } else {
            Ok(())
        }
    }

    fn stay(&mut self) {
        self.retirement.lock().unwrap().1 = 0;
    }

    fn stop(&mut self, within: Duration) -> Result<(), StopError> {
        // The first call asks, the next finds it done.
        if !self.was_asked_to_stop.swap(true, Ordering::AcqRel) && within.is_zero() {
            return Err(StopError::Draining);
        }
        if self.drains.load(Ordering::Acquire) {
            return Err(StopError::Draining);
        }
        if let Some(at_end) = self.at_end.lock().unwrap().take() {
            at_end(self);
        }
        self.is_stopped.store(true, Ordering::Release);
        Ok(())
    }
}

pub(super) fn group() -> Name {
    name("pg")
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Waits until `probe` holds.
#[track_caller]
pub(super) fn eventually(what: &str, mut probe: impl FnMut() -> bool) {
    let start = Instant::now();
    while !probe() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
