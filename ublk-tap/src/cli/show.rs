//! Status in words: what matters first.

use crate::control::{GroupStatus, VolumeStatus};
use crate::failure::Failure;
use crate::settings::{ByteSize, Span};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

/// Between facts on a line.
const DOT: &str = " \u{b7} ";
/// Cells of a bar.
const BAR_CELLS: usize = 24;

/// A group, as an operator wants to see it.
pub(super) fn group(status: &GroupStatus) -> String {
    let mut text = format!("{}: {}", status.group, headline(status));
    if !status.reason.is_empty() {
        let _ = write!(text, "\n  why     {}", status.reason);
    }
    if status.mode != "stopped" {
        let _ = write!(text, "\n  link    {}", link(status));
        let _ = write!(text, "\n  lag     {}", lag(status));
        let _ = write!(
            text,
            "\n  stamps  captured {}, settled {}, sent {}, durable {}, applied {}",
            status.captured, status.settled, status.sent, status.durable, status.applied
        );
    }
    for volume in &status.volumes {
        let _ = write!(text, "\n  volume  {}", self::volume(volume));
    }
    text
}

/// One line: recoverable to when, in which mode, with which volumes.
pub(super) fn headline(status: &GroupStatus) -> String {
    let recoverable = match (status.mode.as_str(), status.recoverable_age_seconds) {
        ("stopped", _) => None,
        (_, None) => Some("not recoverable yet".to_owned()),
        (_, Some(age)) => Some(format!("recoverable to T-{}", span(age))),
    };
    let mode = format!("mode {}", status.mode);
    let facts = recoverable.into_iter().chain([mode, volumes(status)]);
    facts.collect::<Vec<_>>().join(DOT)
}

/// How a copy goes.
pub(super) fn progress(volume: &VolumeStatus) -> String {
    match volume.state.as_str() {
        "copying" if volume.copied_bytes >= volume.total_bytes => {
            format!("{} copied, the last of it is on its way", bar(volume))
        }
        "copying" => format!("{} {}", bar(volume), pace(volume)),
        "unreadable" => format!("{} held up: {}", bar(volume), volume.reason),
        "ready" => format!("{} is whole at the receiver", volume.name),
        state => format!("{} is {state}: {}", volume.name, volume.reason),
    }
}

/// Writes a line over the last one; the last stays.
pub(super) fn redraw(line: &str, is_last: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let end = if is_last { "\n" } else { "" };
    let written = write!(out, "\r\x1b[2K{line}{end}").and_then(|()| out.flush());
    written.map_err(|error| Failure::of_io("write the output", &error))
}

/// Rows under a head, in columns.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells
            .chain(head.get(column).map(|cell| cell.len()))
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows
        .iter()
        .map(|row| line(&mut row.iter().map(String::as_str)));
    let lines = std::iter::once(line(&mut head.iter().copied())).chain(body);
    lines.collect::<Vec<_>>().join("\n")
}

fn volumes(status: &GroupStatus) -> String {
    let is_fine = |volume: &&VolumeStatus| volume.state == "ready";
    let others: Vec<&VolumeStatus> = status.volumes.iter().filter(|v| !is_fine(v)).collect();
    match (status.volumes.len(), others.as_slice()) {
        (0, _) => "no volumes".into(),
        (_, []) => "all volumes ok".into(),
        (_, others) => {
            let words = others
                .iter()
                .map(|volume| format!("{} {}", volume.name, volume.state));
            words.collect::<Vec<_>>().join(", ")
        }
    }
}

fn volume(volume: &VolumeStatus) -> String {
    let VolumeStatus {
        name,
        link,
        disk,
        state,
        reason,
        size_bytes,
        ..
    } = volume;
    let device = volume.device.as_deref().unwrap_or("no device");
    let mut text = format!("{name}  {state}  {device}");
    if device != link {
        let _ = write!(text, " = {link}");
    }
    let _ = write!(text, "  over {disk}, {}", ByteSize(*size_bytes));
    if state == "copying" || state == "unreadable" {
        let _ = write!(text, "\n          {}", progress(volume));
    }
    if !reason.is_empty() {
        let _ = write!(text, "\n          {reason}");
    }
    text
}

fn link(status: &GroupStatus) -> String {
    let mut text = status.link.clone();
    if !status.peer.is_empty() {
        let _ = write!(text, " to {}", status.peer);
    }
    if !status.link_reason.is_empty() {
        let _ = write!(text, ": {}", status.link_reason);
    }
    text
}

fn lag(status: &GroupStatus) -> String {
    let mut text = format!(
        "{}, {}",
        span(status.lag_seconds),
        ByteSize(status.lag_bytes)
    );
    let (used, size) = (
        ByteSize(status.ring_used_bytes),
        ByteSize(status.ring_bytes),
    );
    let _ = write!(text, "; ring {used} of {size}");
    if status.parked > 0 {
        let _ = write!(text, ", {} writes wait for room", status.parked);
    }
    text
}

fn bar(volume: &VolumeStatus) -> String {
    let total = volume.total_bytes.max(1);
    let done = volume.copied_bytes.min(total);
    let cells = (u128::from(done) * BAR_CELLS as u128 / u128::from(total)) as usize;
    let percent = u128::from(done) * 100 / u128::from(total);
    let (full, rest) = ("#".repeat(cells), ".".repeat(BAR_CELLS - cells));
    format!("{} [{full}{rest}] {percent} %", volume.name)
}

fn pace(volume: &VolumeStatus) -> String {
    let of = format!(
        "{} of {}",
        ByteSize(volume.copied_bytes),
        ByteSize(volume.total_bytes)
    );
    match volume.eta {
        Some(seconds) => {
            let left = Span(Duration::from_secs(seconds));
            format!("{of}, {}/s, {left} left", ByteSize(volume.rate))
        }
        None => of,
    }
}

fn span(seconds: f64) -> Span {
    Span(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copying() -> VolumeStatus {
        VolumeStatus {
            name: "data".into(),
            state: "copying".into(),
            copied_bytes: 512 << 20,
            total_bytes: 1 << 30,
            rate: 64 << 20,
            eta: Some(8),
            ..VolumeStatus::default()
        }
    }

    #[test]
    fn the_first_line_says_recoverable_to_when_in_which_mode_and_who_is_not_well() {
        let mut status = GroupStatus {
            group: "pg".into(),
            mode: "async".into(),
            recoverable_age_seconds: Some(0.4),
            volumes: vec![VolumeStatus {
                state: "ready".into(),
                ..copying()
            }],
            ..GroupStatus::default()
        };
        assert_eq!(
            headline(&status),
            "recoverable to T-0.4 s \u{b7} mode async \u{b7} all volumes ok"
        );
        status.mode = "first copy".into();
        status.recoverable_age_seconds = None;
        status.volumes = vec![copying()];
        assert_eq!(
            headline(&status),
            "not recoverable yet \u{b7} mode first copy \u{b7} data copying"
        );
    }

    #[test]
    fn a_copy_has_bar_rate_and_end() {
        assert_eq!(
            progress(&copying()),
            "data [############............] 50 % 512 MiB of 1 GiB, 64 MiB/s, 8.0 s left"
        );
        let done = VolumeStatus {
            copied_bytes: 1 << 30,
            ..copying()
        };
        assert!(progress(&done).contains("100 % copied"));
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![
            vec!["pg/data".into(), "x".into()],
            vec!["a".into(), "y".into()],
        ];
        assert_eq!(
            table(&["VOLUME", "D"], &rows),
            "VOLUME   D\npg/data  x\na        y"
        );
    }
}
