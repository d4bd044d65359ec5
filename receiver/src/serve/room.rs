//! Room: bytes received and not yet durable have a bound, over all sessions and for each (P11).

use super::INTAKE_BYTES_MAX;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::limits::BATCH_BYTES_MAX;

/// All the room there is.
#[derive(Debug)]
pub struct Rooms {
    all: Arc<Semaphore>,
    bytes: usize,
}

/// A session's share of it: one that stands still leaves the rest to the others.
#[derive(Debug)]
pub struct Share(Arc<Semaphore>);

/// Room for a batch; given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    _share: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Rooms {
    /// What is on its way fits half a segment of the journal, so that one that has just become full
    /// takes that and the settle marks behind it.
    pub(super) fn new(segment_bytes: u64) -> Self {
        let half = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX);
        let bytes = half.clamp(2 * BATCH_BYTES_MAX as usize, INTAKE_BYTES_MAX);
        Self {
            all: Arc::new(Semaphore::new(bytes)),
            bytes,
        }
    }

    /// Half of it, for a session to begin with.
    pub fn share(&self) -> Share {
        Share(Arc::new(Semaphore::new(self.bytes / 2)))
    }

    /// Waits for room for a batch of at most [`BATCH_BYTES_MAX`].
    pub async fn room(&self, share: &Share, bytes: u32) -> Option<Room> {
        let of_share = share.0.clone().acquire_many_owned(bytes).await.ok()?;
        let of_all = self.all.clone().acquire_many_owned(bytes).await.ok()?;
        Some(Room {
            _share: of_share,
            _all: of_all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_session_that_stands_still_leaves_room_to_the_others() {
        let rooms = Rooms::new(crate::journal::SEGMENT_BYTES_MIN);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (greedy, modest) = (rooms.share(), rooms.share());
            let mut held = Vec::new();
            let little = Duration::from_millis(20);
            while let Ok(room) = tokio::time::timeout(little, rooms.room(&greedy, 1 << 20)).await {
                held.extend(room);
                assert!(held.len() < 64, "no bound");
            }
            assert!(!held.is_empty());
            assert!(rooms.room(&modest, BATCH_BYTES_MAX).await.is_some());
            drop(held);
            assert!(rooms.room(&greedy, BATCH_BYTES_MAX).await.is_some());
        });
    }
}
