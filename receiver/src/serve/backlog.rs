//! Backlog: batches that arrived just before their group stopped to take records. Pure.
//!
//! Owned by the group's actor. They keep room that all sessions share, so not for long (P11, P12):
//! a session whose batches wait longer than [`WAIT_MAX`] is to end. It comes back, is told why it
//! waits, and its batches wait where they take nothing from others.

use super::group::SessionId;
use super::room::Room;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use wire::RecordHeader;

/// How long a batch may keep its room while its group takes no records.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);

/// Verified records of a batch.
pub(super) type Records = Vec<(RecordHeader, Bytes)>;

/// What waits, in order of arrival.
#[derive(Debug)]
pub(super) struct Backlog<R = Room> {
    batches: VecDeque<Batch<R>>,
    /// Since when none of them was taken.
    since: Duration,
}

#[derive(Debug)]
struct Batch<R> {
    session: SessionId,
    records: Records,
    room: R,
}

impl<R> Default for Backlog<R> {
    fn default() -> Self {
        Self {
            batches: VecDeque::new(),
            since: Duration::ZERO,
        }
    }
}

impl<R> Backlog<R> {
    /// One more.
    pub(super) fn push(&mut self, now: Duration, session: SessionId, records: Records, room: R) {
        if self.batches.is_empty() {
            self.since = now;
        }
        self.batches.push_back(Batch {
            session,
            records,
            room,
        });
    }

    /// The next one, for a group that takes records.
    pub(super) fn take(&mut self, now: Duration) -> Option<(SessionId, Records, R)> {
        self.since = now;
        let next = self.batches.pop_front()?;
        Some((next.session, next.records, next.room))
    }

    /// The session is over: what it left would be refused.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.batches.retain(|batch| batch.session != session);
    }

    /// Whose batches have waited too long, if any have.
    pub(super) fn overdue(&self, now: Duration) -> Option<SessionId> {
        let first = self.batches.front()?;
        (now.saturating_sub(self.since) > WAIT_MAX).then_some(first.session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_group_that_takes_nothing_keeps_the_room_of_no_session_for_long() {
        let room = Arc::new(());
        let mut backlog = Backlog::default();
        let second = Duration::from_secs;
        backlog.push(second(100), 1, Vec::new(), room.clone());
        backlog.push(second(110), 1, Vec::new(), room.clone());
        assert_eq!(backlog.overdue(second(120)), None);
        // It takes one: the rest has waited since then.
        assert!(backlog.take(second(120)).is_some());
        backlog.push(second(125), 2, Vec::new(), room.clone());
        assert_eq!(backlog.overdue(second(140)), None);
        assert_eq!(backlog.overdue(second(141)), Some(1));
        backlog.forget(1);
        assert_eq!(backlog.overdue(second(141)), Some(2));
        backlog.forget(2);
        assert_eq!(backlog.overdue(second(141)), None);
        assert_eq!(Arc::strong_count(&room), 1, "all of it was given back");
        backlog.push(second(200), 3, Vec::new(), room.clone());
        assert_eq!(backlog.overdue(second(210)), None, "a new one has its time");
    }
}
