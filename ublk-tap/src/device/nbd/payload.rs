//! Memory for what is written and read by one connection's requests.
//!
//! Taken when a request comes, given back when it is answered. Reads and writes have a budget each, so
//! that writes that wait never leave reads without memory (P6, P11); one request is always taken,
//! however large it may be. Some of what was given back is kept, so that a steady load does not ask
//! the system for memory.

/// The bytes of one request.
#[derive(Debug, Default)]
pub(super) struct Payload {
    memory: Vec<u8>,
    length_bytes: usize,
}

/// Memory that is not in use.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Vec<Vec<u8>>,
    idle_bytes: usize,
}

/// What requests of one kind may hold.
#[derive(Debug)]
pub(super) struct Budget {
    held_bytes: u64,
    most_bytes: u64,
}

/// Most bytes held by the writes of a connection, and again by its reads.
pub(super) const BUDGET_BYTES: u64 = 32 << 20;
/// Most memory kept for later.
const IDLE_BYTES_MAX: usize = 8 << 20;
/// Smallest piece.
const PIECE_BYTES_MIN: usize = 4096;

impl Payload {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[..self.length_bytes]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length_bytes]
    }
}

impl Pool {
    /// Memory for `length_bytes`; what is in it is of no meaning.
    pub(super) fn take(&mut self, length_bytes: u32) -> Payload {
        let length_bytes = length_bytes as usize;
        let size = length_bytes.next_power_of_two().max(PIECE_BYTES_MIN);
        let found = self.idle.iter().rposition(|memory| memory.len() == size);
        let memory = match found {
            Some(place) => {
                self.idle_bytes -= size;
                self.idle.swap_remove(place)
            }
            None => vec![0; size],
        };
        Payload {
            memory,
            length_bytes,
        }
    }

    /// Takes memory back.
    pub(super) fn give(&mut self, payload: Payload) {
        let size = payload.memory.len();
        if size > 0 && self.idle_bytes + size <= IDLE_BYTES_MAX {
            self.idle_bytes += size;
            self.idle.push(payload.memory);
        }
    }
}

impl Budget {
    pub(super) fn new(most_bytes: u64) -> Self {
        Self {
            held_bytes: 0,
            most_bytes,
        }
    }

    /// Whether one of `bytes` may be taken: it fits, or it is alone.
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        self.held_bytes == 0 || self.held_bytes + u64::from(bytes) <= self.most_bytes
    }

    pub(super) fn hold(&mut self, bytes: u32) {
        self.held_bytes += u64::from(bytes);
    }

    pub(super) fn release(&mut self, bytes: u32) {
        let bytes = u64::from(bytes);
        assert!(bytes <= self.held_bytes, "what was held is released once");
        self.held_bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_only_so_much_is_kept() {
        let mut pool = Pool::default();
        let first = pool.take(5000);
        assert_eq!((first.bytes().len(), first.memory.len()), (5000, 8192));
        let at = first.memory.as_ptr();
        pool.give(first);
        let again = pool.take(8192);
        assert_eq!(again.memory.as_ptr(), at);
        pool.give(again);
        for _ in 0..2 {
            let large = pool.take(32 << 20);
            pool.give(large);
        }
        let many: Vec<Payload> = (0..20).map(|_| pool.take(1 << 20)).collect();
        many.into_iter().for_each(|payload| pool.give(payload));
        assert!(pool.idle_bytes <= IDLE_BYTES_MAX && pool.idle_bytes > IDLE_BYTES_MAX / 2);
        let kept: usize = pool.idle.iter().map(Vec::len).sum();
        assert_eq!(kept, pool.idle_bytes);
    }

    #[test]
    fn one_request_is_always_taken_and_more_only_within_the_budget() {
        let mut budget = Budget::new(100);
        assert!(budget.has_room(1000));
        budget.hold(60);
        assert!(budget.has_room(40) && !budget.has_room(41));
        budget.hold(40);
        budget.release(100);
        assert!(budget.has_room(1000));
    }
}
