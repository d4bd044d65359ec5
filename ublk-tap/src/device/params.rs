//! The parameters of the device we make: those of the disk below, as far as ublk has them.

use super::request::ZERO_BYTES_MAX;
use crate::disk::Traits;
use libublk::sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_ROTATIONAL, UBLK_ATTR_VOLATILE_CACHE, UBLK_PARAM_TYPE_BASIC,
    UBLK_PARAM_TYPE_DISCARD, ublk_param_basic, ublk_param_discard, ublk_params,
};

/// Parameters for a device over a disk of `size_bytes` with these traits.
pub(super) fn mirrored(traits: &Traits, size_bytes: u64, io_bytes_max: u32) -> ublk_params {
    ublk_params {
        types: UBLK_PARAM_TYPE_BASIC | UBLK_PARAM_TYPE_DISCARD,
        basic: ublk_param_basic {
            attrs: attributes(traits),
            logical_bs_shift: shift(traits.sector_bytes),
            physical_bs_shift: shift(traits.physical_bytes),
            io_opt_shift: shift(traits.io_opt_bytes.max(traits.physical_bytes)),
            io_min_shift: shift(traits.io_min_bytes),
            max_sectors: io_bytes_max / 512,
            dev_sectors: size_bytes / 512,
            ..Default::default()
        },
        discard: ublk_param_discard {
            discard_granularity: 1 << shift(traits.punch_bytes),
            max_discard_sectors: if punches(traits) {
                ZERO_BYTES_MAX / 512
            } else {
                0
            },
            max_write_zeroes_sectors: ZERO_BYTES_MAX / 512,
            max_discard_segments: 1,
            ..Default::default()
        },
        ..Default::default()
    }
}

/// Discards of less than the disk's own unit would free nothing and say they did.
pub(super) fn punches(traits: &Traits) -> bool {
    traits.punch && traits.punch_bytes <= ZERO_BYTES_MAX
}

/// Without the cache attribute no flush would ever reach us (P1); the kernel ignores FUA alone.
fn attributes(traits: &Traits) -> u32 {
    let bit = |on: bool, bit: u32| if on { bit } else { 0 };
    bit(traits.volatile_cache, UBLK_ATTR_VOLATILE_CACHE)
        | bit(traits.volatile_cache && traits.fua, UBLK_ATTR_FUA)
        | bit(traits.rotational, UBLK_ATTR_ROTATIONAL)
}

/// The power of two, rounded down: limits of odd disks are hints only.
fn shift(bytes: u32) -> u8 {
    bytes.max(1).ilog2() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Traits = Traits {
        sector_bytes: 512,
        physical_bytes: 4096,
        io_min_bytes: 4096,
        io_opt_bytes: 0,
        volatile_cache: true,
        fua: true,
        punch: true,
        punch_bytes: 4096,
        rotational: false,
        direct: true,
    };

    #[test]
    fn cache_and_fua_are_said_exactly_as_the_disk_has_them() {
        let attrs = |volatile_cache, fua| {
            attributes(&Traits {
                volatile_cache,
                fua,
                ..DISK
            })
        };
        assert_eq!(attrs(true, true), UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA);
        assert_eq!(attrs(true, false), UBLK_ATTR_VOLATILE_CACHE);
        assert_eq!(attrs(false, true), 0);
    }

    #[test]
    fn discard_is_offered_only_where_the_disk_punches_and_zeroes_always() {
        let params = mirrored(
            &Traits {
                punch: false,
                ..DISK
            },
            1 << 30,
            1 << 19,
        );
        assert_eq!(params.discard.max_discard_sectors, 0);
        assert_eq!(
            params.discard.max_write_zeroes_sectors,
            ZERO_BYTES_MAX / 512
        );
        assert_eq!(
            mirrored(&DISK, 1 << 30, 1 << 19)
                .discard
                .max_discard_sectors,
            1 << 18
        );
    }

    #[test]
    fn a_disk_that_frees_only_more_than_a_discard_may_be_offers_none() {
        let sectors = |punch_bytes| {
            let traits = Traits {
                punch_bytes,
                ..DISK
            };
            mirrored(&traits, 1 << 40, 1 << 19)
                .discard
                .max_discard_sectors
        };
        assert!(sectors(ZERO_BYTES_MAX) > 0);
        assert_eq!((sectors(ZERO_BYTES_MAX + 4096), sectors(u32::MAX)), (0, 0));
    }

    #[test]
    fn sizes_are_the_disks() {
        let basic = mirrored(&DISK, 1 << 30, 1 << 19).basic;
        assert_eq!((basic.logical_bs_shift, basic.physical_bs_shift), (9, 12));
        assert_eq!((basic.dev_sectors, basic.max_sectors), (1 << 21, 1 << 10));
    }
}
