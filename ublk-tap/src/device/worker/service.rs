//! What a request needs besides order: memory, the disk, and an answer.

use super::{Port, Stage, Worker};
use crate::device::request::{Op, Request};
use crate::ranges::Range;

impl<P: Port> Worker<P> {
    /// Gets memory for a read, or for a write without a record, behind those who wait for some.
    pub(super) fn lend(&mut self, tag: u16) {
        if self.starved.is_empty() && self.try_lend(tag) {
            return self.with_memory(tag);
        }
        self.job(tag).stage = Stage::Memory;
        self.starved.push_back(tag);
    }

    fn try_lend(&mut self, tag: u16) -> bool {
        let length_bytes = self.request(tag).length_bytes;
        let lease = self.buffers.lend(length_bytes);
        self.job(tag).lease = lease;
        self.job(tag).lease.is_some()
    }

    fn with_memory(&mut self, tag: u16) {
        let request = self.request(tag);
        if request.op == Op::Write {
            let job = &mut self.jobs[usize::from(tag)];
            let lease = job.lease.as_ref().expect("memory was lent");
            if let Err(errno) = self.port.copy_in(tag, self.buffers.bytes(lease)) {
                return self.finish(tag, Err(errno));
            }
            self.count_copies(request.length_bytes);
        }
        self.issue(tag);
    }

    pub(super) fn issue(&mut self, tag: u16) {
        let job = &mut self.jobs[usize::from(tag)];
        job.stage = Stage::Disk;
        let op = job
            .progress
            .as_ref()
            .expect("a busy tag has a request")
            .op();
        let memory = match (&job.record, &job.lease) {
            (Some(record), _) => record.as_ptr().cast_mut(),
            (None, Some(lease)) => self.buffers.bytes(lease).as_mut_ptr(),
            (None, None) => std::ptr::null_mut(),
        };
        self.port.issue(tag, op, memory);
    }

    pub(super) fn rest(&mut self, tag: u16) {
        self.job(tag).stage = Stage::Rest;
        self.resting.push(tag);
        self.ask_for_pause();
    }

    /// The disk is done with it, or nothing more can be done.
    pub(super) fn finish(&mut self, tag: u16, outcome: Result<(), i32>) {
        let request = self.request(tag);
        let outcome = if request.op == Op::Read && outcome.is_ok() {
            self.hand_out(tag)
        } else {
            outcome
        };
        self.settle(tag, &request, outcome);
        if let Some(hold) = self.job(tag).hold.take() {
            self.volume.ranges.release(hold);
        }
        let result = outcome.map_or_else(|errno| -errno, |()| request.success());
        self.complete(tag, result);
        if let Some(lease) = self.job(tag).lease.take() {
            self.buffers.give_back(lease);
            self.feed_starved();
        }
    }

    fn hand_out(&mut self, tag: u16) -> Result<(), i32> {
        let job = &self.jobs[usize::from(tag)];
        let lease = job.lease.as_ref().expect("a read has memory");
        self.port.copy_out(tag, self.buffers.bytes(lease))
    }

    fn settle(&mut self, tag: u16, request: &Request, outcome: Result<(), i32>) {
        if let Err(errno) = outcome {
            let so_far = self.counters.failed();
            // A disk that fails every request must not fill the log as well (P11).
            if so_far.is_power_of_two() {
                let volume = self.volume.index.0;
                tracing::warn!(volume, ?request, errno, so_far, "a request failed");
            }
        }
        let Some(record) = self.job(tag).record.take() else {
            return;
        };
        self.published = true;
        match outcome {
            Ok(()) => record.settle(),
            Err(errno) => {
                // Under the range, before anybody else can change it: what the disk holds now is
                // unknown until it was read again. And before the record is void: whoever sees it
                // settled finds the range in the list.
                let length_bytes = u64::from(request.length_bytes);
                let range = Range::of_length(request.offset_bytes, length_bytes);
                self.volume.faults.add(range, errno);
                self.volume.ring.doubt(self.volume.index);
                record.void();
            }
        }
    }

    fn feed_starved(&mut self) {
        while let Some(&tag) = self.starved.front() {
            if !self.try_lend(tag) {
                break;
            }
            self.starved.pop_front();
            self.with_memory(tag);
        }
    }

    pub(super) fn complete(&mut self, tag: u16, result: i32) {
        let job = self.job(tag);
        job.stage = Stage::Idle;
        job.progress = None;
        assert!(
            job.record.is_none() && job.hold.is_none(),
            "nothing outlives its request"
        );
        self.counters.completed();
        self.port.complete(tag, result);
    }
}
