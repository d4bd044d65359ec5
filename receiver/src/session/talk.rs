//! One session: hello, then batches and control messages until either end has had enough.

use super::{admission, batch};
use crate::catalog::{Catalog, Lane};
use crate::foreign::printable;
use crate::serve::group::{Admitted, Event, SessionId};
use crate::serve::{Hub, Line, Next, Told};
use link::FrameError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use wire::control::{Control, Hello, HelloAck, Refusal, RefusalCode};
use wire::{Generation, Pin, Stamp, TimeMark};

/// How long a peer may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take to take a message.
const SAY_PATIENCE: Duration = Duration::from_secs(30);
/// Most control messages of a session that wait for its group.
const HEARD_MAX: usize = 64;

struct Talk {
    hub: Arc<Hub>,
    connection: quinn::Connection,
    say: quinn::SendStream,
    group: Lane,
    session: SessionId,
    line: Arc<Line>,
}

/// Serves one connection to its end.
pub(super) async fn serve(hub: &Arc<Hub>, connection: quinn::Connection) {
    let from = connection.remote_address();
    if let Err(error) = greet(hub, &connection).await {
        tracing::info!(%from, %error, "session ended");
        link::close(&connection, &error);
    }
}

async fn greet(hub: &Arc<Hub>, connection: &quinn::Connection) -> Result<(), String> {
    let first = tokio::time::timeout(HELLO_PATIENCE, first_message(connection)).await;
    let (mut say, hear, hello) = first.map_err(|_| "no hello came".to_owned())??;
    let pin = link::peer_pin(connection).ok_or("no certificate was shown")?;
    match admit(hub, pin, &hello).await {
        Ok(admitted) if hello.probe => {
            let ack = probe_ack(&admitted);
            say_within(SAY_PATIENCE, &mut say, &ack).await?;
            // The source closes when it has read this.
            let _ = tokio::time::timeout(link::GOODBYE_PATIENCE, connection.closed()).await;
            Ok(())
        }
        Ok(admitted) => {
            let (group, session) = (lane_of(&hello), hub.number());
            let (hub, connection) = (hub.clone(), connection.clone());
            let talk = Talk {
                hub,
                connection,
                say,
                group,
                session,
                line: Arc::new(Line::default()),
            };
            talk.run(hear, pin, admitted).await
        }
        Err(refusal) => {
            tracing::info!(source = %hello.source, group = %hello.group, reason = %refusal.text,
                "hello refused");
            let text = refusal.text.clone();
            link::close_after(connection, &mut say, &Control::Refusal(refusal), &text).await;
            Ok(())
        }
    }
}

