//! The line to the receiver: makes one connection at a time and runs its streams.
//!
//! A connection is one task that dials, listens to the control stream and says goodbye; it reports
//! through a bounded queue, tagged with the number of its attempt, so that nothing of a connection
//! that was closed is ever taken for the next one's. Writing to the control stream and each batch
//! have tasks of their own: neither can hold up the ring.

use crate::enrolment::Enrolment;
use crate::session::Loss;
use bytes::Bytes;
use link::{ConnectError, FrameError, Protocol};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use wire::Name;
use wire::control::Control;

/// Events that may wait for the driver.
pub(super) const EVENTS_MAX: usize = 256;
/// Messages that may wait to be written to the control stream.
const CONTROL_MAX: usize = 1024;
/// Of these so many are kept free of settle marks, for heartbeats and the goodbye.
const CONTROL_RESERVE: usize = 16;
/// How long looking up the receiver's name and all its handshakes may take together.
const DIAL_PATIENCE: Duration = Duration::from_secs(30);
/// How long a closed endpoint may take to tell the peer.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
/// The control stream goes before batches.
const CONTROL_PRIORITY: i32 = 1;

/// What happens on the line.
#[derive(Debug)]
pub(super) enum LineEvent {
    /// A connection is there, its control stream open.
    Connected,
    /// The receiver said something.
    Control(Control),
    /// A batch has arrived.
    Delivered { bytes: u64 },
    /// There is no connection any more.
    Lost(Loss),
    /// This host was enrolled under another name meanwhile.
    Renamed,
}

/// One source's line.
#[derive(Debug)]
pub(super) struct Line {
    config: PathBuf,
    source: Name,
    attempt: u64,
    events: mpsc::Receiver<(u64, Report)>,
    reports: mpsc::Sender<(u64, Report)>,
    call: Option<Call>,
    /// Connections, the one in use and those that say goodbye.
    calls: JoinSet<()>,
}

/// The connection in use.
#[derive(Debug)]
struct Call {
    open: Option<Open>,
    /// Batches on their way; dropped with the call.
    batches: JoinSet<()>,
    hang_up: oneshot::Sender<String>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    control: mpsc::Sender<Control>,
}

#[derive(Debug)]
enum Report {
    Open(Open),
    Event(LineEvent),
}

/// What a connection's tasks need.
#[derive(Clone, Debug)]
struct Caller {
    attempt: u64,
    reports: mpsc::Sender<(u64, Report)>,
    peer: String,
}

impl Line {
    /// A line for `source`, enrolled below the configuration directory `config`.
    pub(super) fn new(config: PathBuf, source: Name) -> Self {
        let (reports, events) = mpsc::channel(EVENTS_MAX);
        Self {
            config,
            source,
            attempt: 0,
            events,
            reports,
            call: None,
            calls: JoinSet::new(),
        }
    }

    /// Starts to connect; the end of it is an event.
    pub(super) fn connect(&mut self) {
        self.close("connecting anew");
        while self.calls.try_join_next().is_some() {}
        let (hang_up, hung_up) = oneshot::channel();
        let caller = Caller {
            attempt: self.attempt,
            reports: self.reports.clone(),
            peer: String::new(),
        };
        let (config, source) = (self.config.clone(), self.source.clone());
        self.calls.spawn(call(caller, config, source, hung_up));
        self.call = Some(Call {
            open: None,
            batches: JoinSet::new(),
            hang_up,
        });
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&mut self) -> LineEvent {
        loop {
            // This end holds a sender too, so the queue never ends.
            let Some((attempt, report)) = self.events.recv().await else {
                return std::future::pending().await;
            };
            if let Some(event) = self.event(attempt, report) {
                return event;
            }
        }
    }

    /// The next event, if it is there already.
    pub(super) fn try_next(&mut self) -> Option<LineEvent> {
        while let Ok((attempt, report)) = self.events.try_recv() {
            if let Some(event) = self.event(attempt, report) {
                return Some(event);
            }
        }
        None
    }

