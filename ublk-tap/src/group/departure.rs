//! Taking volumes down without losing anything, or saying what is lost. Pure.
//!
//! Drain while the devices still serve; then have what is cached for them written; then stop them; then claim the `leave` records; then wait
//! until those are safe; then seal. Up to the stop nothing has changed and the operator can be
//! refused; after it the volumes are on their way out, and only the waiting can end early.

use super::volume::Place;
use std::time::Instant;
use wire::Stamp;

/// Volumes on their way out.
#[derive(Debug)]
pub struct Departure {
    stage: Stage,
    manner: Manner,
    deadline: Instant,
    is_told: bool,
}

/// How much a departure waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Everything must be safe first; if the time is over, it is refused or goes on behind.
    Whole,
    /// Nothing is waited for.
    Abandon,
    /// The tap ends at the deadline, whatever is safe then.
    Ending,
    /// The device could not be made: there is nothing but the `leave` to wait for, until the deadline.
    Undo,
}

/// What a departure sees each turn.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// Where its volumes stand.
    pub places: &'a [Place],
    /// Durable at the receiver, as checked.
    pub acked: Stamp,
    /// Whether the link is known not to work.
    pub link_is_down: bool,
    /// Whether what was cached for its devices is written.
    pub is_retired: bool,
    /// Whether its devices are gone, with nothing in flight.
    pub is_stopped: bool,
    /// Whether ranges whose writes failed are still to be read again.
    pub is_rereading: bool,
    /// Whether more writes failed than could be noted: a copy is due.
    pub is_in_doubt: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// Leave everything as it is and say why.
    Refuse(Why),
    /// Have what is cached for the devices written; asked for until it is.
    Retire,
    /// Stop the devices; asked for until they are.
    Stop,
    /// Claim the `leave` records.
    Leave,
    /// Tell the asker that it goes on behind; asked for once.
    TellLate(Why),
    /// Write down how the volumes were left and let them go.
    Seal,
}

/// Why it is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A volume is not whole at the receiver.
    NotWhole,
    /// Not everything got to the receiver in time.
    NotDrained,
    /// What is cached for the devices is still being written.
    NotWritten,
    /// The devices still have requests in flight.
    Busy,
    /// The devices are gone, but not everything got to the receiver in time.
    LeftBehind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Draining { upto: Stamp },
    Retiring,
    Stopping,
    Confirming,
    Sealing,
}

impl Manner {
    /// Whether an operator has asked for it.
    pub fn is_asked(self) -> bool {
        matches!(self, Self::Whole | Self::Abandon)
    }
}

impl Departure {
    /// Volumes are to go; `captured` is the newest stamp now.
    pub fn new(manner: Manner, captured: Stamp, deadline: Instant) -> Self {
        let stage = match manner {
            Manner::Abandon => Stage::Retiring,
            Manner::Undo => Stage::Stopping,
            Manner::Whole | Manner::Ending => Stage::Draining { upto: captured },
        };
        Self {
            stage,
            manner,
            deadline,
            is_told: false,
        }
    }

