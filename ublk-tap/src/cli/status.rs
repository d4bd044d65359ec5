//! `ublk-tap status`.

use super::args::StatusArgs;
use super::{look, say, show, to_json, to_pretty_json};
use crate::control::GroupStatus;
use crate::failure::Failure;
use crate::settings::Dirs;
use serde_json::json;
use std::io::IsTerminal;
use std::time::Duration;

const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Prints where a group, or all, stand; once, or again every second.
pub(super) fn status(dirs: &Dirs, args: &StatusArgs) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    loop {
        let groups = groups(dirs, args)?;
        match (args.json, args.watch) {
            (true, is_live) => say(&json(args, &groups, is_live)?)?,
            (false, true) if is_terminal => say(&format!("\x1b[2J\x1b[H{}", in_full(&groups)))?,
            (false, true) => say(&lines(&groups))?,
            (false, false) => say(&in_full(&groups))?,
        }
        if !args.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH_INTERVAL);
    }
}

fn groups(dirs: &Dirs, args: &StatusArgs) -> Result<Vec<GroupStatus>, Failure> {
    match &args.group {
        Some(group) => Ok(vec![look::status(dirs, group)?]),
        None => look::groups(dirs)
            .iter()
            .map(|group| look::status(dirs, group))
            .collect(),
    }
}

/// One object for one group; a live one is a line, so that a program can read it as it comes.
fn json(args: &StatusArgs, groups: &[GroupStatus], is_live: bool) -> Result<String, Failure> {
    let value = match (&args.group, groups) {
        (Some(_), [group]) => json!(group),
        _ => json!({ "groups": groups }),
    };
    if is_live {
        to_json(&value)
    } else {
        to_pretty_json(&value)
    }
}

fn in_full(groups: &[GroupStatus]) -> String {
    if groups.is_empty() {
        return "no groups; `ublk-tap add` makes one".into();
    }
    groups
        .iter()
        .map(show::group)
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// A line per group and running copy, for a log.
fn lines(groups: &[GroupStatus]) -> String {
    let of_group = |group: &GroupStatus| {
        let head = format!("{}: {}", group.group, show::headline(group));
        let copies = group
            .volumes
            .iter()
            .filter(|v| v.state == "copying")
            .map(show::progress);
        std::iter::once(head)
            .chain(copies)
            .collect::<Vec<_>>()
            .join("\n")
    };
    groups.iter().map(of_group).collect::<Vec<_>>().join("\n")
}
