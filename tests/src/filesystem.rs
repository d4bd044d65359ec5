//! A filesystem of the receiver's own: made, mounted, taken away and mounted again.

use crate::run::Run;
use std::fs;
use std::path::{Path, PathBuf};

/// A mounted filesystem; unmounted when dropped, whoever has it open is waited for a little.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// Makes ext4 on `device`, all of it at once, and mounts it at `at`.
    pub fn made(device: &Path, at: &Path) -> Self {
        Run::new("mkfs.ext4")
            .args(["-q", "-F", "-E"])
            .args(["nodiscard,lazy_itable_init=0,lazy_journal_init=0"])
            .args([device])
            .ok();
        Self::again(device, at)
    }

    /// Mounts `device` at `at`; its log is replayed.
    pub fn again(device: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        Run::new("mount").args([device, at]).ok();
        Self { at: at.to_owned() }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily in the end: one whose disk has failed is not always let go.
        let at = self.at.display();
        Run::sh(&format!(
            "for n in 1 2 3 4 5 6 7 8; do umount {at} && exit; sleep 0.3; done; umount -l {at}"
        ))
        .done();
    }
}
