//! `ublk-tap list`.

use super::{look, say, show, to_pretty_json};
use crate::control::{GroupStatus, VolumeStatus};
use crate::failure::Failure;
use crate::settings::{ByteSize, Dirs};
use serde_json::{Value, json};

/// Prints every volume this host knows.
pub(super) fn list(dirs: &Dirs, as_json: bool) -> Result<(), Failure> {
    let groups: Result<Vec<GroupStatus>, Failure> = look::groups(dirs)
        .iter()
        .map(|group| look::status(dirs, group))
        .collect();
    let groups = groups?;
    let volumes: Vec<(&GroupStatus, &VolumeStatus)> = groups
        .iter()
        .flat_map(|group| group.volumes.iter().map(move |volume| (group, volume)))
        .collect();
    if as_json {
        let values: Vec<Value> = volumes
            .iter()
            .map(|(group, volume)| value(group, volume))
            .collect();
        return say(&to_pretty_json(&values)?);
    }
    if volumes.is_empty() {
        return say("no volumes; `ublk-tap add` makes one");
    }
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .map(|(group, volume)| row(group, volume))
        .collect();
    say(&show::table(
        &["VOLUME", "DEVICE", "SIZE", "STATE", "MODE", "DISK"],
        &rows,
    ))
}

fn row(group: &GroupStatus, volume: &VolumeStatus) -> Vec<String> {
    vec![
        format!("{}/{}", group.group, volume.name),
        volume.device.clone().unwrap_or_else(|| "-".into()),
        ByteSize(volume.size_bytes).to_string(),
        volume.state.clone(),
        group.mode.clone(),
        volume.disk.clone(),
    ]
}

fn value(group: &GroupStatus, volume: &VolumeStatus) -> Value {
    json!({ "group": group.group, "mode": group.mode, "volume": volume })
}
