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
    match confirm {
        Some(word) if word == volume => return Ok(()),
        Some(word) => {
            let text = format!("--confirm {word} is not {volume}; nothing was removed");
            return Err(Failure::usage(text));
        }
        None => {}
    }
    let stake = stake(reach, volume)?;
    if !std::io::stdin().is_terminal() {
        let text = format!("{stake}; repeat with --confirm {volume}");
        return Err(Failure::usage(text));
    }
    eprint!("{stake}\ntype {volume} to remove it: ");
    let mut answer = String::new();
    let asked = std::io::stderr().flush();
    let read = asked.and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    match read {
        Ok(_) if answer.trim() == volume => Ok(()),
        _ => Err(Failure::usage("not confirmed; nothing was removed")),
    }
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
