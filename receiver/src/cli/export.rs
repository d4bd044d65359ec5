//! `volume export`: a file with the content of a volume at a retained point.
//!
//! Reads the targets in this process while the daemon holds apply back, then puts the records up to
//! the point on top; the hold ends with it, however it ends.

use super::patch;
use super::reach::Reach;
use crate::config::ByteSize;
use crate::control::{At, Request, Response, VolumeInfo};
use crate::failure::{Failure, io_exit};
use crate::target::{
    self, ExportProgress, LayoutKind, MapChange, Place, TargetError, VolumeReader,
};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the bar moves.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

/// Exports a volume.
pub(super) fn export(reach: &mut Reach, volume: &str, file: &Path, at: At) -> Result<(), Failure> {
    if file.symlink_metadata().is_ok() {
        let text = format!("{} exists; name a file that does not", file.display());
        return Err(Failure::refused(text));
    }
    let response = reach.ask(&Request::Hold {
        volume: volume.to_owned(),
        at: Some(at.to_string()),
    })?;
    let Response::Held {
        stamp,
        time,
        volume: info,
        journal,
    } = response
    else {
        return Err(super::unexpected(&response));
    };
    let map = pool_map(reach, &info)?;
    let mut reader = VolumeReader::open_mapped(&info.record()?, &map)?;
    let mut bar = Bar::new();
    let done = target::export(&mut reader, file, |progress| bar.show(progress));
    bar.end();
    let done = done.map_err(failure)?;
    if let Some(journal) = journal {
        patch::patch(reach, &journal, file).inspect_err(|_| {
            if let Err(error) = std::fs::remove_file(file) {
                eprintln!("cannot remove the unfinished {}: {error}", file.display());
            }
        })?;
    }
    super::say(&format!(
        "exported {volume} at stamp {stamp} ({time}) to {}: {}, {} of it data",
        file.display(),
        ByteSize(done.total_bytes),
        ByteSize(done.written_bytes)
    ))
}

/// Where the segments of the volume lie, if it is in a pool. The hold keeps them there.
fn pool_map(reach: &mut Reach, info: &VolumeInfo) -> Result<Vec<MapChange>, Failure> {
    let mut whole = Vec::new();
    let mut next = (info.layout == LayoutKind::Pool).then_some(0);
    while let Some(page) = next {
        let volume = info.volume.clone();
        let response = reach.ask(&Request::Map { volume, page })?;
        let Response::Map { map, next: more } = response else {
            return Err(super::unexpected(&response));
        };
        for (segment, packed) in map {
            let place = Place::unpack(packed);
            whole.push((
                segment,
                place.ok_or_else(|| Failure::failed("a map that is none"))?,
            ));
        }
        next = more;
    }
    Ok(whole)
}

fn failure(error: TargetError) -> Failure {
    match &error {
        TargetError::Io { source, .. } => Failure::new(io_exit(source), error.to_string()),
        _ => error.into(),
    }
}

/// A bar with rate and time left, on a terminal only.
struct Bar {
    on: bool,
    started: Instant,
    shown: Option<Instant>,
}

impl Bar {
    fn new() -> Self {
        Self {
            on: std::io::stderr().is_terminal(),
            started: Instant::now(),
            shown: None,
        }
    }

    fn show(&mut self, progress: ExportProgress) {
        let now = Instant::now();
        let due = self.shown.is_none_or(|shown| now - shown >= SHOW_INTERVAL);
        if !self.on || !due {
            return;
        }
        self.shown = Some(now);
        let rate = progress.done_bytes as f64 / (now - self.started).as_secs_f64().max(0.001);
        let left_s = (progress.total_bytes - progress.done_bytes) as f64 / rate.max(1.0);
        let filled = (progress.done_bytes * 30 / progress.total_bytes) as usize;
        let line = format!(
            "\r[{:<30}] {} of {}, {}/s, {left_s:.0} s left \x1b[K",
            "#".repeat(filled),
            ByteSize(progress.done_bytes),
            ByteSize(progress.total_bytes),
            ByteSize(rate as u64)
        );
        eprint!("{line}");
        self.on = std::io::stderr().flush().is_ok();
    }

    fn end(&self) {
        if self.on && self.shown.is_some() {
            eprintln!();
        }
    }
}
