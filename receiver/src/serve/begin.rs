//! Begin: the threads of a group.

use super::group::{Event, Group, Registered, Unopened};
use super::hub::Hub;
use super::messages::{Handle, Told};
use super::{actor, worker};
use crate::catalog::VolumeRecord;
use std::sync::Arc;
use std::sync::mpsc;

/// Starts a group's threads. Targets are open before the base can move; those that cannot be
/// opened are named in status, and refused to their source if they are others than they should be.
pub(super) fn start_group(
    hub: &Arc<Hub>,
    group: Group,
    records: &[VolumeRecord],
) -> std::io::Result<Handle> {
    let name = group.lane();
    let (tell, told) = mpsc::channel();
    let (work, works) = mpsc::channel();
    let handle = Handle {
        tell: tell.clone(),
        work,
    };
    let worker = worker::spawn(hub.clone(), name.clone(), works, tell)?;
    for record in records {
        let refused = handle.open(record).err();
        if let Some(Unopened { reason, .. }) = &refused {
            tracing::error!(volume = %record.name, reason, "volume not applied");
        }
        let now = Registered {
            refused,
            ..registered(record)
        };
        let added = Event::Added(record.name.volume.clone(), now);
        let _ = handle.tell.send(Told::Event(added));
    }
    let actor = actor::spawn(hub.clone(), group, told, handle.clone())?;
    hub.enter(name.clone(), handle.clone(), [actor, worker]);
    hub.join_meeting(&name);
    Ok(handle)
}

/// A volume as registered, its targets open.
pub(super) fn registered(record: &VolumeRecord) -> Registered {
    let (size_bytes, sector_bytes) = (record.size_bytes, record.sector_bytes);
    Registered {
        size_bytes,
        sector_bytes,
        refused: None,
        since: record.disk.as_ref().map(|disk| disk.since),
    }
}
