//! Sources that speak the real protocol, as fast as it goes.

use crate::{noise, rate};
use link::{Identity, Protocol};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::path::Path;
use std::time::{Instant, SystemTime};
use wire::control::{Ack, Control, Hello};
use wire::{
    BatchHeader, Generation, Incarnation, JoinReply, JoinRequest, Member, MemberAction, Name,
    RecordHeader, RecordKind, SettleMark, Stamp, TimeMark, Token, VolumeIndex, VolumeSpec,
};

const BATCH_BYTES: u64 = 1 << 20;
/// Payloads are cut from this.
const NOISE_BYTES: u64 = 8 << 20;
const INCARNATION: Incarnation = Incarnation { counter: 1, id: 7 };

/// What is sent.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) record_bytes: u64,
    pub(crate) total_bytes: u64,
    pub(crate) depth: u64,
}

/// Records in batches, ready to be sent.
struct Prepared {
    batches: Vec<(u32, Vec<u8>)>,
    last: Stamp,
}

fn spec(load: Load) -> VolumeSpec {
    VolumeSpec {
        index: VolumeIndex(0),
        name: Name::new("data").unwrap(),
        size_bytes: load.total_bytes,
        sector_bytes: 512,
        identity: "wwn:bench".into(),
    }
}

impl Prepared {
    fn new(load: Load) -> Self {
        let noise = noise(NOISE_BYTES, load.record_bytes);
        let count = load.total_bytes / load.record_bytes;
        let mut all = Self {
            batches: Vec::new(),
            last: Stamp::ZERO,
        };
        let per_batch = match load.depth {
            0 => (BATCH_BYTES / load.record_bytes).clamp(1, 1024),
            // A batch is bounded: so many records may take several.
            depth => depth.min(BATCH_BYTES / load.record_bytes).max(1),
        };
        let member = |action| Member {
            action,
            spec: spec(load),
        };
        if load.depth > 0 {
            all.push(
                RecordKind::Member,
                0,
                &member(MemberAction::Join).to_bytes(),
                1,
            );
        }
        for at in 0..count {
            // Every block once, far apart: nothing is overwritten, nothing is sequential.
            let block = at.wrapping_mul(0x9e37_79b1) % count.next_power_of_two();
            let block = if block < count { block } else { at };
            let from = (at * 4096 % (NOISE_BYTES - load.record_bytes)) as usize;
            let payload = &noise[from..from + load.record_bytes as usize];
            let kind = if load.depth > 0 {
                RecordKind::Copy
            } else {
                RecordKind::Write
            };
            all.push(kind, block * load.record_bytes, payload, per_batch);
        }
        if load.depth > 0 {
            all.push(
                RecordKind::Member,
                0,
                &member(MemberAction::Ready).to_bytes(),
                1,
            );
        }
        all
    }

    fn push(&mut self, kind: RecordKind, offset_bytes: u64, payload: &[u8], per_batch: u64) {
        self.last = self.last.next();
        let ranged = kind != RecordKind::Member;
        let length = payload.len() as u32;
        let header = RecordHeader {
            kind,
            fua: false,
            volume: VolumeIndex(0),
            stamp: self.last,
            mark: TimeMark(1_700_000_000_000_000_000 + self.last.0),
            offset_bytes,
            length_bytes: if ranged { length } else { 0 },
            payload_bytes: length,
            incarnation_id: INCARNATION.id,
            checksum: 0,
        };
        let header = header.sealed(payload).to_bytes();
        let full = |(count, _): &(u32, Vec<u8>)| u64::from(*count) >= per_batch;
        if self.batches.last().is_none_or(full) {
            self.batches.push((0, Vec::new()));
        }
        let (count, bytes) = self.batches.last_mut().unwrap();
        *count += 1;
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
    }
}

struct Talk {
    connection: Connection,
    say: SendStream,
    hear: RecvStream,
    session: u64,
    settled: Stamp,
    acked: Ack,
    _endpoint: Endpoint,
}

impl Talk {
    async fn open(token: &Token, address: &str, prepared: &Prepared, load: Load) -> Self {
        let identity = Identity::generate(SystemTime::now()).unwrap();
        join(token, &identity).await;
        let reached = link::connect(address, &identity, token.receiver, Protocol::Session);
        let (endpoint, connection) = reached.await.unwrap();
        let (mut say, mut hear) = connection.open_bi().await.unwrap();
        let hello = Hello {
            probe: false,
            source: token.source.clone(),
            group: token.source.clone(),
            generation: Generation::default(),
            incarnation: INCARNATION,
            ring_slots: 1 << 24,
            oldest: Stamp(1),
            captured: prepared.last,
            volumes: vec![spec(load)],
        };
        link::write_control(&mut say, &Control::Hello(hello))
            .await
            .unwrap();
        let Control::HelloAck(greeted) = link::read_control(&mut hear).await.unwrap() else {
            panic!("the hello is refused");
        };
        Self {
            connection,
            say,
            hear,
            session: greeted.session,
            settled: Stamp::ZERO,
            acked: Ack::default(),
            _endpoint: endpoint,
        }
    }