    /// What a report of the connection in use means; nothing, of an earlier one.
    fn event(&mut self, attempt: u64, report: Report) -> Option<LineEvent> {
        if attempt != self.attempt {
            return None;
        }
        match (report, &mut self.call) {
            (Report::Event(event), _) => Some(event),
            (Report::Open(open), Some(call)) => {
                call.open = Some(open);
                Some(LineEvent::Connected)
            }
            (Report::Open(_), None) => None,
        }
    }

    /// Whether settle marks can be written without filling the control queue.
    pub(super) fn has_room(&self) -> bool {
        let open = self.call.as_ref().and_then(|call| call.open.as_ref());
        open.is_some_and(|open| open.control.capacity() > CONTROL_RESERVE)
    }

    /// Queues a message for the control stream; false when the receiver does not read it.
    ///
    /// On a connection that has ended it is dropped: the event that says so is on its way.
    pub(super) fn send(&mut self, message: Control) -> bool {
        let Some(open) = self.call.as_ref().and_then(|call| call.open.as_ref()) else {
            return true;
        };
        !matches!(open.control.try_send(message), Err(TrySendError::Full(_)))
    }

    /// Sends a batch of so many record bytes on a stream of its own.
    pub(super) fn batch(&mut self, bytes: Bytes, record_bytes: u64) {
        let Some(call) = &mut self.call else { return };
        let Some(open) = &call.open else { return };
        while call.batches.try_join_next().is_some() {}
        let caller = Caller {
            attempt: self.attempt,
            reports: self.reports.clone(),
            peer: String::new(),
        };
        let connection = open.connection.clone();
        call.batches.spawn(async move {
            match deliver(&connection, bytes).await {
                Ok(()) => {
                    let bytes = record_bytes;
                    caller.report(LineEvent::Delivered { bytes }).await;
                }
                Err(FrameError::Reset(code)) => {
                    caller
                        .lost(format!("the receiver gave a batch up (code {code})"))
                        .await;
                }
                // The listener on the control stream says what happened to the connection.
                Err(_) => {}
            }
        });
    }

    /// Ends the connection, or the attempt; messages queued before still leave if they can.
    pub(super) fn close(&mut self, reason: &str) {
        self.attempt += 1;
        if let Some(call) = self.call.take() {
            // A call that ended by itself does not listen any more.
            let _ = call.hang_up.send(reason.into());
        }
    }

    /// Waits until every connection has said goodbye.
    pub(super) async fn closed(&mut self) {
        while self.calls.join_next().await.is_some() {}
    }
}

impl Caller {
    async fn report(&self, event: LineEvent) {
        // The driver is gone: nobody has to know.
        let _ = self
            .reports
            .send((self.attempt, Report::Event(event)))
            .await;
    }

    async fn lost(&self, reason: String) {
        let is_refusal = false;
        self.report(LineEvent::Lost(Loss { is_refusal, reason }))
            .await;
    }

    async fn refused(&self, reason: String) {
        let is_refusal = true;
        self.report(LineEvent::Lost(Loss { is_refusal, reason }))
            .await;
    }
}

/// One connection from dialling to goodbye.
async fn call(
    mut caller: Caller,
    config: PathBuf,
    source: Name,
    mut hung_up: oneshot::Receiver<String>,
) {
    let enrolment = match Enrolment::load(&config) {
        Ok(enrolment) if enrolment.source == source => enrolment,
        Ok(_) => return caller.report(LineEvent::Renamed).await,
        Err(error) => return caller.refused(error.to_string()).await,
    };
    caller.peer.clone_from(&enrolment.address);
    let dialled = tokio::select! {
        dialled = tokio::time::timeout(DIAL_PATIENCE, dial(&enrolment)) => dialled,
        _ = &mut hung_up => return,
    };
    let silent = ConnectError::Silent(enrolment.address.clone());
    match dialled.unwrap_or(Err(silent)) {
        Ok(parts) => converse(&caller, parts, hung_up).await,
        Err(error) if error.is_refusal() => caller.refused(error.to_string()).await,
        Err(error) => caller.lost(error.to_string()).await,
    }
}

