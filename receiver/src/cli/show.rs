//! Status and lists, for people and as JSON.

use super::reach::Reach;
use crate::config::ByteSize;
use crate::control::{GroupStatus, PointRun, Request, Response, Status, VolumeInfo, VolumeStatus};
use crate::failure::{Exit, Failure};
use serde::Serialize;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

const NOT_RUNNING: &str =
    "the receiver is not running, this is what its catalog says; start it with `serve`";
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Prints the status, once or again and again; fails, after that, if the receiver does not run.
/// It is reached anew each time: it may start or stop meanwhile.
pub(super) fn status(
    reach: impl Fn() -> Result<Reach, Failure>,
    as_json: bool,
    watch: bool,
) -> Result<(), Failure> {
    loop {
        let response = reach()?.ask(&Request::Status)?;
        let Response::Status(status) = response else {
            return Err(super::unexpected(&response));
        };
        let text = if as_json {
            json(&*status)?
        } else {
            told(&status)
        };
        if watch && !as_json && std::io::stdout().is_terminal() {
            super::say(&format!("\x1b[2J\x1b[H{text}"))?;
        } else {
            super::say(&text)?;
        }
        if !watch && !status.running {
            return Err(Failure::new(Exit::Unreachable, NOT_RUNNING));
        }
        if !watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

/// The volumes as a table or as JSON.
pub(super) fn volumes(volumes: &[VolumeInfo], as_json: bool) -> Result<String, Failure> {
    if as_json {
        return json(&volumes);
    }
    if volumes.is_empty() {
        return Ok("no volumes; `volume add` registers one".into());
    }
    let rows: Vec<[String; 5]> = volumes.iter().map(row).collect();
    let head = ["VOLUME", "SOURCE", "SIZE", "SECTOR", "TARGETS"].map(str::to_owned);
    Ok(table(&head, &rows))
}

/// The points of a group as a table or as JSON.
pub(super) fn points(group: &str, runs: &[PointRun], as_json: bool) -> Result<String, Failure> {
    let points = runs.iter().map(|run| run.points).sum();
    if as_json {
        return json(&Points {
            group,
            points,
            runs,
        });
    }
    if runs.is_empty() {
        return Ok(format!("{group}: no complete point yet"));
    }
    let rows: Vec<[String; 5]> = runs.iter().map(run_row).collect();
    let head = ["FROM", "TO", "FIRST STAMP", "LAST STAMP", "POINTS"].map(str::to_owned);
    let table = table(&head, &rows);
    Ok(format!("{table}\n{group}: {points} points can be had"))
}

#[derive(Serialize)]
struct Points<'a> {
    group: &'a str,
    points: u64,
    runs: &'a [PointRun],
}

fn run_row(run: &PointRun) -> [String; 5] {
    [
        run.first.clone(),
        run.last.clone(),
        run.first_stamp.to_string(),
        run.last_stamp.to_string(),
        run.points.to_string(),
    ]
}

/// What `volume add` says; also where a disk has nothing of its own to be recognised by.
pub(super) fn added(info: &VolumeInfo) -> String {
    let weak = info.targets.iter().any(|target| target.identity.is_weak());
    let note = if weak {
        "\nnote: a disk without WWN, serial or UUID is bound by name and size"
    } else {
        ""
    };
    let (volume, source) = (&info.volume, &info.source);
    format!(
        "added {volume}: {} from {source}, on {}{note}",
        size(info),
        places(info)
    )
}

/// What `volume remove` says.
pub(super) fn removed(info: &VolumeInfo) -> String {
    format!(
        "removed {}; {} no longer moves, and is yours",
        info.volume,
        places(info)
    )
}

fn row(info: &VolumeInfo) -> [String; 5] {
    let VolumeInfo {
        volume,
        source,
        sector_bytes,
        ..
    } = info;
    [
        volume.clone(),
        source.clone(),
        size(info),
        sector_bytes.to_string(),
        places(info),
    ]
}

fn size(info: &VolumeInfo) -> String {
    ByteSize(info.size_bytes).to_string()
}

fn places(info: &VolumeInfo) -> String {
    let places: Vec<String> = info
        .targets
        .iter()
        .map(|t| t.path.display().to_string())
        .collect();
    places.join(" ")
}

fn table<const N: usize>(head: &[String; N], rows: &[[String; N]]) -> String {
    let all = || std::iter::once(head).chain(rows);
    let widths: Vec<usize> = (0..N)
        .map(|column| all().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

/// What matters first: how far each group can be recovered.
fn told(status: &Status) -> String {
    let mut text = String::new();
    if let Some(error) = &status.error {
        push(&mut text, &format!("FAILED: {error}"));
    }
    for group in &status.groups {
        tell_group(&mut text, group);
    }
    if status.groups.is_empty() {
        push(&mut text, "no volumes; `volume add` registers one");
    }
    if status.running {
        let journal = &status.journal;
        push(
            &mut text,
            &format!(
                "serving UDP {} \u{b7} journal {} of {} in {} segments",
                status.listen,
                ByteSize(journal.bytes),
                ByteSize(journal.bytes_max),
                journal.segments
            ),
        );
    }
    text.pop();
    text
}

fn tell_group(text: &mut String, group: &GroupStatus) {
    let point = match (&group.recoverable_to, group.recoverable_age_seconds) {
        (Some(to), Some(age_s)) => format!("recoverable to T-{age_s:.1} s ({to})"),
        (Some(to), None) => format!("recoverable to {to}"),
        (None, _) => "not recoverable yet".into(),
    };
    let bad: Vec<&str> = group
        .volumes
        .iter()
        .filter(|volume| !matches!(volume.state.as_str(), "ready" | "left"))
        .map(|volume| volume.volume.as_str())
        .collect();
    let volumes = if bad.is_empty() {
        "all volumes ok".into()
    } else {
        bad.join(", ") + " not ok"
    };
    let (name, mode) = (&group.group, &group.mode);
    let window = match group.window_seconds {
        Some(seconds) if group.retain_seconds > 0 => {
            format!("window {} \u{b7} ", rounded(seconds))
        }
        _ => String::new(),
    };
    push(
        text,
        &format!("{name}: {point} \u{b7} {window}mode {mode} \u{b7} {volumes}"),
    );
    if let Some(reason) = &group.reason {
        push(text, &format!("  {reason}"));
    }
    let held = group
        .held_by
        .as_ref()
        .filter(|_| group.reason != group.held_by);
    if let Some(held) = held {
        push(text, &format!("  the point is held by: {held}"));
    }
    let link = if group.connected {
        "connected"
    } else {
        "not connected"
    };
    push(
        text,
        &format!(
            "  source {} {link} \u{b7} settled {} \u{b7} durable {} \u{b7} applied {} \u{b7} lag \
             {:.1} s, {}",
            group.source,
            group.settled,
            group.durable,
            group.applied,
            group.lag_seconds,
            ByteSize(group.lag_bytes)
        ),
    );
    for volume in &group.volumes {
        tell_volume(text, volume);
    }
}

/// A time in the largest unit of which there is one at least.
fn rounded(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3600.0, "h"), (60.0, "min")];
    let unit = units.iter().find(|(length, _)| seconds >= *length);
    match unit {
        Some((length, unit)) => format!("{:.1} {unit}", seconds / length),
        None => format!("{seconds:.1} s"),
    }
}

fn tell_volume(text: &mut String, volume: &VolumeStatus) {
    let mut line = format!(
        "  {} {} \u{b7} {} on {}",
        volume.volume,
        volume.state,
        ByteSize(volume.size_bytes),
        volume.targets.join(" ")
    );
    if volume.state == "copying" && volume.size_bytes > 0 {
        let part = volume.copied_bytes as f64 * 100.0 / volume.size_bytes as f64;
        write!(line, " \u{b7} {part:.0} % copied").unwrap_or_default();
    }
    if let (Some(used), Some(all)) = (volume.pool_used_bytes, volume.pool_bytes) {
        let (used, all) = (ByteSize(used), ByteSize(all));
        write!(line, " \u{b7} {used} of {all} taken").unwrap_or_default();
    }
    if let Some(reason) = &volume.reason {
        write!(line, " \u{b7} {reason}").unwrap_or_default();
    }
    push(text, &line);
    if volume.unknown_bytes > 0 {
        push(text, &format!("  {}", unknown(volume)));
    }
}

/// Which ranges failed writes have left behind.
fn unknown(volume: &VolumeStatus) -> String {
    let ranges: Vec<String> = volume
        .unknown
        .iter()
        .map(|range| format!("{} at {}", range.length_bytes, range.offset_bytes))
        .collect();
    let shown: u64 = volume.unknown.iter().map(|range| range.length_bytes).sum();
    let more = match volume.unknown_bytes.saturating_sub(shown) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    format!(
        "  unknown since a write failed at the source: bytes {}{more}",
        ranges.join(", ")
    )
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::UnknownRange;

    #[test]
    fn ranges_a_failed_write_has_left_behind_are_named() {
        let range = |offset_bytes| UnknownRange {
            offset_bytes,
            length_bytes: 4096,
        };
        let volume = VolumeStatus {
            volume: "data".into(),
            state: "unknown".into(),
            unknown_bytes: 12288,
            unknown: vec![range(0), range(1 << 20)],
            ..VolumeStatus::default()
        };
        let group = GroupStatus {
            volumes: vec![volume],
            ..GroupStatus::default()
        };
        let mut text = String::new();
        tell_group(&mut text, &group);
        assert!(text.contains("data not ok"), "{text}");
        let named = "bytes 4096 at 0, 4096 at 1048576 and 4096 more";
        assert!(text.contains(named), "{text}");
    }
}
