//! A ring in a throwaway tmpfs directory, and records whose bytes can be recognised.

use ring::{Claim, ClaimError, Consumer, Filled, Origin, RecordFields, Ring, RingConfig};
use std::ops::Deref;
use tempfile::TempDir;
use wire::{Incarnation, Stamp, TimeMark, VolumeIndex};

pub(crate) const INCARNATION: Incarnation = Incarnation {
    counter: 3,
    id: 0xabc << 64 | 0xdef,
};
pub(crate) const VOLUME: VolumeIndex = VolumeIndex(2);

/// A ring that takes its directory along when it goes.
pub(crate) struct TestRing {
    pub(crate) ring: Ring,
    _dir: TempDir,
}

impl Deref for TestRing {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.ring
    }
}

pub(crate) fn tmpfs_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("tests need a tmpfs at /dev/shm")
}

pub(crate) fn ring(slots: u32, payload_bytes: u64) -> TestRing {
    ring_at(slots, payload_bytes, Origin::default())
}

pub(crate) fn ring_at(slots: u32, payload_bytes: u64, origin: Origin) -> TestRing {
    let dir = tmpfs_dir();
    let config = RingConfig {
        slots,
        payload_bytes,
    };
    let ring = Ring::create_at(dir.path(), INCARNATION, config, origin).unwrap();
    TestRing { ring, _dir: dir }
}

pub(crate) fn consumer(ring: &Ring) -> Consumer {
    Consumer::open(ring.consumer_fds().unwrap()).unwrap()
}

/// The bytes a record of this stamp carries.
pub(crate) fn pattern(stamp: Stamp, bytes: u32) -> Vec<u8> {
    let seed = stamp.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = |index: u64| (seed ^ index.wrapping_mul(0xff51_afd7_ed55_8ccd)).to_le_bytes();
    (0..u64::from(bytes).div_ceil(8))
        .flat_map(word)
        .take(bytes as usize)
        .collect()
}

pub(crate) fn claim(ring: &Ring, bytes: u32) -> Result<Claim, ClaimError> {
    ring.claim(bytes, TimeMark(1_000))
}

/// A record whose payload is the pattern of its stamp: a write of whole sectors, a zero record
/// without payload, or a note of any other length.
pub(crate) fn fill(mut claim: Claim) -> Filled {
    let bytes = claim.payload_mut().len() as u32;
    let stamp = claim.stamp();
    claim.payload_mut().copy_from_slice(&pattern(stamp, bytes));
    claim.fill(fields_of(stamp, bytes))
}

/// The fields [`fill`] gives a record.
pub(crate) fn fields_of(stamp: Stamp, bytes: u32) -> RecordFields {
    let offset_bytes = (stamp.0 & 0xffff_ffff) * 512;
    match bytes {
        0 => RecordFields::zero(VOLUME, offset_bytes, 4096),
        bytes if bytes % 512 == 0 => RecordFields::write(VOLUME, offset_bytes, bytes, false),
        _ => RecordFields::member(VOLUME, bytes),
    }
}

/// A settled write.
pub(crate) fn write(ring: &Ring, bytes: u32) -> Stamp {
    let filled = fill(claim(ring, bytes).unwrap());
    let stamp = filled.stamp();
    filled.settle();
    stamp
}

/// Writes one word into the ring file behind everybody's back.
pub(crate) fn scribble(ring: &Ring, word: u64, value: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options()
        .write(true)
        .open(ring.path())
        .unwrap();
    file.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
}

/// First word of the descriptor in a slot.
pub(crate) fn descriptor_word(slot: u64) -> u64 {
    1024 + slot * 8
}

/// The words of the descriptor in a slot.
pub(crate) fn descriptor(ring: &Ring, slot: u64) -> [u64; 8] {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::open(ring.path()).unwrap();
    std::array::from_fn(|word| {
        let mut bytes = [0; 8];
        let at = (descriptor_word(slot) + word as u64) * 8;
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    })
}
