//! Sizes of a ring, checked once.

use crate::place::{AREA_UNITS_MIN, Geometry, UNIT_BYTES, units_of};
use wire::limits::{RECORD_PAYLOAD_BYTES_MAX, RING_SLOTS_MAX};

/// Largest payload area in bytes.
pub const RING_PAYLOAD_BYTES_MAX: u64 = 64 << 30;
/// Smallest payload area of a ring that carries volumes: four of the largest records.
const FOR_PAYLOAD_BYTES_MIN: u64 = 4 * RECORD_PAYLOAD_BYTES_MAX as u64;
/// Payload bytes per slot: small writes run out of slots only when they average less than this.
const PAYLOAD_BYTES_PER_SLOT: u64 = 2048;
const SLOTS_MIN: u32 = 2;

/// How large a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// Records it can hold; a power of two.
    pub slots: u32,
    /// Payload it can hold, in bytes; a power of two. One record may use at most half of it.
    pub payload_bytes: u64,
}

/// Why a ring cannot have this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The payload area is not a power of two, or outside its bounds.
    #[error("ring of {found} bytes: the size must be a power of two from {least} to {most} bytes")]
    Payload {
        /// What was asked for.
        found: u64,
        /// Smallest size.
        least: u64,
        /// Largest size.
        most: u64,
    },
    /// The slot count is not a power of two, or outside its bounds.
    #[error("ring of {found} slots: the count must be a power of two from {least} to {most}")]
    Slots {
        /// What was asked for.
        found: u32,
        /// Smallest count.
        least: u32,
        /// Largest count.
        most: u32,
    },
}

impl RingConfig {
    /// The ring for a configured payload size; room for the largest record is certain.
    pub fn for_payload(payload_bytes: u64) -> Result<Self, ConfigError> {
        check_payload(payload_bytes, FOR_PAYLOAD_BYTES_MIN)?;
        let slots = (payload_bytes / PAYLOAD_BYTES_PER_SLOT).min(u64::from(RING_SLOTS_MAX));
        Ok(Self {
            slots: slots as u32,
            payload_bytes,
        })
    }

    pub(crate) fn geometry(self) -> Result<Geometry, ConfigError> {
        check_payload(self.payload_bytes, AREA_UNITS_MIN * UNIT_BYTES)?;
        let slots = SLOTS_MIN..=RING_SLOTS_MAX;
        if !self.slots.is_power_of_two() || !slots.contains(&self.slots) {
            return Err(ConfigError::Slots {
                found: self.slots,
                least: *slots.start(),
                most: *slots.end(),
            });
        }
        let area_units = units_of(self.payload_bytes);
        Ok(Geometry::new(u64::from(self.slots), area_units))
    }
}

fn check_payload(found: u64, least: u64) -> Result<(), ConfigError> {
    let most = RING_PAYLOAD_BYTES_MAX;
    if found.is_power_of_two() && (least..=most).contains(&found) {
        return Ok(());
    }
    Err(ConfigError::Payload { found, least, most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_ring_always_has_room_for_the_largest_record() {
        for shift in 22..=36 {
            let config = RingConfig::for_payload(1 << shift).unwrap();
            let geometry = config.geometry().unwrap();
            let largest = units_of(u64::from(RECORD_PAYLOAD_BYTES_MAX));
            assert!(geometry.payload_units_max() >= largest);
        }
    }

    #[test]
    fn odd_sizes_are_refused_with_the_bounds() {
        for bytes in [0, 1 << 21, 50_000_000, (64 << 30) + 1, 128 << 30, u64::MAX] {
            let error = RingConfig::for_payload(bytes).unwrap_err();
            assert!(error.to_string().contains("4194304"), "{error}");
        }
        for slots in [0, 1, 3, RING_SLOTS_MAX * 2] {
            let payload_bytes = 1 << 20;
            let config = RingConfig {
                slots,
                payload_bytes,
            };
            assert!(matches!(
                config.geometry(),
                Err(ConfigError::Slots { found, .. }) if found == slots
            ));
        }
    }
}
