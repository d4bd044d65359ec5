//! Admission for a thread that may wait: the copier.
//!
//! A thread that holds a range must not wait for the network (P6): the application's overlapping
//! write would wait with it. Give the range back, wait, and admit again.

use super::{Admission, Hold, Range, RangeTable, Wake};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A range held by a thread; given back when dropped.
pub struct HeldRange<'t> {
    table: &'t RangeTable,
    hold: Option<Hold>,
}

/// Where the thread waits.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl RangeTable {
    /// Waits until `range` is held.
    pub fn admit_blocking(&self, range: Range) -> HeldRange<'_> {
        let gate = Arc::new(Gate::default());
        let wake: Arc<dyn Wake> = Arc::clone(&gate) as Arc<dyn Wake>;
        let hold = match self.admit(range, &wake, 0) {
            Admission::Held(hold) => hold,
            Admission::Waiting(hold) => {
                gate.wait();
                hold
            }
        };
        HeldRange {
            table: self,
            hold: Some(hold),
        }
    }
}

impl Drop for HeldRange<'_> {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.table.release(hold);
        }
    }
}

impl Gate {
    fn wait(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = self
                .opened
                .wait(open)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Wake for Gate {
    fn granted(&self, _token: u64) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_one();
    }
}
