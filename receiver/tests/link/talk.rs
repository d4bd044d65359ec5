//! A session of the fake source.

use crate::site::Site;
use crate::source::{Record, Source};
use link::{Identity, Protocol};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::time::Duration;
use tokio::sync::mpsc;
use wire::control::{Ack, Control, Heartbeat, Hello, HelloAck, Refusal};
use wire::{BatchHeader, Pin, SettleMark, Stamp};

const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// An open session.
pub(crate) struct Talk {
    pub(crate) connection: Connection,
    pub(crate) say: SendStream,
    pub(crate) greeted: HelloAck,
    pub(crate) acked: Ack,
    /// What was heard besides acks.
    pub(crate) heard: Vec<Control>,
    hear: mpsc::UnboundedReceiver<Control>,
    _endpoint: Endpoint,
}

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum NoTalk {
    Refused(Refusal),
    Closed(String),
}

impl NoTalk {
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Closed(reason) => panic!("closed: {reason}"),
        }
    }
}

/// A bare connection and its control stream.
pub(crate) async fn reach(site: &Site, identity: &Identity) -> (Endpoint, Connection) {
    let receiver = receiver_pin(site);
    let reached = link::connect(site.address(), identity, receiver, Protocol::Session);
    reached.await.unwrap()
}

pub(crate) fn receiver_pin(site: &Site) -> Pin {
    let dir = site.path("receiver/identity");
    Identity::load(&dir).unwrap().pin()
}

/// Says hello; a session, or why there is none.
pub(crate) async fn dial(site: &Site, identity: &Identity, hello: Hello) -> Result<Talk, NoTalk> {
    Talk::begin(reach(site, identity).await, hello).await
}

async fn begin(
    (endpoint, connection): (Endpoint, Connection),
    hello: Hello,
) -> Result<Talk, NoTalk> {
    let (mut say, mut hear) = connection.open_bi().await.unwrap();
    link::write_control(&mut say, &Control::Hello(hello))
        .await
        .unwrap();
    let answer = tokio::time::timeout(ANSWER_PATIENCE, link::read_control(&mut hear));
    match answer.await.expect("a hello is answered") {
        Ok(Control::HelloAck(greeted)) => {
            let (resume, settled) = (greeted.resume, greeted.settled);
            let acked = Ack {
                received: resume,
                durable: resume,
                settled,
                ..Ack::default()
            };
            Ok(Talk {
                hear: listen(hear),
                connection,
                say,
                greeted,
                acked,
                heard: Vec::new(),
                _endpoint: endpoint,
            })
        }
        Ok(Control::Refusal(refusal)) => Err(NoTalk::Refused(refusal)),
        Ok(Control::Bye(reason)) => Err(NoTalk::Closed(reason)),
        Ok(other) => panic!("{other:?}"),
        Err(_) => Err(NoTalk::Closed(closing(&connection).await)),
    }
}

/// A session of this source as it is.
pub(crate) async fn open(site: &Site, identity: &Identity, source: &Source) -> Talk {
    dial(site, identity, source.hello()).await.unwrap()
}

fn listen(mut stream: RecvStream) -> mpsc::UnboundedReceiver<Control> {
    let (heard, hear) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(message) = link::read_control(&mut stream).await {
            if heard.send(message).is_err() {
                return;
            }
        }
    });
    hear
}

/// The words the receiver closes the connection with.
pub(crate) async fn closing(connection: &Connection) -> String {
    let closed = tokio::time::timeout(ANSWER_PATIENCE, connection.closed());
    let error = closed.await.expect("the connection is closed");
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        error => error.to_string(),
    }
}

impl Talk {
    /// Says hello over a fresh connection.
    pub(crate) async fn begin(
        reached: (Endpoint, Connection),
        hello: Hello,
    ) -> Result<Self, NoTalk> {
        begin(reached, hello).await
    }

    /// Sends records as one batch.
    pub(crate) async fn batch(&self, records: &[Record]) {
        let bytes = batch_bytes(self.greeted.session, records);
        self.raw_batch(&bytes).await;
    }

    /// Sends these bytes on a stream of their own. One that is refused says so elsewhere.
    pub(crate) async fn raw_batch(&self, bytes: &[u8]) {
        if let Ok(mut stream) = self.connection.open_uni().await {
            let _ = stream.write_all(bytes).await;
            let _ = stream.finish();
        }
    }