    /// Whether it may still be refused.
    pub fn is_reversible(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. } | Stage::Retiring)
    }

    /// Whether what is left of it is to be written down.
    pub fn is_sealing(&self) -> bool {
        self.stage == Stage::Sealing
    }

    /// Whether its time is over.
    pub fn is_late(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// How much it waits for.
    pub fn manner(&self) -> Manner {
        self.manner
    }

    /// Another asker wants the same, with its own patience. An abandon stays one, and no longer waits
    /// for what the asker before it waited for.
    pub fn ask_again(&mut self, manner: Manner, deadline: Instant) {
        if self.manner != Manner::Abandon {
            self.manner = manner;
        }
        if self.manner == Manner::Abandon && matches!(self.stage, Stage::Draining { .. }) {
            self.stage = Stage::Retiring;
        }
        self.deadline = deadline;
        self.is_told = false;
    }

    /// What is to be done.
    pub fn step(&mut self, now: Instant, view: &View<'_>) -> Step {
        let is_late = self.is_late(now);
        match self.stage {
            Stage::Draining { upto } => self.drain(upto, is_late, view),
            Stage::Retiring => self.retire(is_late, view),
            Stage::Stopping => self.stop(is_late, view),
            Stage::Confirming => self.confirm(is_late, view),
            Stage::Sealing => Step::Wait,
        }
    }

    fn drain(&mut self, upto: Stamp, is_late: bool, view: &View<'_>) -> Step {
        let is_here = |place: &Place| *place == Place::Ready || place.is_parting();
        let is_whole = view.places.iter().all(is_here) && !view.is_in_doubt;
        let is_drained = view.acked >= upto && !view.link_is_down && !view.is_rereading;
        let is_ending = self.manner == Manner::Ending;
        if !is_whole && !is_ending {
            return Step::Refuse(Why::NotWhole);
        }
        if is_drained || (is_ending && (is_late || !is_whole || view.link_is_down)) {
            self.stage = Stage::Retiring;
            return self.retire(is_late, view);
        }
        if is_late {
            Step::Refuse(Why::NotDrained)
        } else {
            Step::Wait
        }
    }

    fn retire(&mut self, is_late: bool, view: &View<'_>) -> Step {
        if view.is_retired || (is_late && self.manner != Manner::Whole) {
            self.stage = Stage::Stopping;
            return Step::Stop;
        }
        if is_late {
            Step::Refuse(Why::NotWritten)
        } else {
            Step::Retire
        }
    }

    fn stop(&mut self, is_late: bool, view: &View<'_>) -> Step {
        if view.is_stopped {
            return self.reread(is_late, view);
        }
        if is_late && self.tells() {
            return Step::TellLate(Why::Busy);
        }
        Step::Stop
    }

    /// A write may have failed while its device stopped: what the disk holds instead goes before the
    /// `leave`.
    fn reread(&mut self, is_late: bool, view: &View<'_>) -> Step {
        if !view.is_rereading || self.gives_up(is_late) {
            self.stage = Stage::Confirming;
            return Step::Leave;
        }
        if is_late && self.tells() {
            return Step::TellLate(Why::LeftBehind);
        }
        Step::Wait
    }

    fn confirm(&mut self, is_late: bool, view: &View<'_>) -> Step {
        let is_settled = view.places.iter().all(|place| match place {
            Place::Left { leave } => view.acked >= *leave,
            Place::Leaving => false,
            // It left the stream another way; there is nothing to wait for.
            _ => true,
        });
        if is_settled || self.gives_up(is_late) {
            self.stage = Stage::Sealing;
            return Step::Seal;
        }
        if is_late && self.tells() {
            return Step::TellLate(Why::LeftBehind);
        }
        Step::Wait
    }

    /// Whether what is not safe by now is left as it is.
    fn gives_up(&self, is_late: bool) -> bool {
        match self.manner {
            Manner::Abandon => true,
            Manner::Ending | Manner::Undo => is_late,
            Manner::Whole => false,
        }
    }

    /// Whether the asker is to be told now; once per asker.
    fn tells(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LEFT: Place = Place::Left { leave: Stamp(11) };
    const COPYING: Place = Place::Copying { join: Stamp(1) };

    fn view(place: &[Place], acked: u64) -> View<'_> {
        View {
            places: place,
            acked: Stamp(acked),
            link_is_down: false,
            is_retired: true,
            is_stopped: false,
            is_rereading: false,
            is_in_doubt: false,
        }
    }

    fn stopped(place: &[Place], acked: u64) -> View<'_> {
        View {
            is_stopped: true,
            ..view(place, acked)
        }
    }

    fn start(manner: Manner) -> (Departure, Instant, Instant) {
        let now = Instant::now();
        let late = now + Duration::from_secs(5);
        (Departure::new(manner, Stamp(10), late), now, late)
    }

    #[test]
    fn a_volume_drains_stops_leaves_and_is_sealed_when_all_of_it_is_safe() {
        let (mut departure, now, _) = start(Manner::Whole);
        let ready = [Place::Ready];
        assert_eq!(departure.step(now, &view(&ready, 9)), Step::Wait);
        assert!(departure.is_reversible());
        assert_eq!(departure.step(now, &view(&ready, 10)), Step::Stop);
        assert!(!departure.is_reversible());
        assert_eq!(departure.step(now, &view(&ready, 10)), Step::Stop);
        assert_eq!(departure.step(now, &stopped(&ready, 10)), Step::Leave);
        assert_eq!(
            departure.step(now, &stopped(&[Place::Leaving], 10)),
            Step::Wait
        );
        assert_eq!(departure.step(now, &stopped(&[LEFT], 10)), Step::Wait);
        assert_eq!(departure.step(now, &stopped(&[LEFT], 11)), Step::Seal);
        assert_eq!(departure.step(now, &stopped(&[LEFT], 11)), Step::Wait);
    }

    #[test]
    fn before_the_devices_stop_it_is_refused_and_nothing_has_changed() {
        let (mut departure, now, late) = start(Manner::Whole);
        let refusal = departure.step(now, &view(&[COPYING], 10));
        assert_eq!(refusal, Step::Refuse(Why::NotWhole));
        assert_eq!(
            departure.step(late, &view(&[Place::Ready], 9)),
            Step::Refuse(Why::NotDrained)
        );
        let mut down = view(&[Place::Ready], 10);
        down.link_is_down = true;
        assert_eq!(
            departure.step(now, &down),
            Step::Wait,
            "a dead link confirms no leave"
        );
        assert_eq!(departure.step(late, &down), Step::Refuse(Why::NotDrained));
    }

    #[test]
    fn after_the_stop_the_asker_is_told_once_and_the_rest_goes_on_behind() {
        let (mut departure, now, late) = start(Manner::Whole);
        departure.step(now, &view(&[Place::Ready], 10));
        assert_eq!(
            departure.step(late, &view(&[Place::Ready], 10)),
            Step::TellLate(Why::Busy)
        );
        assert_eq!(departure.step(late, &view(&[Place::Ready], 10)), Step::Stop);
        departure.step(late, &stopped(&[Place::Ready], 10));
        assert_eq!(departure.step(late, &stopped(&[LEFT], 10)), Step::Wait);
        departure.ask_again(Manner::Whole, late);
        let told = departure.step(late, &stopped(&[LEFT], 10));
        assert_eq!(told, Step::TellLate(Why::LeftBehind));
        departure.ask_again(Manner::Abandon, late);
        assert_eq!(departure.step(late, &stopped(&[LEFT], 10)), Step::Seal);
    }

    #[test]
    fn a_write_that_failed_is_read_again_before_the_leave() {
        let ready = [Place::Ready];
        let rereading = View {
            is_rereading: true,
            ..stopped(&ready, 10)
        };
        let running = View {
            is_stopped: false,
            ..rereading.clone()
        };
        for (manner, at_once, when_late) in [
            (Manner::Whole, Step::Wait, Step::TellLate(Why::LeftBehind)),
            (Manner::Ending, Step::Wait, Step::Leave),
            (Manner::Abandon, Step::Leave, Step::Wait),
        ] {
            let (mut departure, now, late) = start(manner);
            let first = departure.step(now, &running);
            assert_eq!(first == Step::Stop, manner == Manner::Abandon, "{manner:?}");
            departure.step(now, &view(&ready, 10));
            assert_eq!(departure.step(now, &rereading), at_once, "{manner:?}");
            assert_eq!(
                departure.step(late, &rereading) == when_late,
                manner != Manner::Abandon,
                "{manner:?}"
            );
        }
        let (mut departure, now, _) = start(Manner::Whole);
        departure.step(now, &view(&ready, 10));
        departure.step(now, &rereading);
        assert_eq!(departure.step(now, &stopped(&ready, 10)), Step::Leave);
    }

    #[test]
    fn what_is_cached_is_written_before_the_devices_stop() {
        let ready = [Place::Ready];
        let cached = View {
            is_retired: false,
            ..view(&ready, 10)
        };
        for (manner, when_late) in [
            (Manner::Whole, Step::Refuse(Why::NotWritten)),
            (Manner::Ending, Step::Stop),
            (Manner::Abandon, Step::Stop),
        ] {
            let (mut departure, now, late) = start(manner);
            assert_eq!(departure.step(now, &cached), Step::Retire, "{manner:?}");
            assert_eq!(departure.step(now, &cached), Step::Retire, "{manner:?}");
            assert!(departure.is_reversible());
            assert_eq!(departure.step(late, &cached), when_late, "{manner:?}");
            let (mut departure, now, _) = start(manner);
            departure.step(now, &cached);
            let written = departure.step(now, &view(&ready, 10));
            assert_eq!(written, Step::Stop, "{manner:?}");
            assert!(!departure.is_reversible());
        }
    }

    #[test]
    fn an_abandon_does_not_wait_for_what_the_asker_before_it_waited_for() {
        let (mut departure, now, late) = start(Manner::Whole);
        let ready = [Place::Ready];
        let down = View {
            link_is_down: true,
            is_rereading: true,
            ..view(&ready, 9)
        };
        assert_eq!(departure.step(now, &down), Step::Wait);
        departure.ask_again(Manner::Abandon, late);
        assert_eq!(departure.step(now, &down), Step::Stop);
        departure.ask_again(Manner::Whole, late);
        assert_eq!(departure.manner(), Manner::Abandon, "it stays one");
    }

    #[test]
    fn a_volume_in_doubt_is_not_whole() {
        let (mut departure, now, _) = start(Manner::Whole);
        let doubt = View {
            is_in_doubt: true,
            ..view(&[Place::Ready], 10)
        };
        assert_eq!(departure.step(now, &doubt), Step::Refuse(Why::NotWhole));
    }

    #[test]
    fn an_abandon_waits_for_the_devices_only() {
        let (mut departure, now, _) = start(Manner::Abandon);
        assert_eq!(departure.step(now, &view(&[COPYING], 0)), Step::Stop);
        assert_eq!(departure.step(now, &stopped(&[COPYING], 0)), Step::Leave);
        assert_eq!(
            departure.step(now, &stopped(&[Place::Leaving], 0)),
            Step::Seal
        );
    }

    #[test]
    fn an_ending_tap_takes_what_it_can_get_until_its_deadline() {
        let (mut departure, now, late) = start(Manner::Ending);
        let mixed = [Place::Ready, COPYING];
        assert_eq!(departure.step(now, &view(&mixed, 3)), Step::Stop);
        assert_eq!(departure.step(now, &stopped(&mixed, 3)), Step::Leave);
        let left = [LEFT, Place::Outside];
        assert_eq!(departure.step(now, &stopped(&left, 10)), Step::Wait);
        assert_eq!(departure.step(late, &stopped(&left, 10)), Step::Seal);
    }

    #[test]
    fn an_undone_add_waits_for_its_leave_and_no_longer_than_its_deadline() {
        let ready = [Place::Ready];
        for (patience, at_once) in [(5, Step::Wait), (0, Step::Seal)] {
            let now = Instant::now();
            let late = now + Duration::from_secs(patience);
            let mut departure = Departure::new(Manner::Undo, Stamp(10), late);
            assert!(!departure.is_reversible());
            assert_eq!(departure.step(now, &stopped(&ready, 3)), Step::Leave);
            assert_eq!(departure.step(now, &stopped(&[LEFT], 10)), at_once);
            let sealed = departure.step(late, &stopped(&[LEFT], 10));
            assert_eq!(sealed == Step::Seal, at_once == Step::Wait);
        }
    }

    #[test]
    fn a_stream_given_up_while_volumes_leave_ends_the_wait() {
        let (mut departure, now, _) = start(Manner::Whole);
        departure.step(now, &view(&[Place::Ready], 10));
        departure.step(now, &stopped(&[Place::Ready], 10));
        assert_eq!(
            departure.step(now, &stopped(&[Place::Outside], 10)),
            Step::Seal
        );
    }
}
