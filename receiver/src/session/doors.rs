//! Doors: who may be connected, before it is known who it is and after. Pure.
//!
//! A connection begins as a *stranger*. Its certificate is proved by the handshake; with a pin that
//! is enrolled it is let in, and takes a stranger's place no more. Strangers share
//! [`STRANGERS_MAX`] places. When all are taken, a newcomer gets that of the oldest stranger of the
//! network that has most: whoever fills the places pays for them, and a source that comes back
//! finds one (P11, P12).
//!
//! Does not: know time, sockets or certificates.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use wire::Pin;

/// Most connections that are not known to be a source's.
pub(super) const STRANGERS_MAX: usize = 128;
/// Strangers from which on a newcomer must show that it is where it says it is.
const PROOF_FROM: usize = STRANGERS_MAX / 4;
/// Most connections of sources.
pub(super) const SOURCES_MAX: usize = 1024;
/// Most connections of one source: a session, one that is being replaced, probes.
const PER_SOURCE_MAX: usize = 8;

/// Number of a connection.
pub(super) type DoorId = u64;
/// An address, or as much of it as one host can choose from.
type Network = IpAddr;

/// Who is connected.
#[derive(Debug, Default)]
pub(super) struct Doors {
    next: DoorId,
    strangers: BTreeMap<DoorId, Network>,
    sources: BTreeMap<DoorId, Pin>,
}

/// What becomes of a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// It has a place.
    Taken(DoorId),
    /// It has the place of this one, which is to go.
    Instead(DoorId, DoorId),
}

/// A source has too many connections, or there are too many sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Doors {
    /// Whether a newcomer must show its address before anything is kept of it.
    pub(super) fn want_proof(&self) -> bool {
        self.strangers.len() >= PROOF_FROM
    }

    /// Someone comes from `address`.
    pub(super) fn enter(&mut self, address: IpAddr) -> Entry {
        let network = network(address);
        let full = self.strangers.len() >= STRANGERS_MAX;
        let evicted = if full { self.to_evict() } else { None };
        self.next += 1;
        self.strangers.insert(self.next, network);
        match evicted {
            Some(oldest) => {
                self.strangers.remove(&oldest);
                Entry::Instead(self.next, oldest)
            }
            None => Entry::Taken(self.next),
        }
    }

    /// The connection is a source's.
    pub(super) fn know(&mut self, id: DoorId, pin: Pin) -> Result<(), Crowded> {
        let same = self.sources.values().filter(|known| **known == pin);
        if self.sources.len() >= SOURCES_MAX || same.count() >= PER_SOURCE_MAX {
            return Err(Crowded);
        }
        // One that was evicted meanwhile is let in all the same: it is no stranger.
        self.strangers.remove(&id);
        self.sources.insert(id, pin);
        Ok(())
    }

    /// The connection is gone.
    pub(super) fn leave(&mut self, id: DoorId) {
        self.strangers.remove(&id);
        self.sources.remove(&id);
    }

    /// The oldest stranger of the network with most of them.
    fn to_evict(&self) -> Option<DoorId> {
        let mut counts: BTreeMap<Network, usize> = BTreeMap::new();
        for network in self.strangers.values() {
            *counts.entry(*network).or_default() += 1;
        }
        let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let mut strangers = self.strangers.iter();
        strangers
            .find(|(_, network)| **network == most)
            .map(|(id, _)| *id)
    }
}

/// Of IPv6, what a host is given as a whole.
fn network(address: IpAddr) -> Network {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn id(entry: Entry) -> DoorId {
        match entry {
            Entry::Taken(id) | Entry::Instead(id, _) => id,
        }
    }

    #[test]
    fn strangers_have_a_bound_and_who_fills_the_places_pays_for_them() {
        let mut doors = Doors::default();
        assert!(!doors.want_proof());
        let flood: Vec<DoorId> = (0..STRANGERS_MAX)
            .map(|_| id(doors.enter(address(1))))
            .collect();
        assert!(doors.want_proof());
        let Entry::Instead(_, evicted) = doors.enter(address(1)) else {
            panic!("also one of the same network finds a place");
        };
        assert_eq!(evicted, flood[0]);
        let Entry::Instead(honest, evicted) = doors.enter(address(2)) else {
            panic!("a source that comes back finds a place");
        };
        assert_eq!(evicted, flood[1], "the oldest of those who have most");
        for _ in 0..STRANGERS_MAX {
            doors.enter(address(1));
        }
        assert!(doors.strangers.contains_key(&honest), "it keeps its place");
        doors.leave(honest);
        assert!(matches!(doors.enter(address(1)), Entry::Taken(_)));
        assert_eq!(doors.strangers.len(), STRANGERS_MAX);
    }

    #[test]
    fn from_however_many_networks_strangers_come_newcomers_get_in() {
        let mut doors = Doors::default();
        for _ in 0..STRANGERS_MAX {
            for last in 10..20 {
                doors.enter(address(last));
            }
        }
        for last in 100..110 {
            let entry = doors.enter(address(last));
            assert!(matches!(entry, Entry::Instead(..)), "{entry:?}");
        }
        assert_eq!(doors.strangers.len(), STRANGERS_MAX);
    }

    #[test]
    fn a_source_takes_no_strangers_place_and_has_a_bound_of_its_own() {
        let mut doors = Doors::default();
        let pin = |byte| Pin([byte; 32]);
        for _ in 0..PER_SOURCE_MAX {
            let id = id(doors.enter(address(1)));
            doors.know(id, pin(1)).unwrap();
        }
        assert!(doors.strangers.is_empty());
        let more = id(doors.enter(address(1)));
        assert_eq!(doors.know(more, pin(1)), Err(Crowded));
        doors.know(more, pin(2)).unwrap();
        doors.leave(more);
        assert_eq!(doors.sources.len(), PER_SOURCE_MAX);
    }

    #[test]
    fn a_host_that_chooses_among_its_addresses_is_one_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
