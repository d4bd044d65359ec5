//! A real tree of files: what the machine has, copied onto the protected filesystem.

use super::digest;
use crate::content::files_below;
use std::fs;
use std::path::{Path, PathBuf};

/// Fewest files of a tree worth showing.
const FILES_MIN: usize = 2000;
/// Most files copied.
const FILES_MAX: usize = 2200;
/// Most bytes copied: encrypted bytes are slow in an emulated guest.
const BYTES_MAX: u64 = 16 << 20;
const FILE_BYTES_MAX: u64 = 48 << 10;
const ROOTS: [&str; 4] = ["/usr/include", "/usr/share", "/usr/lib", "/usr"];

/// The files copied, with the digests of their sources.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: PathBuf,
    files: Vec<(PathBuf, u64)>,
    bytes: u64,
}

impl Tree {
    /// The first root that has enough small files.
    pub(super) fn choose() -> Self {
        let trees = ROOTS.iter().map(|root| Self::below(Path::new(root)));
        let found = trees.into_iter().find(|tree| tree.files.len() >= FILES_MIN);
        found.unwrap_or_else(|| panic!("no tree of {FILES_MIN} files below {ROOTS:?}"))
    }

    fn below(root: &Path) -> Self {
        let mut tree = Self {
            root: root.into(),
            ..Self::default()
        };
        for file in files_below(root) {
            let length = fs::metadata(root.join(&file))
                .map(|meta| meta.len())
                .unwrap_or(u64::MAX);
            let fits = length <= FILE_BYTES_MAX && tree.bytes + length <= BYTES_MAX;
            if fits && tree.files.len() < FILES_MAX {
                tree.bytes += length;
                tree.files.push((file, 0));
            }
        }
        tree
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Copies every file below `to` and remembers its digest.
    pub(super) fn copy_to(&mut self, to: &Path, mut progress: impl FnMut(usize, usize)) {
        let all = self.files.len();
        for (n, (file, sum)) in self.files.iter_mut().enumerate() {
            let (from, to) = (self.root.join(&*file), to.join(&*file));
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            }
            fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
            *sum = digest(&from);
            if n % 100 == 0 {
                progress(n, all);
            }
        }
    }

    /// Files below `root` that are missing or not identical.
    pub(super) fn differing(&self, root: &Path) -> Vec<&Path> {
        let differs = |(file, sum): &&(PathBuf, u64)| {
            let copy = root.join(file);
            !copy.is_file() || digest(&copy) != *sum
        };
        self.files
            .iter()
            .filter(differs)
            .map(|(file, _)| file.as_path())
            .collect()
    }
}
