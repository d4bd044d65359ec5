//! A receiver that keeps everything in memory and misbehaves as told.

use ::link::{Identity, Protocol};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};
use wire::control::{Ack, Control, Heartbeat, Hello, HelloAck, Refusal};
use wire::{
    Generation, JoinReply, JoinRequest, Pin, RECORD_HEADER_BYTES, RecordHeader, SettleMark, Stamp,
    TimeMark,
};

/// What it holds, and what it was told to do.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) records: BTreeMap<u64, (RecordHeader, Vec<u8>)>,
    pub(crate) durable: u64,
    pub(crate) settled: u64,
    pub(crate) marks: Vec<SettleMark>,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) beats: Vec<Heartbeat>,
    pub(crate) joins: Vec<(JoinRequest, Pin)>,
    pub(crate) goodbyes: Vec<String>,
    /// Answer to hellos, if not acceptance.
    pub(crate) refusal: Option<Refusal>,
    /// Answer to joins.
    pub(crate) join_reply: Option<JoinReply>,
    /// Cut the connection without a word after so many batches.
    pub(crate) cut_after: Option<u64>,
    /// Said once on the control stream instead of anything sensible.
    pub(crate) garbage: Option<Vec<u8>>,
    /// Payloads are checked and dropped.
    pub(crate) is_forgetful: bool,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    session: u64,
    echo: TimeMark,
}

pub(crate) struct Receiver {
    pub(crate) identity: Arc<Identity>,
    pub(crate) address: String,
    journal: Arc<Mutex<Journal>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        Self::with(
            Identity::generate(SystemTime::now()).unwrap(),
            "127.0.0.1:0",
        )
    }

    /// One with this identity, at this address.
    pub(crate) fn with(identity: Identity, address: &str) -> Self {
        let identity = Arc::new(identity);
        let journal = Arc::new(Mutex::new(Journal::default()));
        let (stop, stopped) = watch::channel(false);
        let (told, address_of) = std::sync::mpsc::channel();
        let (own, kept, address) = (identity.clone(), journal.clone(), address.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let endpoint = ::link::server_endpoint(address.parse().unwrap(), &own).unwrap();
                told.send(endpoint.local_addr().unwrap().to_string())
                    .unwrap();
                serve(endpoint, kept, stopped).await;
            });
        });
        Self {
            identity,
            address: address_of.recv().unwrap(),
            journal,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap()
    }

    pub(crate) fn pin(&self) -> Pin {
        self.identity.pin()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(endpoint: Endpoint, journal: Arc<Mutex<Journal>>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { return };
                let journal = journal.clone();
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        talk(connection, journal).await;
                    }
                });
            }
            _ = stop.wait_for(|stop| *stop) => {
                endpoint.close(0u8.into(), b"stopped");
                let told = endpoint.wait_idle();
                let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
                return;
            }
        }
    }
}

async fn talk(connection: Connection, journal: Arc<Mutex<Journal>>) {
    let Ok((mut send, mut recv)) = connection.accept_bi().await else {
        return;
    };
    if ::link::protocol(&connection) == Some(Protocol::Join) {
        return enrol(&connection, send, recv, &journal).await;
    }
    let Ok(Control::Hello(hello)) = ::link::read_control(&mut recv).await else {
        return ::link::close(&connection, "expected a hello");
    };
    let answer = answer(&mut journal.lock().unwrap(), hello);
    match answer {
        Ok((ack, is_probe)) => {
            let number = ack.session;
            let greeted = ::link::write_control(&mut send, &Control::HelloAck(ack)).await;
            if greeted.is_ok() && !is_probe {
                ::link::admit(&connection);
                session(connection, send, recv, journal, number).await;
            } else {
                connection.closed().await;
            }
        }
        Err(refusal) => {
            let text = refusal.text.clone();
            let refusal = Control::Refusal(refusal);
            ::link::close_after(&connection, &mut send, &refusal, &text).await;
        }
    }
}

fn answer(journal: &mut Journal, hello: Hello) -> Result<(HelloAck, bool), Refusal> {
    if let Some(refusal) = &journal.refusal {
        return Err(refusal.clone());
    }
    let is_probe = hello.probe;
    let before_oldest = hello.oldest.prev().0;
    journal.hellos.push(hello);
    journal.session += 1;
    journal.echo = TimeMark(0);
    let mark = journal.records.get(&journal.durable);
    let ack = HelloAck {
        session: journal.session,
        generation: Generation {
            counter: 1,
            lineage: 1,
        },
        resume: Stamp(journal.durable),
        settled: Stamp(journal.settled),
        last_mark: mark.map_or(TimeMark(0), |(head, _)| head.mark),
        clock: TimeMark(0),
    };
    // A hole that will never be filled: go on behind it.
    journal.durable = journal.durable.max(before_oldest);
    journal.settled = journal.settled.max(before_oldest);
    Ok((ack, is_probe))
}

