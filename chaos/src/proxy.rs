//! The network between source and receiver: a UDP proxy that loses, doubles, reorders, delays and holds
//! datagrams. It looks into none.

use crate::plan::Weather;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sim::dice::Dice;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The proxy, while it runs.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    sky: Arc<Sky>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Sky {
    weather: Mutex<Weather>,
    holds_forth: AtomicBool,
    holds_back: AtomicBool,
    faults: AtomicU64,
    ends: AtomicBool,
}

/// Most datagrams held; the next are lost.
const HELD_MAX: usize = 8192;
/// Most addresses of shippers; the one longest silent goes.
const FLOWS_MAX: usize = 32;
/// An overtaken datagram is this much later.
const LATE_MS: u64 = 30;
const DATAGRAM_BYTES: usize = 1 << 16;
/// Longest wait, so that an end and a changed sky are seen.
const TICK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Forth,
    Back,
}

#[derive(Debug)]
struct Flow {
    /// Towards the receiver.
    socket: UdpSocket,
    last: Instant,
}

struct Loop {
    front: UdpSocket,
    receiver: SocketAddr,
    flows: HashMap<SocketAddr, Flow>,
    held: BinaryHeap<Reverse<(Instant, u64)>>,
    datagrams: HashMap<u64, (Way, SocketAddr, Vec<u8>)>,
    next: u64,
    dice: Dice,
    sky: Arc<Sky>,
}

impl Proxy {
    /// Begins, before `receiver`, with fair weather.
    pub fn start(receiver: SocketAddr, dice: Dice) -> io::Result<Self> {
        let front = UdpSocket::bind("127.0.0.1:0")?;
        front.set_nonblocking(true)?;
        let address = front.local_addr()?;
        let sky = Arc::<Sky>::default();
        let mut running = Loop {
            front,
            receiver,
            flows: HashMap::new(),
            held: BinaryHeap::new(),
            datagrams: HashMap::new(),
            next: 0,
            dice,
            sky: sky.clone(),
        };
        let thread = std::thread::spawn(move || running.run());
        Ok(Self {
            address,
            sky,
            thread: Some(thread),
        })
    }

    /// Where sources reach the receiver.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The weather from now on.
    pub fn set(&self, weather: Weather) {
        let mut current = self.sky.weather.lock();
        **current.as_mut().unwrap_or_else(PoisonError::get_mut) = weather;
    }

    /// Holds what goes to the receiver, and what comes back, or lets it go.
    pub fn hold(&self, forth: bool, back: bool) {
        self.sky.holds_forth.store(forth, Ordering::Relaxed);
        self.sky.holds_back.store(back, Ordering::Relaxed);
    }

