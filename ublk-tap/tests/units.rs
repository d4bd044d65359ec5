//! The units a package installs: systemd takes them, and they give up what is not needed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");

/// The units as an administrator has them, of group `pg`, with programs that are installed here.
fn installed() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let entries = fs::read_dir(UNITS)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let install = |unit: PathBuf| {
        let text = fs::read_to_string(&unit).unwrap();
        let name = unit
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace('@', "@pg");
        let to = dir.path().join(name);
        let programs = ["-shipper ", "-receiver ", " "];
        let text = programs.iter().fold(text, |text, program| {
            text.replace(&format!("/usr/bin/ublk-tap{program}"), "/bin/true ")
        });
        fs::write(&to, text).unwrap();
        to
    };
    let units = entries.map(install).collect();
    (dir, units)
}

/// None, said in words, where there is no systemd.
fn analyze(args: &[&str], unit: &Path) -> Option<Output> {
    let run = Command::new("systemd-analyze")
        .args(args)
        .arg(unit)
        .output();
    if run.is_err() {
        eprintln!("skipped: systemd-analyze is not installed");
    }
    run.ok()
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let (_dir, units) = installed();
    assert_eq!(units.len(), 3);
    for unit in units {
        let Some(output) = analyze(&["verify", "--man=no"], &unit) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = unit.file_name().unwrap().to_str().unwrap();
        assert!(output.status.success() && !said.contains(name), "{said}");
    }
}

#[test]
fn the_units_give_up_what_they_do_not_need() {
    let (_dir, units) = installed();
    for unit in units {
        let name = unit.file_name().unwrap().to_str().unwrap();
        // Tenths of systemd's scale from 0, nothing left, to 10.
        let most = match name {
            name if name.contains("shipper") => "17",
            name if name.contains("receiver") => "37",
            _ => "47",
        };
        let threshold = format!("--threshold={most}");
        let args = ["security", "--offline=true", "--no-pager", &threshold];
        let Some(output) = analyze(&args, &unit) else {
            return;
        };
        assert!(output.status.success(), "{name}: {output:?}");
    }
}
