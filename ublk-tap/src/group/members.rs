//! The volume table of an incarnation. Pure.
//!
//! A number means the same volume for the whole life of a ring, also after the volume has left:
//! its records may still be on their way.

use wire::limits::VOLUMES_MAX;
use wire::{Name, VolumeIndex, VolumeSpec};

/// Every volume that has been in the stream of this incarnation.
#[derive(Debug, Default)]
pub(super) struct Members {
    specs: Vec<VolumeSpec>,
}

/// Why a volume gets no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoNumber {
    /// The table is full.
    Full,
    /// The name was another disk's in this incarnation.
    Changed,
}

impl Members {
    /// The table of a dead tap, whose numbers follow each other.
    pub(super) fn of(specs: Vec<VolumeSpec>) -> Self {
        Self { specs }
    }

    /// The number of a volume: the one it had, or the next. `spec.index` is not looked at.
    pub(super) fn enter(&mut self, mut spec: VolumeSpec) -> Result<VolumeIndex, NoNumber> {
        if let Some(known) = self.specs.iter().find(|known| known.name == spec.name) {
            spec.index = known.index;
            return if *known == spec {
                Ok(spec.index)
            } else {
                Err(NoNumber::Changed)
            };
        }
        if self.specs.len() >= VOLUMES_MAX {
            return Err(NoNumber::Full);
        }
        let index = u16::try_from(self.specs.len()).map_err(|_| NoNumber::Full)?;
        spec.index = VolumeIndex(index);
        self.specs.push(spec);
        Ok(VolumeIndex(index))
    }

    /// A volume.
    pub(super) fn spec(&self, index: VolumeIndex) -> Option<&VolumeSpec> {
        self.specs.get(usize::from(index.0))
    }

    /// A volume's name, for texts.
    pub(super) fn name(&self, index: VolumeIndex) -> Option<&Name> {
        self.spec(index).map(|spec| &spec.name)
    }

    /// The whole table.
    pub(super) fn specs(&self) -> &[VolumeSpec] {
        &self.specs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, size_bytes: u64) -> VolumeSpec {
        VolumeSpec {
            index: VolumeIndex(99),
            name: Name::new(name).unwrap(),
            size_bytes,
            sector_bytes: 512,
            identity: "wwn:1".into(),
        }
    }

    #[test]
    fn a_number_means_one_volume_for_the_life_of_the_ring() {
        let mut members = Members::default();
        assert_eq!(members.enter(spec("a", 512)), Ok(VolumeIndex(0)));
        assert_eq!(members.enter(spec("b", 512)), Ok(VolumeIndex(1)));
        assert_eq!(members.enter(spec("a", 512)), Ok(VolumeIndex(0)));
        assert_eq!(members.enter(spec("a", 1024)), Err(NoNumber::Changed));
        assert_eq!(members.name(VolumeIndex(1)).unwrap().as_str(), "b");
        assert_eq!(members.spec(VolumeIndex(2)), None);
        for n in 2..VOLUMES_MAX {
            members.enter(spec(&format!("v{n}"), 512)).unwrap();
        }
        assert_eq!(members.enter(spec("late", 512)), Err(NoNumber::Full));
    }
}