async fn enrol(
    connection: &Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    journal: &Mutex<Journal>,
) {
    let Ok(request) = ::link::read_join_request(&mut recv).await else {
        return;
    };
    let pin = ::link::peer_pin(connection).unwrap();
    let reply = {
        let mut journal = journal.lock().unwrap();
        journal.joins.push((request, pin));
        journal.join_reply.clone()
    };
    match reply {
        Some(reply) => ::link::write_join_reply(&mut send, &reply).await.unwrap(),
        None => ::link::close(connection, "not today"),
    }
    connection.closed().await;
}

async fn session(
    connection: Connection,
    mut send: SendStream,
    recv: RecvStream,
    journal: Arc<Mutex<Journal>>,
    session: u64,
) {
    let garbage = journal.lock().unwrap().garbage.take();
    if let Some(garbage) = garbage {
        let _ = send.write_all(&garbage).await;
    }
    let (acks, mut due) = mpsc::channel::<()>(1);
    let control = tokio::spawn(listen(recv, journal.clone(), acks.clone()));
    let batches = tokio::spawn(collect(connection.clone(), journal.clone(), acks, session));
    while due.recv().await.is_some() {
        let ack = {
            let journal = journal.lock().unwrap();
            Ack {
                received: Stamp(journal.durable),
                durable: Stamp(journal.durable),
                settled: Stamp(journal.settled),
                echo: journal.echo,
                ..Ack::default()
            }
        };
        if ::link::write_control(&mut send, &Control::Ack(ack))
            .await
            .is_err()
        {
            break;
        }
    }
    control.abort();
    batches.abort();
}

async fn listen(mut recv: RecvStream, journal: Arc<Mutex<Journal>>, acks: mpsc::Sender<()>) {
    while let Ok(message) = ::link::read_control(&mut recv).await {
        {
            let mut journal = journal.lock().unwrap();
            match message {
                Control::Settle(mark) => {
                    assert_eq!(mark.after.0, journal.settled, "settle marks form a chain");
                    journal.settled = mark.upto.0;
                    journal.marks.push(mark);
                }
                Control::Heartbeat(beat) => {
                    journal.beats.push(beat);
                    journal.echo = beat.clock;
                }
                Control::Bye(reason) => journal.goodbyes.push(reason),
                message => panic!("{message:?}"),
            }
        }
        let _ = acks.try_send(());
    }
}

async fn collect(
    connection: Connection,
    journal: Arc<Mutex<Journal>>,
    acks: mpsc::Sender<()>,
    session: u64,
) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let (connection, journal, acks) = (connection.clone(), journal.clone(), acks.clone());
        tokio::spawn(async move {
            let Ok(header) = ::link::read_batch_header(&mut stream).await else {
                return;
            };
            let mut body = Vec::new();
            if ::link::read_batch_body(&mut stream, &header, &mut body)
                .await
                .is_err()
            {
                return;
            }
            assert_eq!(header.session, session);
            let is_cut = {
                let mut journal = journal.lock().unwrap();
                keep(&mut journal, &body, header.records);
                journal
                    .cut_after
                    .is_some_and(|limit| journal.batches >= limit)
            };
            if is_cut {
                journal.lock().unwrap().cut_after = None;
                return connection.close(9u8.into(), b"");
            }
            let _ = acks.try_send(());
        });
    }
}

fn keep(journal: &mut Journal, mut body: &[u8], records: u32) {
    journal.batches += 1;
    journal.bytes += body.len() as u64;
    let mut last = None;
    for _ in 0..records {
        let header = RecordHeader::parse(body).unwrap();
        let payload = &body[RECORD_HEADER_BYTES..][..header.payload_bytes as usize];
        header.verify(payload).unwrap();
        assert!(last.is_none_or(|last: Stamp| last.next() == header.stamp));
        last = Some(header.stamp);
        body = &body[RECORD_HEADER_BYTES + payload.len()..];
        let kept = if journal.is_forgetful {
            Vec::new()
        } else {
            payload.to_vec()
        };
        journal
            .records
            .entry(header.stamp.0)
            .or_insert((header, kept));
    }
    assert!(body.is_empty());
    while journal.records.contains_key(&(journal.durable + 1)) {
        journal.durable += 1;
        if journal.is_forgetful {
            let behind = journal.durable - 1;
            journal.records.remove(&behind);
        }
    }
}
