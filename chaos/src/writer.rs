//! Writers: applications that write, zero, discard, flush and read over connections of their own, and go
//! on with what they were told nothing about when the tap is back.

use crate::history::{Change, Extent, History};
use crate::nbd::{Answer, Client, Command, ESHUTDOWN};
use crate::site::SECTORS;
use sim::dice::Dice;
use sim::oracle::{SECTOR_BYTES, ZERO, fill, read};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What writers and those who judge share.
#[derive(Debug)]
pub struct Shared {
    history: Mutex<History>,
    violations: Mutex<Vec<String>>,
    /// Writers come to rest.
    pub ends: AtomicBool,
    /// Nothing but newest points is looked at.
    pub is_keen: AtomicBool,
    /// Nothing is looked at any more until all is at rest.
    pub is_over: AtomicBool,
    /// The newest point seen is not before this moment.
    pub floor: AtomicU64,
    /// Newest points looked at.
    pub looks: AtomicU64,
    /// Beats of [`Shared::beat`].
    pub beats: AtomicU64,
    /// Requests answered.
    pub answers: AtomicU64,
    /// Requests whose answer was lost.
    pub cut_off: AtomicU64,
}

/// One connection, one after the other.
#[derive(Debug)]
pub struct Writer<'a> {
    shared: &'a Shared,
    socket: PathBuf,
    volume: usize,
    dice: Dice,
    next: u64,
    in_flight: HashMap<u64, Asked>,
    /// Changes whose answer was lost.
    unsettled: Vec<Change>,
    /// The beat of the last answer.
    heard_at: u64,
}

#[derive(Clone, Debug)]
enum Asked {
    Change(Change),
    Flush,
    Read(Extent),
}

const BEAT: Duration = Duration::from_millis(100);
/// No answer takes longer, whatever is done to the tap.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// Between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// No tap is away longer, in attempts.
const TAP_PATIENCE: Duration = Duration::from_secs(90);
/// Sectors of a request (`request_bytes`); a larger one is cut into several records.
const RECORD_SECTORS: usize = 1 << 10;
/// Changes that are often made again.
const HOT_SECTORS: u64 = 2048;

