//! Empties the capability sets of the calling thread.

use super::{ConfineError, cannot};
use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};

/// Empties the set that bounds what running a program could give.
///
/// Only a privileged process may; the tap does it for its own shipper. Started otherwise the set
/// stays, and means nothing: new privileges are ruled out, and so is running a program.
pub(super) fn empty_bounding_set() -> Result<(), ConfineError> {
    let sets = thread::capabilities(None).map_err(cannot("read capabilities"))?;
    let may_drop = sets.effective.contains(CapabilitySet::SETPCAP);
    let mut kept = 0;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match thread::capability_is_in_bounding_set(capability) {
            Ok(true) if may_drop => thread::remove_capability_from_bounding_set(capability)
                .map_err(cannot("empty the capability bounding set"))?,
            Ok(true) => kept += 1,
            Ok(false) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(cannot("read the capability bounding set")(errno)),
        }
    }
    if kept > 0 {
        tracing::debug!("the capability bounding set stays as it is: {kept} capabilities");
    }
    Ok(())
}

/// Empties all others.
pub(super) fn empty_sets() -> Result<(), ConfineError> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    thread::clear_ambient_capability_set().map_err(cannot("empty the ambient capabilities"))?;
    thread::set_capabilities(None, none).map_err(cannot("give up capabilities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_in_any_set() {
        // Capabilities belong to a thread: this one is thrown away.
        std::thread::spawn(|| {
            let could_drop = thread::capabilities(None)
                .unwrap()
                .effective
                .contains(CapabilitySet::SETPCAP);
            empty_bounding_set().unwrap();
            empty_sets().unwrap();
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let sets = status.lines().filter(|line| line.starts_with("Cap"));
            for set in sets {
                let is_empty = set.ends_with("\t0000000000000000");
                assert!(
                    is_empty || !could_drop && set.starts_with("CapBnd"),
                    "{set}"
                );
            }
        })
        .join()
        .unwrap();
    }
}
