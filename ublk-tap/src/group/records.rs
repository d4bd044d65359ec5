//! The records a group writes itself: members and gaps.

use crate::clock;
use ring::{Claim, ClaimError, RecordFields, ReopenError, Ring};
use wire::member::gap_payload;
use wire::{Member, Stamp};

/// Claims a member record, settled at once. `None`: no room now.
pub(super) fn claim_member(ring: &Ring, member: &Member) -> Result<Option<Stamp>, ClaimError> {
    let payload = member.to_bytes();
    let length = length_of(&payload);
    let claim = match ring.claim(length, clock::now()) {
        Ok(claim) => claim,
        Err(ClaimError::Full) => return Ok(None),
        Err(error) => return Err(error),
    };
    let fields = RecordFields::member(member.spec.index, length);
    Ok(Some(put(ring, claim, &payload, fields)))
}

/// Takes the stream up again with a gap record, settled at once. `None`: not possible now.
pub(super) fn reopen(ring: &Ring, reason: &str) -> Option<Stamp> {
    let payload = gap_payload(reason);
    let length = length_of(&payload);
    match ring.reopen(length, clock::now()) {
        Ok(claim) => Some(put(ring, claim, &payload, RecordFields::gap(length))),
        Err(ReopenError::Claim(_)) => None,
        Err(ReopenError::NotClosed) => unreachable!("only the group opens and closes its stream"),
    }
}

fn put(ring: &Ring, mut claim: Claim, payload: &[u8], fields: RecordFields) -> Stamp {
    claim.payload_mut().copy_from_slice(payload);
    let filled = claim.fill(fields);
    let stamp = filled.stamp();
    filled.settle();
    ring.notify_consumer();
    stamp
}

fn length_of(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("payloads of members and gaps are bounded by their fields")
}
