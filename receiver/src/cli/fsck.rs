//! `fsck`: what the verifier found, in words or as JSON.

use super::{say, show};
use crate::config::{ByteSize, Settings};
use crate::control::{Client, GroupStatus};
use crate::failure::{Exit, Failure};
use crate::verifier::{Report, verify};
use std::fmt::Write;

/// Prints the report; fails, after that, if something is wrong.
pub(super) fn fsck(settings: &Settings, as_json: bool) -> Result<(), Failure> {
    if Client::connect(&settings.control_path()).is_ok() {
        return Err(Failure::refused(
            "the receiver runs; stop it first, what moves cannot be verified",
        ));
    }
    let report = verify(settings)?;
    if as_json {
        say(&show::json(&report)?)?;
    } else {
        say(&told(&report))?;
    }
    match report.wrong.len() {
        0 => Ok(()),
        found => Err(Failure::new(
            Exit::Failed,
            format!("{found} findings; nothing was changed, `serve` repairs what can be repaired"),
        )),
    }
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    let journal = &report.journal;
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "journal: {} segments, {}, {} records and {} other entries",
        journal.segments,
        ByteSize(journal.bytes),
        journal.records,
        journal.entries - journal.records,
    );
    for group in &report.groups {
        let _ = writeln!(text, "group {}: {}", group.group, stands(group));
    }
    for volume in &report.volumes {
        let targets = volume.targets.join(", ");
        let _ = writeln!(text, "volume {}: on {targets}", volume.volume);
    }
    for finding in &report.wrong {
        let _ = writeln!(text, "wrong: {}: {}", finding.part, finding.text);
    }
    let total = match report.wrong.len() {
        0 => "nothing is wrong".to_owned(),
        found => format!("{found} findings"),
    };
    text + &total
}

fn stands(group: &GroupStatus) -> String {
    let to = group.recoverable_to.as_deref().unwrap_or("nothing yet");
    format!(
        "applied {}, durable {}, settled {}, recoverable to {to}",
        group.applied, group.durable, group.settled
    )
}