async fn first_message(
    connection: &quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream, Hello), String> {
    let (say, mut hear) = connection
        .accept_bi()
        .await
        .map_err(|error| error.to_string())?;
    match link::read_control(&mut hear).await {
        Ok(Control::Hello(hello)) => Ok((say, hear, hello)),
        Ok(_) => Err("a session begins with hello".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks the hello against the catalog and asks the group; what is written comes last (P13).
async fn admit(hub: &Arc<Hub>, pin: Pin, hello: &Hello) -> Result<Admitted, Refusal> {
    let generation = check(hub, pin, hello).await?;
    let (answer, answered) = oneshot::channel();
    hub.tell(
        &lane_of(hello),
        Told::Probe(Box::new(hello.clone()), answer),
    );
    match answered.await {
        Ok(None) => {}
        Ok(Some(refusal)) => return Err(refusal),
        Err(_) => return Err(unable("the group is not served; see the receiver's log")),
    }
    if !hello.probe {
        look_up(hub, hello, admission::bind).await?;
    }
    let (hello, number) = (hello.clone(), hub.stream_number());
    Ok(Admitted {
        hello,
        generation,
        number,
    })
}

async fn check(hub: &Arc<Hub>, pin: Pin, hello: &Hello) -> Result<Generation, Refusal> {
    look_up(hub, hello, move |catalog, hello| {
        admission::check(catalog, pin, hello)
    })
    .await
}

/// Asks the catalog, off the network's thread.
async fn look_up<T: Send + 'static>(
    hub: &Arc<Hub>,
    hello: &Hello,
    question: impl FnOnce(&Catalog, &Hello) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let (catalog, hello) = (hub.catalog.clone(), hello.clone());
    let asked = tokio::task::spawn_blocking(move || question(&catalog, &hello));
    asked
        .await
        .map_err(|_| unable("the receiver failed; see its log"))?
}

fn lane_of(hello: &Hello) -> Lane {
    Lane {
        group: hello.group.clone(),
        source: hello.source.clone(),
    }
}

fn unable(text: &str) -> Refusal {
    Refusal {
        code: RefusalCode::Unable,
        text: text.into(),
    }
}

fn probe_ack(admitted: &Admitted) -> Control {
    Control::HelloAck(HelloAck {
        session: 0,
        generation: admitted.generation,
        resume: Stamp::ZERO,
        settled: Stamp::ZERO,
        last_mark: TimeMark(0),
        clock: crate::clock::wall_clock(),
    })
}

/// Says something to a peer that may not be listening.
async fn say_within(
    patience: Duration,
    say: &mut quinn::SendStream,
    control: &Control,
) -> Result<(), String> {
    let said = tokio::time::timeout(patience, link::write_control(say, control)).await;
    let said = said.map_err(|_| "the source does not take what it is told".to_owned())?;
    said.map_err(|error| error.to_string())
}

impl Talk {
    async fn run(
        mut self,
        hear: quinn::RecvStream,
        pin: Pin,
        admitted: Admitted,
    ) -> Result<(), String> {
        let hello = admitted.hello.clone();
        self.tell(Told::Attach(self.session, self.line.clone()));
        self.tell(Told::Event(Event::Hello(self.session, Box::new(admitted))));
        // Once more: who was revoked before the group heard of the session is found here, who is
        // revoked after that has the session ended.
        if let Err(refusal) = check(&self.hub, pin, &hello).await {
            self.tell(Told::Event(Event::Ended(self.session)));
            let text = refusal.text.clone();
            self.goodbye(Control::Refusal(refusal), &text).await;
            return Ok(());
        }
        let listening = tokio::spawn(listen(
            self.hub.clone(),
            self.group.clone(),
            self.session,
            hear,
            self.line.clone(),
        ));
        let ended = self.speak().await;
        listening.abort();
        self.tell(Told::Event(Event::Ended(self.session)));
        ended
    }

    /// Says what the group has to say, until the end.
    async fn speak(&mut self) -> Result<(), String> {
        let line = self.line.clone();
        loop {
            let next = tokio::select! {
                next = line.next() => next,
                error = self.connection.closed() => {
                    tracing::info!(group = %self.group, %error, "connection lost");
                    return Ok(());
                }
            };
            match next {
                Next::Say(Control::Refusal(refusal)) => {
                    let text = refusal.text.clone();
                    self.goodbye(Control::Refusal(refusal), &text).await;
                    return Ok(());
                }
                Next::Say(control) => {
                    if let Control::HelloAck(ack) = &control {
                        self.open(ack.session);
                    }
                    self.say(&control).await?;
                }
                Next::End(reason) => {
                    self.goodbye(Control::Bye(reason.clone()), &reason).await;
                    return Ok(());
                }
            }
        }
    }

    /// Says this; once the session is to end it does not take long over it.
    async fn say(&mut self, control: &Control) -> Result<(), String> {
        let line = self.line.clone();
        let cut_short = async {
            let reason = line.ended().await;
            tokio::time::sleep(link::GOODBYE_PATIENCE).await;
            reason
        };
        tokio::select! {
            said = say_within(SAY_PATIENCE, &mut self.say, control) => said,
            reason = cut_short => Err(reason),
        }
    }

    async fn goodbye(&mut self, last: Control, text: &str) {
        tracing::info!(group = %self.group, reason = text, "session ended");
        link::close_after(&self.connection, &mut self.say, &last, text).await;
    }

    /// Lets batches in.
    fn open(&self, wire_session: u64) {
        tracing::info!(group = %self.group, session = self.session, "session up");
        link::admit(&self.connection);
        let batches = Arc::new(Batches {
            hub: self.hub.clone(),
            inlet: batch::Inlet::new(self.hub.rooms()),
            group: self.group.clone(),
            session: self.session,
            line: self.line.clone(),
        });
        let connection = self.connection.clone();
        tokio::spawn(async move {
            // Ends when the connection does; no more tasks than the link allows streams.
            while let Ok(stream) = connection.accept_uni().await {
                let (batches, connection) = (batches.clone(), connection.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = batches.take(wire_session, stream) => {}
                        // Nothing of it waits for room any longer.
                        _ = connection.closed() => {}
                    }
                });
            }
        });
    }

    fn tell(&self, told: Told) {
        tell(&self.hub, &self.group, &self.line, told);
    }
}

/// What the batches of a session have in common.
struct Batches {
    hub: Arc<Hub>,
    inlet: batch::Inlet,
    group: Lane,
    session: SessionId,
    line: Arc<Line>,
}

impl Batches {
    async fn take(&self, wire_session: u64, mut stream: quinn::RecvStream) {
        let into = (self.hub.rooms(), &self.inlet);
        match batch::read(into, &self.line, wire_session, &mut stream).await {
            Ok(batch::Found::Records(records, room)) => {
                let told = Told::Records(self.session, records, room);
                tell(&self.hub, &self.group, &self.line, told);
            }
            Ok(batch::Found::Other) => {}
            Err(reason) => self.line.end(reason),
        }
    }
}

/// Tells the group; a session without a group ends.
fn tell(hub: &Hub, group: &Lane, line: &Line, told: Told) {
    if !hub.tell(group, told) {
        line.end("the group is not served any more; see the receiver's log".into());
    }
}

/// Hears control messages until the stream ends.
async fn listen(
    hub: Arc<Hub>,
    group: Lane,
    session: SessionId,
    mut hear: quinn::RecvStream,
    line: Arc<Line>,
) {
    let places = Arc::new(Semaphore::new(HEARD_MAX));
    let reason = loop {
        let event = match link::read_control(&mut hear).await {
            Ok(Control::Settle(mark)) => Event::Settle(session, mark),
            Ok(Control::Heartbeat(beat)) => Event::Heartbeat(session, beat),
            Ok(Control::Bye(reason)) => {
                break format!("the source said goodbye: {}", printable(&reason));
            }
            Ok(_) => break "a message a source does not send".into(),
            Err(FrameError::Ended) => break "the control stream ended".into(),
            Err(error) => break error.to_string(),
        };
        // The group says when it is through with it: what it is not yet, the source keeps.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        tell(&hub, &group, &line, Told::Heard(event, place));
    };
    line.end(reason);
}
