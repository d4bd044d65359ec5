//! A source says hello: which stream it is, where it goes on, and what it is told.
//!
//! The answer waits until nothing of an earlier session is under way, and until what the hello
//! changes (a new stream, a longer table, a loss) is durable.

use super::event::{Admitted, Now, Output, SessionId};
use super::facts::OTHERS_HOLD;
use super::session::Session;
use super::stream::Stream;
use super::{Group, STREAMS_MAX};
use crate::catalog::Since;
use crate::intake::{Base, Intake, STAMP_MAX};
use crate::journal::Entry;
use wire::control::{Control, Hello, HelloAck, Refusal, RefusalCode};
use wire::journal::{StreamClose, StreamOpen};
use wire::{Name, Stamp};

/// A hello that is not answered yet.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) session: SessionId,
    admitted: Admitted,
    /// What it changes has been appended.
    appended: bool,
}

impl Greeting {
    /// Whether it is about the volume.
    pub(super) fn announces(&self, volume: &Name) -> bool {
        let mut volumes = self.admitted.hello.volumes.iter();
        volumes.any(|spec| spec.name == *volume)
    }
}

impl Group {
    /// Whether a hello would be refused as things are; a probe asks just that.
    pub fn objection(&self, hello: &Hello) -> Option<Refusal> {
        let unable = |text: String| {
            Some(Refusal {
                code: RefusalCode::Unable,
                text,
            })
        };
        if let Some(text) = &self.journal_failed {
            return unable(text.clone());
        }
        if self.stopping {
            return unable("the receiver is stopping".into());
        }
        let refused = hello.volumes.iter().find_map(|spec| {
            let refused = self.volumes.get(&spec.name)?.refused.as_ref();
            let reason = &refused.filter(|refused| !refused.away)?.reason;
            Some(format!("volume {}/{}: {reason}", self.name, spec.name))
        });
        if let Some(text) = refused {
            return unable(text);
        }
        if hello.probe {
            None
        } else {
            self.objection_to_stream(hello)
        }
    }

    fn objection_to_stream(&self, hello: &Hello) -> Option<Refusal> {
        let malformed = |text: &str| {
            Some(Refusal {
                code: RefusalCode::Malformed,
                text: text.into(),
            })
        };
        if hello.ring_slots == 0 || hello.incarnation.counter == 0 {
            return malformed("a hello without a ring");
        }
        if hello.oldest == Stamp::ZERO
            || hello.captured > STAMP_MAX
            || hello.oldest > hello.captured.next()
        {
            return malformed("a hello with impossible stamps");
        }
        let said = hello.incarnation;
        let newest = self.newest_incarnation();
        if said.counter < newest.counter || (said.counter == newest.counter && said != newest) {
            let code = RefusalCode::OldIncarnation;
            let text = format!(
                "incarnation {said} of group {} is older than {newest}, which was seen here; an \
                 old state file was put back at the source: remove it, the group is copied anew",
                self.name
            );
            return Some(Refusal { code, text });
        }
        match self.current() {
            Some(stream) if stream.incarnation() == said => self.objection_to_resume(stream, hello),
            _ if self.streams.len() >= STREAMS_MAX => {
                let code = RefusalCode::Unable;
                let reason = self.failed.clone().or_else(|| self.behind());
                let reason = reason.unwrap_or_else(|| match self.waits_for_others() {
                    true => OTHERS_HOLD.into(),
                    false => "the targets are slow".into(),
                });
                let text = format!("earlier incarnations are not applied yet: {reason}");
                Some(Refusal { code, text })
            }
            _ => None,
        }
    }

    fn objection_to_resume(&self, stream: &Stream, hello: &Hello) -> Option<Refusal> {
        let malformed = |text: String| {
            Some(Refusal {
                code: RefusalCode::Malformed,
                text,
            })
        };
        let open = stream.intake.stream();
        if stream.intake.closed().is_some() {
            let code = RefusalCode::OldIncarnation;
            let text = format!("incarnation {} was closed here", hello.incarnation);
            return Some(Refusal { code, text });
        }
        if hello.ring_slots != open.ring_slots {
            return malformed("the ring of an incarnation does not change its size".into());
        }
        let held = stream.intake.durable_prefix();
        if held > hello.captured {
            return malformed(format!(
                "record {held} of incarnation {} is held here, the source knows only {}",
                hello.incarnation, hello.captured
            ));
        }
        let announced = stream.intake.announce(&hello.volumes);
        announced
            .err()
            .and_then(|violation| malformed(violation.to_string()))
    }

