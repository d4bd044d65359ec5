//! What comes from the source, read off the wire and handed to the group.

use super::super::World;
use super::super::link::{Mail, over_the_wire};
use crate::probes::Probe;
use bytes::Bytes;
use receiver::serve::group::{Admitted, Event as Told, SessionId};
use wire::control::{Control, Hello};
use wire::journal::StreamNumber;
use wire::{BATCH_HEADER_BYTES, BatchHeader, Generation};

impl World {
    /// Something has come from the source.
    pub(in crate::world) fn site_heard(&mut self, link: u64, mail: Mail) {
        let is_lost = matches!(mail, Mail::Lost(_));
        let Some(open) = self.links.open.get(&link) else {
            return;
        };
        let (session, is_broken) = (open.session, open.is_broken);
        if is_lost {
            self.links.open.remove(&link);
            if let Some(session) = session
                && let Some(daemon) = &mut self.site.daemon
                && daemon.sessions.remove(&session).is_some()
            {
                daemon.waiting.retain(|waiting| waiting.0 != session);
                self.tell_group(Told::Ended(session));
            }
            return;
        }
        if is_broken || !self.site.is_up() {
            return;
        }
        match mail {
            Mail::Control(message) => match over_the_wire(&message) {
                Ok(message) => self.site_control(link, session, message),
                Err(words) => self.fail(format!("a message is not read as written: {words}")),
            },
            Mail::Batch(bytes) => self.site_batch(link, session, &bytes),
            _ => {}
        }
    }

    fn site_control(&mut self, link: u64, session: Option<SessionId>, message: Control) {
        let is_known = session.filter(|session| {
            let daemon = self.site.daemon.as_ref();
            daemon.is_some_and(|daemon| daemon.sessions.contains_key(session))
        });
        match (message, is_known) {
            (Control::Hello(hello), None) => self.site_hello(link, hello),
            (Control::Settle(mark), Some(session)) => self.tell_group(Told::Settle(session, mark)),
            (Control::Heartbeat(beat), Some(session)) => {
                self.tell_group(Told::Heartbeat(session, beat));
            }
            (Control::Bye(_), Some(session)) => {
                if let Some(daemon) = &mut self.site.daemon {
                    daemon.sessions.remove(&session);
                    daemon.waiting.retain(|waiting| waiting.0 != session);
                }
                self.tell_group(Told::Ended(session));
            }
            _ => {}
        }
    }

    fn site_hello(&mut self, link: u64, hello: Hello) {
        let Some(daemon) = &mut self.site.daemon else {
            return;
        };
        if let Some(refusal) = daemon.group.objection(&hello) {
            self.line(|| format!("site: refuses: {}", refusal.text));
            return self.tell_source(link, Mail::Control(Control::Refusal(refusal)));
        }
        self.site.next_session += 1;
        let session = self.site.next_session;
        daemon.sessions.insert(session, link);
        if let Some(open) = self.links.open.get_mut(&link) {
            open.session = Some(session);
        }
        let number = StreamNumber(self.site.next_stream);
        self.site.next_stream += 1;
        let generation = Generation {
            counter: 1,
            lineage: 9,
        };
        self.line(|| format!("site: hello {session} of {}", hello.incarnation));
        self.tell_group(Told::Hello(
            session,
            Box::new(Admitted {
                hello,
                generation,
                number,
            }),
        ));
    }

    fn site_batch(&mut self, link: u64, session: Option<SessionId>, bytes: &Bytes) {
        let daemon = self.site.daemon.as_ref();
        let is_known = |s: &SessionId| daemon.is_some_and(|it| it.sessions.contains_key(s));
        let Some(session) = session.filter(is_known) else {
            return self.reached.reach(Probe::LateBatch);
        };
        let number = self.links.open.get(&link).map_or(0, |open| open.number);
        let head = bytes
            .first_chunk::<BATCH_HEADER_BYTES>()
            .map(BatchHeader::parse);
        let records = match head {
            Some(Ok(head)) if head.session != number => return,
            Some(Ok(head)) => receiver::session::split(&head, bytes.slice(BATCH_HEADER_BYTES..)),
            _ => Err("not a batch".into()),
        };
        match records {
            Ok(records) => {
                if let Some(daemon) = &mut self.site.daemon {
                    daemon.waiting.push_back((session, records));
                }
                if let Some(next) = self.next_waiting() {
                    self.tell_group(next);
                }
            }
            Err(_) => {
                self.reached.reach(Probe::BatchDamaged);
                self.end_session(session, "damaged batch");
                self.tell_group(Told::Ended(session));
            }
        }
    }
}