    /// Sends everything; returns when it is durable, or applied.
    async fn run(&mut self, prepared: &Prepared, depth: u64) {
        if depth > 0 {
            let (mut sent, mut open) = (Stamp::ZERO, 0);
            for (count, bytes) in &prepared.batches {
                send_batch(&self.connection, self.session, *count, bytes).await;
                sent = Stamp(sent.0 + u64::from(*count));
                open += u64::from(*count);
                if open >= depth || sent == prepared.last {
                    self.settle(sent).await;
                    self.until(|ack| ack.durable >= sent).await;
                    open = 0;
                }
            }
            self.until(|ack| ack.applied >= prepared.last).await;
            return;
        }
        let (connection, session) = (self.connection.clone(), self.session);
        let sending = async {
            for (count, bytes) in &prepared.batches {
                send_batch(&connection, session, *count, bytes).await;
            }
        };
        let last = prepared.last;
        tokio::join!(sending, self.until(|ack| ack.durable >= last));
    }

    async fn settle(&mut self, upto: Stamp) {
        let mark = SettleMark {
            after: self.settled,
            upto,
            voids: Vec::new(),
        };
        link::write_control(&mut self.say, &Control::Settle(mark))
            .await
            .unwrap();
        self.settled = upto;
    }

    async fn until(&mut self, holds: impl Fn(&Ack) -> bool) {
        while !holds(&self.acked) {
            match link::read_control(&mut self.hear).await.unwrap() {
                Control::Ack(ack) => self.acked = ack,
                Control::Bye(reason) => panic!("{reason}"),
                _ => {}
            }
        }
    }
}

async fn send_batch(connection: &Connection, session: u64, records: u32, bytes: &[u8]) {
    let header = BatchHeader {
        session,
        records,
        bytes: bytes.len() as u32,
    };
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&header.to_bytes()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.finish().unwrap();
}

async fn join(token: &Token, identity: &Identity) {
    let reached = link::connect(&token.address, identity, token.receiver, Protocol::Join);
    let (_endpoint, connection) = reached.await.unwrap();
    let (mut say, mut hear) = connection.open_bi().await.unwrap();
    let request = JoinRequest {
        secret: token.secret,
        source: token.source.clone(),
    };
    link::write_join_request(&mut say, &request).await.unwrap();
    assert_eq!(
        link::read_join_reply(&mut hear).await.unwrap(),
        JoinReply::Enrolled
    );
}

/// Every source sends its share at the same time; the load is that of each.
pub(crate) fn send(dir: &Path, address: &str, load: Load, tokens: &[&str]) -> serde_json::Value {
    assert!(dir.is_dir(), "no receiver in {}", dir.display());
    let prepared = Prepared::new(load);
    let runtime = runtime();
    let time = runtime.block_on(async {
        let mut talks = Vec::new();
        for token in tokens {
            let token: Token = token.parse().unwrap();
            talks.push(Talk::open(&token, address, &prepared, load).await);
        }
        let start = Instant::now();
        let mut running = Vec::new();
        let prepared = std::sync::Arc::new(prepared);
        for mut talk in talks {
            let prepared = prepared.clone();
            running.push(tokio::spawn(async move {
                talk.run(&prepared, load.depth).await;
                talk
            }));
        }
        let mut done = Vec::new();
        for talk in running {
            done.push(talk.await.unwrap());
        }
        start.elapsed()
    });
    rate(load.total_bytes * tokens.len() as u64, time)
}

/// The same batches over the same transport settings to a peer that only reads them.
pub(crate) fn quinn_alone(record_bytes: u64, total_bytes: u64) -> serde_json::Value {
    let depth = 0;
    let load = Load {
        record_bytes,
        total_bytes,
        depth,
    };
    let prepared = Prepared::new(load);
    let theirs = Identity::generate(SystemTime::now()).unwrap();
    let pin = theirs.pin();
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || runtime().block_on(sink(&theirs, &told)));
    let address: std::net::SocketAddr = address.recv().unwrap();
    let time = runtime().block_on(async {
        let ours = Identity::generate(SystemTime::now()).unwrap();
        let reached = link::connect(&address.to_string(), &ours, pin, Protocol::Session).await;
        let (_endpoint, connection) = reached.unwrap();
        let (mut say, mut hear) = connection.open_bi().await.unwrap();
        let count = prepared.batches.len() as u64;
        say.write_all(&count.to_le_bytes()).await.unwrap();
        hear.read_exact(&mut [0]).await.unwrap();
        let start = Instant::now();
        for (count, bytes) in &prepared.batches {
            send_batch(&connection, 1, *count, bytes).await;
        }
        hear.read_exact(&mut [0]).await.unwrap();
        start.elapsed()
    });
    rate(total_bytes, time)
}

async fn sink(identity: &Identity, told: &std::sync::mpsc::Sender<std::net::SocketAddr>) {
    let endpoint = link::server_endpoint("127.0.0.1:0".parse().unwrap(), identity).unwrap();
    told.send(endpoint.local_addr().unwrap()).unwrap();
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut say, mut hear) = connection.accept_bi().await.unwrap();
    let mut expected = [0; 8];
    hear.read_exact(&mut expected).await.unwrap();
    link::admit(&connection);
    say.write_all(&[1]).await.unwrap();
    let mut reading = Vec::new();
    for _ in 0..u64::from_le_bytes(expected) {
        let mut stream = connection.accept_uni().await.unwrap();
        reading.push(tokio::spawn(async move {
            while let Ok(Some(_)) = stream.read_chunk(1 << 20, true).await {}
        }));
    }
    for one in reading {
        one.await.unwrap();
    }
    say.write_all(&[1]).await.unwrap();
    connection.closed().await;
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}