struct Parts {
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
}

async fn dial(enrolment: &Enrolment) -> Result<Parts, ConnectError> {
    let address = &enrolment.address;
    let (identity, receiver) = (&enrolment.identity, enrolment.receiver);
    let (endpoint, connection) =
        link::connect(address, identity, receiver, Protocol::Session).await?;
    let opened = connection.open_bi().await;
    let (send, recv) = opened.map_err(|error| ConnectError::new(address, &error))?;
    // Fails only for a stream that is closed already, which the first write will tell.
    let _ = send.set_priority(CONTROL_PRIORITY);
    Ok(Parts {
        endpoint,
        connection,
        send,
        recv,
    })
}

async fn converse(caller: &Caller, parts: Parts, mut hung_up: oneshot::Receiver<String>) {
    let (control, queue) = mpsc::channel(CONTROL_MAX);
    let mut speaker = tokio::spawn(speak(parts.send, queue));
    let open = Open {
        connection: parts.connection.clone(),
        control,
    };
    let _ = caller
        .reports
        .send((caller.attempt, Report::Open(open)))
        .await;
    let listening = listen(caller, &parts.connection, parts.recv);
    tokio::pin!(listening);
    let reason = tokio::select! {
        biased;
        reason = &mut hung_up => reason.unwrap_or_default(),
        () = &mut listening => String::new(),
        _ = &mut speaker => {
            // Usually the connection is gone, and the listener knows why.
            if tokio::time::timeout(CLOSE_PATIENCE, &mut listening).await.is_err() {
                caller.lost("the receiver does not take the control stream".into()).await;
            }
            String::new()
        }
    };
    let goodbye = tokio::time::timeout(link::GOODBYE_PATIENCE, &mut speaker);
    if !reason.is_empty() && goodbye.await.is_err() {
        tracing::debug!("the receiver did not take the last messages");
    }
    speaker.abort();
    link::close(&parts.connection, &reason);
    let _ = tokio::time::timeout(CLOSE_PATIENCE, parts.endpoint.wait_idle()).await;
}

/// Writes the queue to the control stream; after its end waits until all has arrived.
async fn speak(mut stream: SendStream, mut queue: mpsc::Receiver<Control>) {
    while let Some(message) = queue.recv().await {
        if link::write_control(&mut stream, &message).await.is_err() {
            return;
        }
    }
    if stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
}

/// Passes on what the receiver says until it cannot any more, and then why.
async fn listen(caller: &Caller, connection: &Connection, mut stream: RecvStream) {
    let error = loop {
        match link::read_control(&mut stream).await {
            Ok(message) => caller.report(LineEvent::Control(message)).await,
            Err(error) => break error,
        }
    };
    if error.is_violation() {
        return caller
            .lost(format!("the receiver broke the protocol: {error}"))
            .await;
    }
    let closed = tokio::time::timeout(CLOSE_PATIENCE, connection.closed()).await;
    match closed.map(|error| ConnectError::new(&caller.peer, &error)) {
        Ok(error) if error.is_refusal() => caller.refused(error.to_string()).await,
        Ok(error) => caller.lost(error.to_string()).await,
        Err(_) => {
            caller
                .lost("the receiver ended the control stream".into())
                .await
        }
    }
}

/// Sends `bytes` as one stream and waits until the peer's transport has all of it.
async fn deliver(connection: &Connection, bytes: Bytes) -> Result<(), FrameError> {
    let mut stream = connection.open_uni().await.map_err(FrameError::Lost)?;
    stream.write_chunk(bytes).await?;
    stream.finish().map_err(|_| FrameError::Ended)?;
    match stream.stopped().await {
        Ok(None) => Ok(()),
        Ok(Some(code)) => Err(FrameError::Reset(code.into_inner())),
        Err(quinn::StoppedError::ConnectionLost(error)) => Err(FrameError::Lost(error)),
        Err(quinn::StoppedError::ZeroRttRejected) => Err(FrameError::Ended),
    }
}
