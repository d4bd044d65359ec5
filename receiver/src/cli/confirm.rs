//! Asking before something is given up: what is at stake, then a word.

use super::reach::Reach;
use crate::config::ByteSize;
use crate::control::{Request, Response};
use crate::failure::Failure;
use std::io::{BufRead, IsTerminal, Write};

/// Shows what removing a volume gives up, and wants its name.
pub(super) fn removal(
    reach: &mut Reach,
    volume: &str,
    confirm: Option<&str>,
) -> Result<(), Failure> {
    want_word(confirm, (volume, "removed"), || stake(reach, volume))
}

/// Shows what detaching a source gives up, and wants its name.
pub(super) fn detaching(
    reach: &mut Reach,
    (group, source): (&str, &str),
    confirm: Option<&str>,
) -> Result<(), Failure> {
    want_word(confirm, (source, "detached"), || {
        stake_of_detaching(reach, group, source)
    })
}

/// Wants `word`, before something is `done` to what it names.
fn want_word(
    confirm: Option<&str>,
    (word, done): (&str, &str),
    stake: impl FnOnce() -> Result<String, Failure>,
) -> Result<(), Failure> {
    match confirm {
        Some(said) if said == word => return Ok(()),
        Some(said) => {
            let text = format!("--confirm {said} is not {word}; nothing was {done}");
            return Err(Failure::usage(text));
        }
        None => {}
    }
    let stake = stake()?;
    if !std::io::stdin().is_terminal() {
        let text = format!("{stake}; repeat with --confirm {word}");
        return Err(Failure::usage(text));
    }
    eprint!("{stake}\ntype {word} to go on: ");
    let mut answer = String::new();
    let asked = std::io::stderr().flush();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    match read {
        Ok(_) if answer.trim() == word => Ok(()),
        _ => Err(Failure::usage(format!("not confirmed; nothing was {done}"))),
    }
}

fn stake_of_detaching(reach: &mut Reach, group: &str, source: &str) -> Result<String, Failure> {
    let response = reach.ask(&Request::Status)?;
    let Response::Status(status) = response else {
        return Err(super::unexpected(&response));
    };
    let found = status.groups.iter().find(|known| known.group == group);
    let lanes = found.into_iter().flat_map(|group| &group.sources);
    let Some(lane) = lanes.into_iter().find(|lane| lane.source == source) else {
        return Err(Failure::refused(format!(
            "group {group} has no source {source} beside others; see status"
        )));
    };
    let volumes: Vec<&str> = lane.volumes.iter().map(|one| one.volume.as_str()).collect();
    let size = ByteSize(lane.volumes.iter().map(|one| one.size_bytes).sum());
    let point = found.and_then(|group| group.recoverable_to.as_deref());
    let held = lane.settled.saturating_sub(lane.recoverable_stamp);
    Ok(format!(
        "detaching {source} gives up what it wrote after the point of {}: {held} records held \
         here. Its volumes ({}) stay there, and the points of the group go on without them; when it \
         is back it goes on where it was, or {size} are copied again; silent for {:.1} s",
        point.unwrap_or("no time yet"),
        volumes.join(", "),
        lane.lag_seconds
    ))
}

fn stake(reach: &mut Reach, volume: &str) -> Result<String, Failure> {
    let response = reach.ask(&Request::Status)?;
    let Response::Status(status) = response else {
        return Err(super::unexpected(&response));
    };
    for group in &status.groups {
        let found = group
            .volumes
            .iter()
            .find(|v| format!("{}/{}", group.group, v.volume) == volume);
        if let Some(found) = found {
            let size = ByteSize(found.size_bytes);
            let point = group.recoverable_to.as_deref().unwrap_or("no point yet");
            return Ok(format!(
                "removing {volume} gives up a replica of {size}, recoverable to {point}; to have \
                 it back, all of it is copied again"
            ));
        }
    }
    Err(Failure::refused(format!(
        "no volume {volume}; `volume list` shows those there are"
    )))
}