impl Shared {
    /// Nothing has happened to `history`.
    pub fn new(history: History) -> Self {
        Self {
            history: Mutex::new(history),
            violations: Mutex::default(),
            ends: AtomicBool::new(false),
            is_keen: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            floor: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// The history.
    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must never be was seen.
    pub fn violation(&self, words: String) {
        let mut all = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        eprintln!("violation: {words}");
        all.push(words);
    }

    /// All that was seen.
    pub fn violations(&self) -> Vec<String> {
        let all = self.violations.lock();
        all.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts the time this process runs, until nothing is written any more: what stands still with all of
    /// the machine is not late.
    pub fn beat(&self) {
        while !self.ends.load(Ordering::Relaxed) {
            thread::sleep(BEAT);
            self.beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps sectors from being changed, whoever waits.
    fn hold(&self, extent: &Extent) -> bool {
        self.history().hold(extent)
    }
}

impl<'a> Writer<'a> {
    /// A writer to a volume at its socket.
    pub fn new(shared: &'a Shared, volume: usize, socket: PathBuf, dice: Dice) -> Self {
        Self {
            shared,
            socket,
            volume,
            dice,
            next: 1,
            in_flight: HashMap::new(),
            unsettled: Vec::new(),
            heard_at: 0,
        }
    }

    /// Writes until told to end, and leaves nothing in flight.
    pub fn run(mut self) {
        let mut tries = 0;
        while !self.is_over() {
            let Ok(mut client) = Client::connect(&self.socket, ANSWER_PATIENCE) else {
                tries += 1;
                if tries * CONNECT_PAUSE > TAP_PATIENCE {
                    let words = format!("P12: {} is not served again", self.socket.display());
                    self.shared.violation(words);
                    return;
                }
                thread::sleep(CONNECT_PAUSE);
                continue;
            };
            if let Err(error) = self.serve(&mut client) {
                self.part(&error);
            }
            tries = 0;
        }
    }

    fn is_over(&self) -> bool {
        self.shared.ends.load(Ordering::Relaxed) && self.unsettled.is_empty()
    }

    /// One connection, until it breaks or all is over.
    fn serve(&mut self, client: &mut Client) -> io::Result<()> {
        self.heard_at = self.shared.beats.load(Ordering::Relaxed);
        self.settle(client)?;
        while !self.shared.ends.load(Ordering::Relaxed) {
            let depth = self.dice.spread(1, 16) as usize;
            for _ in 0..self.dice.spread(1, 64) {
                self.ask(client)?;
                while self.in_flight.len() >= depth {
                    self.take_answer(client)?;
                }
            }
            while !self.in_flight.is_empty() {
                self.take_answer(client)?;
            }
            // Now and then one burst follows the other.
            let pause_ms = match self.dice.permille(50) {
                true => 0,
                false => self.dice.spread(10, 300),
            };
            thread::sleep(Duration::from_millis(pause_ms));
        }
        Ok(())
    }

    /// The connection is gone, and with it the answers.
    fn part(&mut self, error: &io::Error) {
        let is_slow = matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        );
        let beats = self.shared.beats.load(Ordering::Relaxed) - self.heard_at;
        if is_slow && u128::from(beats) * BEAT.as_millis() > ANSWER_PATIENCE.as_millis() / 2 {
            let words = format!("P6: no answer within {ANSWER_PATIENCE:?}");
            self.shared.violation(words);
        }
        for (_, asked) in std::mem::take(&mut self.in_flight) {
            self.shared.cut_off.fetch_add(1, Ordering::Relaxed);
            match asked {
                Asked::Change(change) => self.unsettled.push(change),
                Asked::Read(extent) => self.shared.history().release(&extent),
                Asked::Flush => {}
            }
        }
    }

    /// Reads what became of changes whose answers were lost.
    fn settle(&mut self, client: &mut Client) -> io::Result<()> {
        while let Some(change) = self.unsettled.last().copied() {
            let extent = self.shared.history().extent(change);
            client.ask(0, Command::Read, bytes(&extent), &[])?;
            let answer = client.answer()?;
            if answer.error != 0 {
                return Err(io::Error::other("it ends again"));
            }
            let found = self.contents(client, &extent)?;
            let settled = self.shared.history().settle(change, &found);
            settled.unwrap_or_else(|words| self.shared.violation(words));
            self.unsettled.pop();
        }
        Ok(())
    }

    fn contents(&self, client: &mut Client, extent: &Extent) -> io::Result<Vec<u64>> {
        let data = client.data(extent.sectors.len() * SECTOR_BYTES)?;
        let sectors = data.chunks_exact(SECTOR_BYTES).zip(extent.sectors.clone());
        Ok(sectors
            .map(|(bytes, sector)| read(bytes, self.volume, sector))
            .collect())
    }

    fn extent(&mut self) -> Extent {
        let largest = match self.dice.roll(100) {
            0 => 4096,
            1..10 => 512,
            _ => 64,
        };
        let count = self.dice.spread(1, largest) as usize;
        let first = match self.dice.coin() {
            true => self.dice.roll(HOT_SECTORS),
            false => self.dice.roll(SECTORS as u64),
        } as usize;
        Extent {
            volume: self.volume,
            sectors: first..(first + count).min(SECTORS),
        }
    }

    /// Asks for something, unless its sectors are in flight.
    fn ask(&mut self, client: &mut Client) -> io::Result<()> {
        let cookie = self.next;
        self.next += 1;
        let durable = self.dice.permille(100);
        let command = match self.dice.roll(100) {
            0..70 => Command::Write { durable },
            70..78 => Command::Zeroes,
            78..86 => Command::Trim,
            86..90 => Command::Flush,
            _ => Command::Read,
        };
        let extent = self.extent();
        let asked = match command {
            Command::Flush => Asked::Flush,
            Command::Read if self.shared.hold(&extent) => Asked::Read(extent.clone()),
            Command::Read => return Ok(()),
            _ => {
                let zeroes = !matches!(command, Command::Write { .. });
                let whole = extent.sectors.len() <= RECORD_SECTORS;
                let change = self.shared.history().ask(&extent, zeroes, whole);
                let Some(change) = change else { return Ok(()) };
                Asked::Change(change)
            }
        };
        let payload = match (command, &asked) {
            (Command::Write { .. }, Asked::Change(change)) => {
                let mut payload = vec![0; extent.sectors.len() * SECTOR_BYTES];
                fill(
                    &mut payload,
                    self.volume,
                    extent.sectors.start,
                    *change as u64,
                );
                payload
            }
            _ => Vec::new(),
        };
        let range = match command {
            Command::Flush => (0, 0),
            _ => bytes(&extent),
        };
        self.in_flight.insert(cookie, asked);
        client.ask(cookie, command, range, &payload)
    }

    fn take_answer(&mut self, client: &mut Client) -> io::Result<()> {
        let Answer { cookie, error } = client.answer()?;
        let Some(asked) = self.in_flight.get(&cookie).cloned() else {
            let words = format!("an answer to {cookie}, which was not asked");
            self.shared.violation(words);
            return Err(io::Error::other("nonsense"));
        };
        if error == ESHUTDOWN {
            return Err(io::Error::other("it ends"));
        }
        if error != 0 {
            let words = format!("P6: error {error} for {asked:?}, and the disk is whole");
            self.shared.violation(words);
            return Err(io::Error::other("refused"));
        }
        match asked {
            Asked::Change(change) => self.shared.history().answer(change),
            Asked::Flush => {}
            Asked::Read(extent) => {
                let found = self.contents(client, &extent)?;
                let mut history = self.shared.history();
                let compared = history.compare(&extent, &found);
                history.release(&extent);
                drop(history);
                compared.unwrap_or_else(|words| self.shared.violation(words));
            }
        }
        self.in_flight.remove(&cookie);
        self.heard_at = self.shared.beats.load(Ordering::Relaxed);
        self.shared.answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Offset and length of an extent.
fn bytes(extent: &Extent) -> (u64, u32) {
    let length = extent.sectors.len() * SECTOR_BYTES;
    ((extent.sectors.start * SECTOR_BYTES) as u64, length as u32)
}

/// What the sectors of an image hold.
pub fn contents(image: &[u8], volume: usize) -> Vec<u64> {
    let sectors = image.chunks_exact(SECTOR_BYTES).enumerate();
    let contents = sectors.map(|(sector, bytes)| read(bytes, volume, sector));
    contents.collect()
}

/// A disk before anything: half of its sectors written long ago, in runs.
pub fn initial(volume: usize, dice: &mut Dice) -> (Vec<u64>, Vec<u8>) {
    let mut held = Vec::with_capacity(SECTORS);
    while held.len() < SECTORS {
        let content = if dice.coin() {
            sim::oracle::INITIAL
        } else {
            ZERO
        };
        let run = dice.spread(1, 512) as usize;
        held.extend(std::iter::repeat_n(content, run.min(SECTORS - held.len())));
    }
    let mut image = vec![0; SECTORS * SECTOR_BYTES];
    let sectors = image.chunks_exact_mut(SECTOR_BYTES).enumerate();
    for ((sector, bytes), content) in sectors.zip(&held) {
        fill(bytes, volume, sector, *content);
    }
    (held, image)
}