    pub(crate) async fn control(&mut self, message: &Control) {
        link::write_control(&mut self.say, message).await.unwrap();
    }

    pub(crate) async fn settle(&mut self, mark: SettleMark) {
        self.control(&Control::Settle(mark)).await;
    }

    pub(crate) async fn beat(&mut self, source: &Source) {
        let (clock, captured) = (source.clock(), source.last());
        self.control(&Control::Heartbeat(Heartbeat { clock, captured }))
            .await;
    }

    /// Sends and settles everything from the resume point on, and waits until it is applied.
    pub(crate) async fn catch_up(&mut self, source: &Source) {
        self.send_rest(source).await;
        let last = source.last();
        self.until(|ack| ack.applied == last).await;
    }

    /// Sends and settles everything from the resume point on, in small batches.
    pub(crate) async fn send_rest(&mut self, source: &Source) {
        let last = source.last();
        for batch in source.records(self.greeted.resume, last).chunks(16) {
            self.batch(batch).await;
        }
        if last > self.greeted.settled {
            let mark = source.mark(self.greeted.settled, last);
            self.settle(mark).await;
        }
    }

    /// Waits for an ack of which `holds`.
    pub(crate) async fn until(&mut self, holds: impl Fn(&Ack) -> bool) {
        while !holds(&self.acked) {
            let acked = self.acked;
            let next = tokio::time::timeout(ANSWER_PATIENCE, self.hear.recv()).await;
            let next = next.unwrap_or_else(|_| panic!("no such ack after {acked:?}"));
            let Some(next) = next else {
                panic!("ended: {}", closing(&self.connection).await);
            };
            self.take(next);
        }
    }

    /// Waits for a message other than an ack of which `holds`.
    pub(crate) async fn until_heard(&mut self, holds: impl Fn(&Control) -> bool) -> Control {
        loop {
            if let Some(found) = self.heard.iter().find(|heard| holds(heard)) {
                return found.clone();
            }
            let next = tokio::time::timeout(ANSWER_PATIENCE, self.hear.recv()).await;
            let Some(next) = next.expect("it is said") else {
                panic!("ended: {}", closing(&self.connection).await);
            };
            self.take(next);
        }
    }

    /// Takes what has come in, waiting for nothing.
    pub(crate) fn take_all(&mut self) {
        while let Ok(next) = self.hear.try_recv() {
            self.take(next);
        }
    }

    /// The session's last words, and that the connection is closed after them.
    pub(crate) async fn end(mut self) -> String {
        let closed = closing(&self.connection).await;
        while let Some(next) = self.hear.recv().await {
            self.take(next);
        }
        let bye = self.heard.into_iter().find_map(|heard| match heard {
            Control::Bye(reason) => Some(reason),
            _ => None,
        });
        bye.unwrap_or(closed)
    }

    fn take(&mut self, message: Control) {
        let Control::Ack(ack) = message else {
            self.heard.push(message);
            return;
        };
        let last = self.acked;
        let grows = ack.received >= last.received
            && ack.durable >= last.durable
            && ack.settled >= last.settled
            && ack.applied >= last.applied;
        let bounded = ack.durable <= ack.received && ack.applied <= ack.durable.min(ack.settled);
        assert!(grows && bounded, "{ack:?} after {last:?}");
        self.acked = ack;
    }
}

/// The batch these records make.
pub(crate) fn batch_bytes(session: u64, records: &[Record]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        body.extend_from_slice(&record.header.to_bytes());
        body.extend_from_slice(&record.payload);
    }
    let header = BatchHeader {
        session,
        records: records.len() as u32,
        bytes: body.len() as u32,
    };
    [&header.to_bytes()[..], &body].concat()
}

/// The contents of `pg/data`'s target are what the source's disk held at `stamp`.
pub(crate) fn assert_image(site: &Site, source: &Source, stamp: Stamp, at: &str) {
    let (found, expected) = (site.image("data.img"), source.image_at(stamp));
    let block = crate::source::BLOCK_BYTES;
    let differ = found.chunks(block).zip(expected.chunks(block));
    let differ: Vec<usize> = differ
        .enumerate()
        .filter(|(_, (found, expected))| found != expected)
        .map(|(at, _)| at)
        .collect();
    assert!(
        found.len() == expected.len() && differ.is_empty(),
        "{at}: blocks {differ:?} are not what they were after record {stamp}"
    );
}
