//! Line: what a session is to say, from the group's actor to the session's task.
//!
//! Bounded whatever the peer does (P11): of acks only the newest waits, for it says all the older
//! ones said; of everything else [`SAID_MAX`] messages, and a peer that lets more pile up loses its
//! session. The end overtakes what waits, so that a peer that does not listen is cut off as well.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use wire::control::{Ack, Control};

/// Most messages besides acks that wait to be said.
pub const SAID_MAX: usize = 256;

/// What a session is to do next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Say this.
    Say(Control),
    /// Say why, and end.
    End(String),
}

/// One session's line. Anyone may speak into it, the session's task listens.
#[derive(Debug, Default)]
pub struct Line {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    said: VecDeque<Control>,
    ack: Option<Ack>,
    end: Option<String>,
    held_up: bool,
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Held for look-ups only: a panic elsewhere cannot have left half a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the session say this.
    pub fn say(&self, control: Control) {
        let mut waiting = self.waiting();
        match control {
            Control::Ack(ack) => waiting.ack = Some(ack),
            _ if waiting.said.len() >= SAID_MAX => {
                let reason = "the source does not take what it is told";
                waiting.end.get_or_insert_with(|| reason.into());
            }
            other => waiting.said.push_back(other),
        }
        drop(waiting);
        self.wake.notify_waiters();
    }

    /// Has the session end. The first reason counts.
    pub fn end(&self, reason: String) {
        self.waiting().end.get_or_insert(reason);
        self.wake.notify_waiters();
    }

    /// Whether the session's batches are to wait before they take room from others.
    pub fn hold_up(&self, held_up: bool) {
        self.waiting().held_up = held_up;
        self.wake.notify_waiters();
    }

    /// Waits until they need not.
    pub async fn may_pass(&self) {
        self.wait(|waiting| (!waiting.held_up).then_some(())).await;
    }

    /// Waits for the next thing to do.
    pub async fn next(&self) -> Next {
        self.wait(Waiting::next).await
    }

    /// Waits until the session is to end.
    pub async fn ended(&self) -> String {
        self.wait(|waiting| waiting.end.clone()).await
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut Waiting) -> Option<T>) -> T {
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // Before the look: what comes between look and wait is not missed.
            woken.as_mut().enable();
            let found = look(&mut self.waiting());
            if let Some(found) = found {
                return found;
            }
            woken.await;
        }
    }
}

impl Waiting {
    fn next(&mut self) -> Option<Next> {
        if let Some(reason) = &self.end {
            return Some(Next::End(reason.clone()));
        }
        let said = self.said.pop_front();
        let said = said.or_else(|| self.ack.take().map(Control::Ack));
        said.map(Next::Say)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Stamp;

    fn ack(durable: u64) -> Control {
        Control::Ack(Ack {
            durable: Stamp(durable),
            ..Ack::default()
        })
    }

    fn run<T>(story: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(story)
    }

    #[test]
    fn only_the_newest_ack_waits_and_it_comes_after_the_rest() {
        let line = Line::default();
        for durable in 0..100_000 {
            line.say(ack(durable));
        }
        line.say(Control::Notice("full".into()));
        let heard = run(async { [line.next().await, line.next().await] });
        let notice = Control::Notice("full".into());
        assert_eq!(heard, [Next::Say(notice), Next::Say(ack(99_999))]);
        assert!(line.waiting().next().is_none());
    }

    #[test]
    fn a_peer_that_takes_nothing_loses_its_session() {
        let line = Line::default();
        for _ in 0..10 * SAID_MAX {
            line.say(Control::Notice("again".into()));
        }
        assert_eq!(line.waiting().said.len(), SAID_MAX);
        let end = run(line.next());
        assert!(matches!(end, Next::End(reason) if reason.contains("does not take")));
    }

    #[test]
    fn batches_that_are_held_up_pass_when_they_need_not_wait_any_more() {
        let line = Line::default();
        run(line.may_pass());
        line.hold_up(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                line.hold_up(false);
            });
            run(line.may_pass());
        });
        assert!(!line.waiting().held_up);
    }

    #[test]
    fn the_end_overtakes_what_waits_and_its_first_reason_counts() {
        let line = Line::default();
        line.say(Control::Notice("full".into()));
        line.end("revoked".into());
        line.end("later".into());
        assert_eq!(run(line.next()), Next::End("revoked".into()));
        assert_eq!(run(line.ended()), "revoked");
    }

    #[test]
    fn who_waits_is_woken_by_what_is_said_from_another_thread() {
        let line = Line::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                line.say(ack(1));
                line.end("over".into());
            });
            let both = run(async { (line.next().await, line.ended().await) });
            assert_eq!(both.1, "over");
        });
    }
}
