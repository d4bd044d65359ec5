//! Files of operators: taken, or refused in one line.

use std::fs;
use std::path::Path;

/// The settings of a group, of an enrolment, of a receiver.
pub fn settings(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a place for a file");
    let file = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, data).expect("a file");
        path
    };
    if let Err(error) = tap::settings::Settings::load(&file("group.toml")) {
        one_line(&error);
    }
    // The same name at either end, in a directory of its own.
    file("receiver.toml");
    let path: &Path = dir.path();
    if let Err(error) = receiver::config::Settings::load(path) {
        one_line(&error);
    }
    if let Err(error) = tap::settings::Enrolment::load(path) {
        one_line(&error);
    }
}

fn one_line(error: &dyn std::fmt::Display) {
    let words = error.to_string();
    assert!(
        !words.is_empty() && !words.trim_end().contains('\n'),
        "{words:?}"
    );
}
