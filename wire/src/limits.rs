//! Named maxima of everything that crosses the link or lands on a disk (P11).
//!
//! A length read from a peer is compared with one of these before it is used, also where the bytes
//! are only discarded.

/// Smallest addressable unit of a volume, in bytes.
pub const SECTOR_BYTES_MIN: u32 = 512;
/// Largest logical sector of a volume, in bytes.
pub const SECTOR_BYTES_MAX: u32 = 4096;
/// Largest payload of one record, in bytes; the tap never asks the kernel for larger requests.
pub const RECORD_PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Largest range of a record without payload (`discard`, `zero`), in bytes.
pub const RECORD_RANGE_BYTES_MAX: u32 = 128 << 20;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: u32 = 1024;
/// Most bytes in one batch, headers included.
pub const BATCH_BYTES_MAX: u32 = 4 << 20;
/// Payload at which the shipper closes a batch, in bytes.
pub const BATCH_BYTES_GOAL: u32 = 1 << 20;
/// Largest body of a control frame, in bytes.
pub const CONTROL_BODY_BYTES_MAX: u32 = 64 << 10;
/// Most void stamps named by one settle mark.
pub const SETTLE_VOIDS_MAX: usize = 4096;
/// Most volumes of one group on one host.
pub const VOLUMES_MAX: usize = 64;
/// Longest name of a group, volume or source, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest disk identity, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 256;
/// Longest reason or refusal text, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// Most descriptor slots of a ring, hence how far a stamp may run ahead of the durable prefix.
pub const RING_SLOTS_MAX: u32 = 1 << 24;

const _: () = assert!(BATCH_BYTES_GOAL >= RECORD_PAYLOAD_BYTES_MAX);
const _: () = assert!(SETTLE_VOIDS_MAX * 8 + 64 <= CONTROL_BODY_BYTES_MAX as usize);
const _: () = assert!(
    VOLUMES_MAX * (NAME_BYTES_MAX + IDENTITY_BYTES_MAX + 32) + 512
        <= CONTROL_BODY_BYTES_MAX as usize
);