    /// Datagrams lost, doubled or overtaken so far.
    pub fn faults(&self) -> u64 {
        self.sky.faults.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.sky.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Loop {
    fn run(&mut self) {
        let mut room = vec![0; DATAGRAM_BYTES];
        while !self.sky.ends.load(Ordering::Relaxed) {
            self.wait();
            while let Ok((count, from)) = self.front.recv_from(&mut room) {
                if self.flow(from).is_ok() {
                    self.take((Way::Forth, from), &room[..count]);
                }
            }
            let sources: Vec<SocketAddr> = self.flows.keys().copied().collect();
            for source in sources {
                while let Some(count) = self.receive(source, &mut room) {
                    self.take((Way::Back, source), &room[..count]);
                }
            }
            self.let_go();
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let due = self.held.peek().map(|Reverse((due, _))| *due);
        let wait = due.map_or(TICK, |due| due.saturating_duration_since(now));
        // What is held back is due already: the clock paces that.
        let wait = wait.clamp(Duration::from_millis(1), TICK);
        let sockets = self.flows.values().map(|flow| &flow.socket);
        let sockets = sockets.chain([&self.front]);
        let mut watched: Vec<PollFd<'_>> = sockets
            .map(|socket| PollFd::new(socket, PollFlags::IN))
            .collect();
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        // An interruption only ends the wait.
        let _ = poll(&mut watched, Some(&wait));
    }

    /// The flow of a source, made if there is none.
    fn flow(&mut self, source: SocketAddr) -> io::Result<()> {
        let now = Instant::now();
        if let Some(flow) = self.flows.get_mut(&source) {
            flow.last = now;
            return Ok(());
        }
        if self.flows.len() >= FLOWS_MAX {
            let silent = self.flows.iter().min_by_key(|(_, flow)| flow.last);
            if let Some(silent) = silent.map(|(source, _)| *source) {
                self.flows.remove(&silent);
            }
        }
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        self.flows.insert(source, Flow { socket, last: now });
        Ok(())
    }

    /// A datagram of the receiver. One that is dead is told so by an error, which is passed over.
    fn receive(&self, source: SocketAddr, room: &mut [u8]) -> Option<usize> {
        let flow = self.flows.get(&source)?;
        loop {
            match flow.socket.recv_from(room) {
                Ok((count, from)) if from == self.receiver => return Some(count),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, (way, source): (Way, SocketAddr), datagram: &[u8]) {
        let weather = self.sky.weather.lock();
        let weather = *weather.unwrap_or_else(PoisonError::into_inner);
        if self.dice.permille(weather.lost) || self.held.len() >= HELD_MAX {
            self.sky.faults.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = 1 + u64::from(self.dice.permille(weather.doubled));
        self.sky.faults.fetch_add(copies - 1, Ordering::Relaxed);
        for _ in 0..copies {
            let mut delay_ms = weather.delay_ms;
            if self.dice.permille(weather.overtaken) {
                delay_ms += 1 + self.dice.roll(LATE_MS);
                self.sky.faults.fetch_add(1, Ordering::Relaxed);
            }
            let due = Instant::now() + Duration::from_millis(delay_ms);
            self.next += 1;
            self.held.push(Reverse((due, self.next)));
            self.datagrams
                .insert(self.next, (way, source, datagram.to_vec()));
        }
    }

    /// Sends what is due and not held.
    fn let_go(&mut self) {
        let now = Instant::now();
        let mut kept = Vec::new();
        while let Some(Reverse((due, nth))) = self.held.pop() {
            if due > now {
                self.held.push(Reverse((due, nth)));
                break;
            }
            let Some((way, source, datagram)) = self.datagrams.remove(&nth) else {
                continue;
            };
            let holds = match way {
                Way::Forth => &self.sky.holds_forth,
                Way::Back => &self.sky.holds_back,
            };
            if holds.load(Ordering::Relaxed) {
                kept.push((due, nth));
                self.datagrams.insert(nth, (way, source, datagram));
                continue;
            }
            // A socket that does not take it loses it, as a network does.
            let _ = match (way, self.flows.get(&source)) {
                (Way::Forth, Some(flow)) => flow.socket.send_to(&datagram, self.receiver),
                (Way::Forth, None) => Ok(0),
                (Way::Back, _) => self.front.send_to(&datagram, source),
            };
        }
        self.held.extend(kept.into_iter().map(Reverse));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends numbered datagrams through; the numbers that arrive, in order.
    fn through(weather: Weather, count: u32) -> Vec<u32> {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(receiver.local_addr().unwrap(), Dice::new(1)).unwrap();
        proxy.set(weather);
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let mut arrived = Vec::new();
        let mut room = [0; 8];
        for number in 0..count {
            let sent = source.send_to(&number.to_be_bytes(), proxy.address());
            assert_eq!(sent.unwrap(), 4);
            std::thread::sleep(Duration::from_micros(200));
        }
        while let Ok((4, back)) = receiver.recv_from(&mut room) {
            arrived.push(u32::from_be_bytes([room[0], room[1], room[2], room[3]]));
            receiver.send_to(b"ok", back).unwrap();
        }
        if weather == Weather::default() {
            source
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            assert_eq!(source.recv_from(&mut room).unwrap().1, proxy.address());
        }
        arrived
    }

    #[test]
    fn fair_weather_changes_nothing_and_foul_weather_does_all_it_should() {
        let all: Vec<u32> = (0..200).collect();
        assert_eq!(through(Weather::default(), 200), all);
        let foul = Weather {
            lost: 100,
            doubled: 100,
            overtaken: 100,
            delay_ms: 1,
        };
        let arrived = through(foul, 200);
        let mut once = arrived.clone();
        once.sort_unstable();
        once.dedup();
        assert!(once.len() < 200, "some are lost");
        assert!(arrived.len() > once.len(), "some come twice");
        assert!(!arrived.is_sorted(), "some are overtaken");
    }
}
