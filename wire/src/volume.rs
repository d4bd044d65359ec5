//! What both ends must agree on about a volume before a byte of it is shipped (P13).

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::{IDENTITY_BYTES_MAX, SECTOR_BYTES_MAX, SECTOR_BYTES_MIN};
use crate::name::Name;

/// Number of a volume inside its group's stream; fixed for the life of an incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeIndex(pub u16);

/// A volume as its source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSpec {
    /// The number its records carry.
    pub index: VolumeIndex,
    /// Its name inside the group.
    pub name: Name,
    /// Size in bytes; a multiple of the sector size.
    pub size_bytes: u64,
    /// Logical sector size in bytes: a power of two from 512 to 4096.
    pub sector_bytes: u32,
    /// What identifies the disk below: WWN, serial, partition UUID, or device and inode of a file.
    pub identity: String,
}

impl VolumeSpec {
    /// Whether size and sector size can be those of a block device.
    pub fn is_sound(&self) -> bool {
        (SECTOR_BYTES_MIN..=SECTOR_BYTES_MAX).contains(&self.sector_bytes)
            && self.sector_bytes.is_power_of_two()
            && self.size_bytes > 0
            && self.size_bytes.is_multiple_of(u64::from(self.sector_bytes))
            && i64::try_from(self.size_bytes).is_ok()
    }

    /// Appends the spec: index, name, size, sector size, identity.
    pub fn encode(&self, writer: &mut Writer) {
        writer
            .u16(self.index.0)
            .name(&self.name)
            .u64(self.size_bytes)
            .u32(self.sector_bytes);
        writer.text(&self.identity, IDENTITY_BYTES_MAX);
    }

    /// Reads what [`Self::encode`] wrote; an impossible geometry is a bad value.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let spec = Self {
            index: VolumeIndex(reader.u16()?),
            name: reader.name("volume name")?,
            size_bytes: reader.u64()?,
            sector_bytes: reader.u32()?,
            identity: reader.identity()?,
        };
        if !spec.is_sound() {
            return Err(DecodeError::BadValue("volume geometry"));
        }
        Ok(spec)
    }
}
