//! What a tap that was killed has left, found and made ready to go on with.
//!
//! Its devices wait in the kernel. The disks are taken first: that waits until the last write of
//! the dead tap has ended (P3). Then its ring, if it is the one of the life the state names and
//! holds together: the stream goes on, and nothing is copied that was whole. Else a new life begins
//! for the same devices, and every volume is copied.

use super::reopen::{self, Known};
use super::{Options, begin_life};
use crate::clock;
use crate::failure::Failure;
use crate::group::clerk::of_state;
use crate::group::{Recovery, Reopened, Roster};
use crate::settings::Settings;
use crate::state::{Rest, StateFile, Unclean};
use ring::{Orphan, Recovered, Ring};
use std::sync::Arc;
use wire::{Name, VolumeIndex};

/// The stream of a dead tap.
struct Stream {
    ring: Ring,
    orphans: Vec<Orphan>,
    roster: Roster,
}

/// Finds what the group's dead tap has left, and takes it. `None`: no device of it waits.
///
/// `starter` is the process that started us, whose paths are meant.
pub(super) fn recover(
    options: &Options,
    settings: &Settings,
    state: &mut StateFile,
    starter: Option<i32>,
) -> Result<Option<(Arc<Ring>, Recovery)>, Failure> {
    let left = reopen::left(options, state.state())?;
    if left.is_empty() {
        return Ok(None);
    }
    tracing::info!(volumes = left.len(), "going on for a tap that was killed");
    let known = Known {
        options,
        settings,
        state: state.state(),
        starter,
    };
    let mut volumes = known.reopen_all(left)?;
    let (ring, orphans, roster) = match stream(options, state, &volumes) {
        Ok(Stream {
            ring,
            orphans,
            roster,
        }) => {
            go_on(&ring, &roster, &mut volumes);
            (Arc::new(ring), orphans, roster)
        }
        Err(why) => {
            tracing::warn!("the stream ends, and every volume is copied: {why}");
            (
                begin_life(options, settings, state)?,
                Vec::new(),
                Roster::default(),
            )
        }
    };
    mark_live(state, &volumes)?;
    let gone = gone(state, &roster, &volumes);
    let recovery = Recovery {
        roster,
        orphans,
        volumes,
        gone,
        give_up: give_up(),
    };
    Ok(Some((ring, recovery)))
}

/// The dead tap's stream, if everything fits; else why not, in words.
fn stream(options: &Options, state: &StateFile, volumes: &[Reopened]) -> Result<Stream, String> {
    let incarnation = state.state().incarnation;
    let path = options.dirs.roster(&options.group);
    let roster = Roster::load(&path, incarnation);
    let roster = roster.map_err(|error| format!("{}: {error}", path.display()))?;
    let indices: Option<Vec<VolumeIndex>> = volumes
        .iter()
        .map(|volume| index_of(&roster, volume))
        .collect();
    let Some(indices) = indices else {
        return Err("a volume with a device is not in the stream".into());
    };
    let dir = options.dirs.group_run(&options.group);
    let found = Ring::recover(&dir, incarnation, clock::now());
    let Recovered {
        ring,
        orphans,
        unfilled,
    } = found.map_err(|error| error.to_string())?;
    if !orphans
        .iter()
        .all(|orphan| indices.contains(&orphan.volume()))
    {
        return Err("a write of a volume without a device may be in flight".into());
    }
    let (captured, orphaned) = (ring.captured(), orphans.len());
    tracing::info!(%captured, orphaned, unfilled, "the stream goes on");
    Ok(Stream {
        ring,
        orphans,
        roster,
    })
}

/// The number of a volume, if the stream knows it over this disk.
fn index_of(roster: &Roster, volume: &Reopened) -> Option<VolumeIndex> {
    let spec = roster.volume(&volume.name)?;
    let disk = &volume.disk;
    let is_same = spec.identity == disk.identity()
        && spec.size_bytes == disk.size_bytes()
        && spec.sector_bytes == disk.sector_bytes();
    is_same.then_some(spec.index)
}

/// Volumes that were whole need no copy.
fn go_on(ring: &Ring, roster: &Roster, volumes: &mut [Reopened]) {
    for volume in volumes {
        if let Some(index) = index_of(roster, volume) {
            volume.start = roster.start(index, ring);
        }
    }
}

/// Whatever the state says of them: their devices are about to take writes.
fn mark_live(state: &mut StateFile, volumes: &[Reopened]) -> Result<(), Failure> {
    let live = Rest::Unclean(Unclean::Live);
    let is_named = |name: &Name| volumes.iter().any(|volume| volume.name == *name);
    let mut known = state.state().volumes.iter();
    if known.all(|volume| volume.rest == live || !is_named(&volume.name)) {
        return Ok(());
    }
    let marked = state.update(|state| {
        for volume in &mut state.volumes {
            if is_named(&volume.name) {
                volume.rest = live.clone();
            }
        }
    });
    marked.map_err(|error| of_state(&error))
}

