//! The link as the group sees it: what the shipper says, and what is done about the shipper.

use super::clerk::Job;
use super::core::CoreEvent;
use super::driver::Driver;
use crate::shipper::{Port, PortEvent, Supervisor};
use ring::handoff::{LinkReport, LinkState, Progress, ToTap, Welcome};
use std::time::Instant;
use wire::Generation;

/// The shipper's two ends, and what it said last.
pub(super) struct Link {
    pub(super) port: Port,
    supervisor: Option<Supervisor>,
    report: Option<LinkReport>,
    /// The next shipper gets a page that is believed again.
    resets: bool,
}

impl Link {
    pub(super) fn new(port: Port, supervisor: Option<Supervisor>) -> Self {
        Self {
            port,
            supervisor,
            report: None,
            resets: false,
        }
    }

    /// The state in one word.
    pub(super) fn word(&self) -> &'static str {
        match self.report.as_ref().map(|report| report.state) {
            _ if !self.port.is_connected() => "down",
            None => "unknown",
            Some(LinkState::Connecting) => "connecting",
            Some(LinkState::Up) => "up",
            Some(LinkState::Refused) => "refused",
            Some(LinkState::Down) => "down",
        }
    }

    /// Why, in words; empty when there is nothing to say.
    pub(super) fn reason(&self) -> String {
        if self.port.is_connected() {
            return self
                .report
                .as_ref()
                .map_or_else(String::new, |report| report.reason.clone());
        }
        let words = self.supervisor.as_ref().map(Supervisor::words);
        let words = words.filter(|words| !words.is_empty());
        words.unwrap_or_else(|| "no shipper is connected".into())
    }

    /// State and reason.
    pub(super) fn words(&self) -> String {
        match self.reason() {
            reason if reason.is_empty() => self.word().into(),
            reason => format!("{}: {reason}", self.word()),
        }
    }

    /// The receiver's address.
    pub(super) fn peer(&self) -> &str {
        self.report.as_ref().map_or("", |report| &report.peer)
    }

    /// Whether records are known not to travel. A shipper that says nothing may do its work.
    pub(super) fn is_down(&self) -> bool {
        !matches!(self.word(), "up" | "unknown")
    }

    /// Whether the next shipper is waited for, to begin anew with it.
    pub(super) fn is_replacing(&self) -> bool {
        self.resets
    }

    /// Parts with a shipper that is not to be believed.
    pub(super) fn replace_shipper(&mut self) {
        self.resets = true;
        self.port.disconnect();
        self.report = None;
        if let Some(supervisor) = &self.supervisor {
            supervisor.replace();
        }
    }
}

impl Driver {
    /// Takes what the shipper has said.
    pub(super) fn hear_shipper(&mut self, now: Instant) {
        let welcome = || Welcome {
            group: self.group.clone(),
            source: self.source.clone(),
            generation: self.generation,
            incarnation: self.ring.incarnation(),
            ring_slots: self.ring.config().slots,
            volumes: self.members.specs().to_vec(),
        };
        for event in self.link.port.turn(&self.ring, welcome) {
            match event {
                PortEvent::Connected => self.shipper_connected(now),
                PortEvent::Lost(reason) => {
                    tracing::warn!("{reason}");
                    self.link.report = None;
                    self.decide(
                        now,
                        CoreEvent::Link {
                            is_up: false,
                            words: reason,
                        },
                    );
                }
                PortEvent::Said(message) => self.shipper_said(now, message),
            }
        }
    }

    fn shipper_connected(&mut self, now: Instant) {
        tracing::info!("a shipper has connected");
        self.link.report = None;
        self.progress = Progress {
            durable: self.ring.acked(),
            ..self.progress
        };
        if std::mem::take(&mut self.link.resets) {
            self.ring.reset_acked();
        }
        let words = "the shipper is connecting".into();
        self.decide(
            now,
            CoreEvent::Link {
                is_up: false,
                words,
            },
        );
    }

    fn shipper_said(&mut self, now: Instant, message: ToTap) {
        match message {
            ToTap::Link(report) => {
                let is_up = report.state == LinkState::Up;
                tracing::info!(state = ?report.state, reason = report.reason, "link");
                let words = report.reason.clone();
                self.link.report = Some(report);
                self.decide(now, CoreEvent::Link { is_up, words });
            }
            ToTap::Progress(progress) => self.progress = progress,
            ToTap::CopyWanted(wanted) => {
                tracing::warn!(volume = ?wanted.volume, reason = wanted.reason, "copy wanted");
                let (index, words) = (wanted.volume, wanted.reason);
                let durable = self.progress.durable;
                self.decide(
                    now,
                    CoreEvent::CopyWanted {
                        index,
                        durable,
                        words,
                    },
                );
            }
            ToTap::Generation(report) => self.keep_generation(report.0),
        }
    }

    /// A group's history only moves forward; the receiver is who refuses an older one (P13).
    fn keep_generation(&mut self, generation: Generation) {
        if generation == self.generation {
            return;
        }
        if generation.counter <= self.generation.counter {
            tracing::warn!(%generation, known = %self.generation, "not a newer generation");
            return;
        }
        self.generation = generation;
        self.post_job(Job::Keep(generation));
    }
}
