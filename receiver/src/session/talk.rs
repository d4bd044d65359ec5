//! One session: hello, then batches and control messages until either end has had enough.

use super::{admission, batch};
use crate::serve::group::{Admitted, Event, SessionId};
use crate::serve::{Hub, Said, Told};
use link::FrameError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use wire::control::{Control, Hello, HelloAck, Refusal, RefusalCode};
use wire::{Name, Pin, Stamp, TimeMark};

/// How long a peer may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

struct Talk {
    hub: Arc<Hub>,
    connection: quinn::Connection,
    say: quinn::SendStream,
    group: Name,
    session: SessionId,
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
            link::write_control(&mut say, &ack)
                .await
                .map_err(|error| error.to_string())?;
            // The source closes when it has read this.
            let _ = tokio::time::timeout(link::GOODBYE_PATIENCE, connection.closed()).await;
            Ok(())
        }
        Ok(admitted) => {
            let (group, session) = (hello.group.clone(), hub.number());
            let (hub, connection) = (hub.clone(), connection.clone());
            let talk = Talk {
                hub,
                connection,
                say,
                group,
                session,
            };
            talk.run(hear, admitted).await
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

/// Checks the hello against the catalog, off the network's thread, and asks the group.
async fn admit(hub: &Arc<Hub>, pin: Pin, hello: &Hello) -> Result<Admitted, Refusal> {
    let unable = |text: &str| Refusal {
        code: RefusalCode::Unable,
        text: text.into(),
    };
    let (catalog, asked) = (hub.catalog.clone(), hello.clone());
    let checked = tokio::task::spawn_blocking(move || admission::check(&catalog, pin, &asked));
    let generation = checked
        .await
        .map_err(|_| unable("the receiver failed; see its log"))??;
    let (answer, answered) = oneshot::channel();
    hub.tell(&hello.group, Told::Probe(Box::new(hello.clone()), answer));
    match answered.await {
        Ok(None) => {
            let (hello, number) = (hello.clone(), hub.stream_number());
            Ok(Admitted {
                hello,
                generation,
                number,
            })
        }
        Ok(Some(refusal)) => Err(refusal),
        Err(_) => Err(unable("the group is not served; see the receiver's log")),
    }
}

fn probe_ack(admitted: &Admitted) -> Control {
    Control::HelloAck(HelloAck {
        session: 0,
        generation: admitted.generation,
        resume: Stamp::ZERO,
        settled: Stamp::ZERO,
        last_mark: TimeMark(0),
        clock: crate::serve::wall_clock(),
    })
}

impl Talk {
    async fn run(mut self, hear: quinn::RecvStream, admitted: Admitted) -> Result<(), String> {
        let (sender, said) = mpsc::unbounded_channel();
        self.tell(Told::Attach(self.session, sender.clone()));
        self.tell(Told::Event(Event::Hello(self.session, Box::new(admitted))));
        let listening = tokio::spawn(listen(
            self.hub.clone(),
            self.group.clone(),
            self.session,
            hear,
            sender.clone(),
        ));
        let ended = self.speak(said, &sender).await;
        listening.abort();
        self.tell(Told::Event(Event::Ended(self.session)));
        ended
    }

    /// Says what the group has to say, until the end.
    async fn speak(
        &mut self,
        mut said: UnboundedReceiver<Said>,
        sender: &UnboundedSender<Said>,
    ) -> Result<(), String> {
        loop {
            let next = tokio::select! {
                next = said.recv() => next,
                error = self.connection.closed() => {
                    tracing::info!(group = %self.group, %error, "connection lost");
                    return Ok(());
                }
            };
            match next {
                Some(Said::Say(Control::Refusal(refusal))) => {
                    let text = refusal.text.clone();
                    self.goodbye(Control::Refusal(refusal), &text).await;
                    return Ok(());
                }
                Some(Said::Say(control)) => {
                    if let Control::HelloAck(ack) = &control {
                        self.open(ack.session, sender);
                    }
                    let wrote = link::write_control(&mut self.say, &control).await;
                    wrote.map_err(|error| error.to_string())?;
                }
                Some(Said::End(reason)) => {
                    self.goodbye(Control::Bye(reason.clone()), &reason).await;
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    async fn goodbye(&mut self, last: Control, text: &str) {
        tracing::info!(group = %self.group, reason = text, "session ended");
        link::close_after(&self.connection, &mut self.say, &last, text).await;
    }

    /// Lets batches in.
    fn open(&self, wire_session: u64, sender: &UnboundedSender<Said>) {
        tracing::info!(group = %self.group, session = self.session, "session up");
        link::admit(&self.connection);
        let (hub, group) = (self.hub.clone(), self.group.clone());
        let (session, connection) = (self.session, self.connection.clone());
        let sender = sender.clone();
        tokio::spawn(async move {
            // Ends when the connection does.
            while let Ok(mut stream) = connection.accept_uni().await {
                let (hub, group, sender) = (hub.clone(), group.clone(), sender.clone());
                tokio::spawn(async move {
                    match batch::read(&hub, wire_session, &mut stream).await {
                        Ok(batch::Found::Records(records, room)) => {
                            hub.tell(&group, Told::Records(session, records, room));
                        }
                        Ok(batch::Found::Other) => {}
                        Err(reason) => {
                            let _ = sender.send(Said::End(reason));
                        }
                    }
                });
            }
        });
    }

    fn tell(&self, told: Told) {
        self.hub.tell(&self.group, told);
    }
}

/// Hears control messages until the stream ends.
async fn listen(
    hub: Arc<Hub>,
    group: Name,
    session: SessionId,
    mut hear: quinn::RecvStream,
    sender: UnboundedSender<Said>,
) {
    let reason = loop {
        let event = match link::read_control(&mut hear).await {
            Ok(Control::Settle(mark)) => Event::Settle(session, mark),
            Ok(Control::Heartbeat(beat)) => Event::Heartbeat(session, beat),
            Ok(Control::Bye(reason)) => break format!("the source said goodbye: {reason}"),
            Ok(_) => break "a message a source does not send".into(),
            Err(FrameError::Ended) => break "the control stream ended".into(),
            Err(error) => break error.to_string(),
        };
        hub.tell(&group, Told::Event(event));
    };
    let _ = sender.send(Said::End(reason));
}
