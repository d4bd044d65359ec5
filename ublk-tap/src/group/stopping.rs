//! Taking devices away: not from a mount, and not before what is cached for them is written.

use super::core::CoreEvent;
use super::departure::Manner;
use super::driver::Driver;
use super::removal::Removal;
use super::tapped::Life;
use crate::device::RetireError;
use crate::failure::Failure;
use std::time::{Duration, Instant};
use wire::{Name, VolumeIndex};

/// How long it may take to find out whether a device is mounted.
const HOLD_PATIENCE: Duration = Duration::from_secs(5);

impl Driver {
    /// Whether the devices are kept from being mounted from here on. One that is mounted is a reason
    /// to refuse; so is one that does not let us know in time.
    pub(super) fn hold_devices(
        &mut self,
        now: Instant,
        removal: &mut Removal,
    ) -> Result<bool, Failure> {
        let until = *removal.hold_until.get_or_insert(now + HOLD_PATIENCE);
        let mut are_held = true;
        for index in &removal.volumes {
            let tapped = self
                .tapped
                .get_mut(index)
                .filter(|tapped| !tapped.is_gone());
            let Some(front) = tapped.and_then(|tapped| tapped.front_mut()) else {
                continue;
            };
            match (front.hold(), self.members.name(*index)) {
                (Err(RetireError::InUse), Some(name)) => {
                    let words = front.in_use_words();
                    return Err(self.in_use(name, &words));
                }
                (Err(RetireError::Writing), _) => are_held = false,
                // One that cannot be held says why when its cache is to be written.
                _ => {}
            }
        }
        if are_held || now < until {
            return Ok(are_held);
        }
        let text = format!(
            "{}: whether it is mounted is not known yet; nothing has changed, try again",
            self.names(&removal.volumes)
        );
        Err(Failure::late(text))
    }

    fn in_use(&self, name: &Name, words: &str) -> Failure {
        let group = &self.group;
        Failure::refused(format!("{group}/{name} is in use: {words}"))
    }

    /// Has what the kernel caches for the devices written. What cannot be is a reason to refuse,
    /// unless it is to be abandoned, or the tap ends.
    pub(super) fn retire_devices(&mut self, removal: &mut Removal) -> Option<Failure> {
        let must_be_free = removal.departure.manner() != Manner::Ending;
        for index in &removal.volumes {
            let tapped = self.tapped.get_mut(index);
            // Something may be cached for one that does not serve yet.
            let is_starting = tapped.as_ref().is_some_and(|tapped| tapped.is_starting());
            if is_starting || removal.retired.contains(index) {
                continue;
            }
            let front = tapped.and_then(|tapped| tapped.front_mut());
            let retired = front.map(|front| (front.retire(must_be_free), front.in_use_words()));
            let name = self.members.name(*index);
            match (retired, name) {
                (Some((Err(RetireError::Writing), _)), _) => continue,
                (Some((Err(RetireError::InUse), words)), Some(name)) => {
                    return Some(self.in_use(name, &words));
                }
                (Some((Err(error), _)), Some(name)) => {
                    let group = &self.group;
                    tracing::error!(%error, volume = %name, "cached writes are lost");
                    if removal.departure.manner() == Manner::Whole {
                        let text = format!(
                            "{group}/{name}: {error}; look for what is lost, then remove it with \
                             --abandon"
                        );
                        return Some(Failure::failed(text));
                    }
                }
                _ => {}
            }
            removal.retired.insert(*index);
        }
        None
    }

    /// Whether the devices are gone, with nothing in flight.
    pub(super) fn is_stopped(&self, volumes: &[VolumeIndex]) -> bool {
        let is_down = |index| {
            self.tapped
                .get(index)
                .is_none_or(|tapped| matches!(tapped.life, Life::Stopped | Life::Failed(_)))
        };
        volumes.iter().all(is_down)
    }

    /// Asks every device to stop; those that have are gone.
    pub(super) fn stop_devices(&mut self, now: Instant, removal: &mut Removal) {
        if removal.stake.is_empty() {
            removal.stake = self.stake(now);
        }
        for index in &removal.volumes {
            if let Some(tapped) = self.tapped.get_mut(index) {
                tapped.stop();
            }
        }
        let is_late = removal.departure.is_late(now);
        if is_late && removal.departure.manner() == Manner::Ending && !self.parking.is_empty() {
            // Writes that wait for room would hold their device.
            self.decide(
                now,
                CoreEvent::GaveUp {
                    words: "the tap is ending".into(),
                },
            );
        }
        if removal
            .hard_deadline
            .is_some_and(|deadline| now >= deadline)
        {
            tracing::error!("a disk does not answer; ending without it");
            self.is_over = true;
        }
    }
}
