//! Words, records and formats shared by the tap, the shipper and the receiver.
//!
//! This crate is pure: no I/O, no clock, no randomness, no allocation driven by a length that was
//! not bounded first. Everything a peer can send is parsed here into checked types; a parser
//! returns an error and never panics. The byte layouts are documents first: `docs/protocol.md`
//! (link) and `docs/format.md` (disk); the golden-byte tests hold code and document together.
//!
//! It does not know sockets, files or threads.

pub mod batch;
pub mod coding;
pub mod control;
pub mod enrol;
pub mod journal;
pub mod limits;
pub mod member;
pub mod name;
pub mod record;
pub mod settle;
pub mod stamp;
pub mod volume;

pub use batch::{BATCH_HEADER_BYTES, BatchHeader};
pub use coding::{DecodeError, Reader, Writer};
pub use enrol::{JoinReply, JoinRequest, Pin, Token, TokenError};
pub use member::{Member, MemberAction};
pub use name::{Name, NameError, VolumeName};
pub use record::{RECORD_HEADER_BYTES, RecordError, RecordHeader, RecordKind};
pub use settle::SettleMark;
pub use stamp::{Generation, Incarnation, Stamp, TimeMark};
pub use volume::{VolumeIndex, VolumeSpec};