    fn newest_incarnation(&self) -> wire::Incarnation {
        self.current()
            .map_or(self.base.incarnation, Stream::incarnation)
    }

    pub(super) fn hello(&mut self, session: SessionId, admitted: Admitted) {
        if let Some(refusal) = self.objection(&admitted.hello) {
            self.out
                .push_back(Output::Say(session, Control::Refusal(refusal)));
            return;
        }
        self.end_sessions("replaced by a newer session");
        self.show_disks(&admitted.hello);
        self.generation = admitted.generation.counter;
        self.greeting = Some(Greeting {
            session,
            admitted,
            appended: false,
        });
    }

    /// The volumes a hello names are bound to their disks, if they were not before.
    fn show_disks(&mut self, hello: &Hello) {
        for spec in &hello.volumes {
            if let Some(volume) = self.volumes.get_mut(&spec.name) {
                volume.since.get_or_insert_with(|| Since::hello(hello));
            }
        }
    }

    /// Takes the waiting hello as far as it can go now.
    pub(super) fn go_on_greeting(&mut self, now: Now) {
        let flushed = self.streams.iter().all(Stream::is_flushed);
        if self.journal_failed.is_some() || !flushed || self.meeting.rests() {
            return;
        }
        let Some(mut greeting) = self.greeting.take() else {
            return;
        };
        if !greeting.appended {
            greeting.appended = true;
            self.take_up(&greeting.admitted);
            self.greeting = Some(greeting);
            // Nothing to wait for: the answer follows at once.
            if self.streams.iter().all(Stream::is_flushed) {
                self.go_on_greeting(now);
            }
            return;
        }
        self.answer(now, &greeting);
    }

    /// Journals what the hello changes.
    fn take_up(&mut self, admitted: &Admitted) {
        let hello = &admitted.hello;
        let incarnation = hello.incarnation;
        let known = self
            .current()
            .is_some_and(|stream| stream.incarnation() == incarnation);
        if !known {
            self.close_current();
            let open = StreamOpen {
                group: hello.group.clone(),
                source: hello.source.clone(),
                incarnation,
                ring_slots: hello.ring_slots,
                volumes: hello.volumes.clone(),
            };
            let last_mark = self.current().map(|stream| stream.intake.last_mark());
            let mark = last_mark.unwrap_or(self.base.last_mark);
            // The base may be in this very stream, and the journal no longer know it.
            let here = self.base.incarnation == incarnation;
            let applied = if here { self.base.applied } else { Stamp::ZERO };
            let number = admitted.number;
            let intake = Intake::new(open.clone(), Base { applied, mark });
            let known = if here { self.base.horizon } else { Stamp::ZERO };
            self.streams.push_back(Stream {
                known,
                ..Stream::new(number, intake)
            });
            self.append(number, vec![Entry::Open(number, open)]);
        }
        let Some(stream) = self.streams.back_mut() else {
            return;
        };
        let number = stream.number;
        let mut entries = Vec::new();
        if known {
            stream.intake.greet();
            let announced = stream.intake.announce(&hello.volumes);
            entries.extend(
                announced
                    .ok()
                    .flatten()
                    .map(|open| Entry::Open(number, open)),
            );
        }
        entries.extend(
            stream
                .intake
                .loss(hello.oldest)
                .map(|lost| Entry::Lost(number, lost)),
        );
        self.append(number, entries);
    }

    fn close_current(&mut self) {
        let Some(stream) = self.streams.back() else {
            return;
        };
        if stream.intake.closed().is_none() {
            let (number, upto) = (stream.number, stream.intake.usable());
            self.append(number, vec![Entry::Close(number, StreamClose { upto })]);
        }
    }

    fn answer(&mut self, now: Now, greeting: &Greeting) {
        let (id, hello) = (greeting.session, &greeting.admitted.hello);
        let Some(stream) = self.streams.back() else {
            return;
        };
        let intake = &stream.intake;
        let resume = intake.durable_prefix();
        let ack = HelloAck {
            session: id,
            generation: greeting.admitted.generation,
            resume,
            settled: intake.settled(),
            last_mark: intake
                .last_mark()
                .max(self.heard)
                .max(self.meeting.latest()),
            clock: now.wall,
        };
        assert!(
            hello.oldest <= resume.next(),
            "what the source does not hold was passed"
        );
        self.session = Some(Session::new(id, resume, hello));
        self.out.push_back(Output::Say(id, Control::HelloAck(ack)));
        self.welcome();
        self.ack_due = true;
        if !self.takes_records() {
            self.notify(self.full_text());
        }
    }
}