/// Volumes of the stream that came or went when the tap died: nobody uses them, and they leave.
fn gone(state: &StateFile, roster: &Roster, volumes: &[Reopened]) -> Vec<Name> {
    let is_live = |name: &Name| {
        let known = state.state().volume(name);
        known.is_some_and(|known| known.rest == Rest::Unclean(Unclean::Live))
    };
    let names = roster.volumes.iter().map(|spec| &spec.name);
    let gone = names.filter(|name| {
        let has_device = volumes.iter().any(|volume| volume.name == **name);
        !has_device && is_live(name)
    });
    gone.cloned().collect()
}

/// Ends the process as a kill would: the kernel takes the devices back, and their users wait on.
fn give_up() -> Box<dyn Fn(&Failure) + Send> {
    Box::new(|failure: &Failure| {
        tracing::error!("not recovered: {failure}");
        std::process::exit(failure.exit as i32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Shape;
    use crate::disk::Disk;
    use crate::group::{Start, Waits};
    use crate::state::{CleanMark, Registered, Service};
    use std::path::Path;
    use std::time::Duration;
    use wire::{Incarnation, Stamp, TimeMark, VolumeSpec};

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn disk(dir: &Path, file: &str) -> Arc<Disk> {
        let path = dir.join(file);
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        Arc::new(Disk::open(&path, Duration::ZERO).unwrap())
    }

    fn reopened(volume: &str, disk: Arc<Disk>) -> Reopened {
        Reopened {
            name: name(volume),
            path: disk.path().to_owned(),
            disk,
            waits: Waits::Device(0),
            shape: Shape::default(),
            start: Start::Join(String::new()),
        }
    }

    fn roster(volumes: &[&Reopened]) -> Roster {
        let spec = |(n, volume): (usize, &&Reopened)| VolumeSpec {
            index: VolumeIndex(n as u16),
            name: volume.name.clone(),
            size_bytes: volume.disk.size_bytes(),
            sector_bytes: volume.disk.sector_bytes(),
            identity: volume.disk.identity().to_owned(),
        };
        Roster {
            volumes: volumes.iter().enumerate().map(spec).collect(),
            ..Roster::default()
        }
    }

    fn state(dir: &Path, volumes: &[(&Reopened, Rest)]) -> StateFile {
        let fresh = crate::state::State::new(name("pg"), 1);
        let mut state = StateFile::open_or_create(&dir.join("pg.state"), fresh).unwrap();
        let fill = |state: &mut crate::state::State| {
            for (volume, rest) in volumes {
                state.put(Registered {
                    name: volume.name.clone(),
                    identity: volume.disk.identity().to_owned(),
                    path: volume.path.display().to_string(),
                    size_bytes: volume.disk.size_bytes(),
                    sector_bytes: volume.disk.sector_bytes(),
                    service: Service::default(),
                    rest: rest.clone(),
                });
            }
        };
        state.update(fill).unwrap();
        state
    }

    #[test]
    fn a_volume_is_in_the_stream_only_over_the_disk_it_had() {
        let dir = tempfile::tempdir().unwrap();
        let one = reopened("one", disk(dir.path(), "one"));
        let two = reopened("two", disk(dir.path(), "two"));
        let roster = roster(&[&two, &one]);
        assert_eq!(index_of(&roster, &one), Some(VolumeIndex(1)));
        let moved = reopened("one", disk(dir.path(), "other"));
        assert_eq!(index_of(&roster, &moved), None);
        let unknown = reopened("three", disk(dir.path(), "three"));
        assert_eq!(index_of(&roster, &unknown), None);
    }

    #[test]
    fn whoever_was_live_without_a_device_leaves_and_whoever_was_clean_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|n| reopened(n, disk(dir.path(), n)));
        let roster = roster(&[&one, &two, &three]);
        let live = Rest::Unclean(Unclean::Live);
        let clean = Rest::Clean(CleanMark {
            incarnation: Incarnation { counter: 1, id: 1 },
            stamp: Stamp(9),
            fingerprint: "0".into(),
            writes: String::new(),
            at: TimeMark(1),
        });
        let rests = [(&one, live.clone()), (&two, live), (&three, clean)];
        let state = state(dir.path(), &rests);
        assert_eq!(gone(&state, &roster, &[one]), [name("two")]);
    }

    #[test]
    fn a_volume_whose_device_waits_is_live_whatever_the_state_says() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|n| reopened(n, disk(dir.path(), n)));
        let left = || Rest::Unclean(Unclean::NotDrained);
        let mut state = state(dir.path(), &[(&one, left()), (&two, left())]);
        mark_live(&mut state, &[two]).unwrap();
        let rest = |volume: &str| state.state().volume(&name(volume)).unwrap().rest.clone();
        assert_eq!(rest("one"), left());
        assert_eq!(rest("two"), Rest::Unclean(Unclean::Live));
    }
}
