//! Logs that do not grow without end.
//!
//! Whoever writes a log has it open for appending, so it can be cut under his hands: what was in
//! it is kept once, beside it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

/// A log larger than this is cut.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Cuts the log at `path` if it has become too large.
pub fn trim(path: &Path) {
    let is_large = fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX);
    if !is_large {
        return;
    }
    if let Err(error) = cut(path) {
        tracing::warn!(%error, path = %path.display(), "a log cannot be cut");
    }
}

fn cut(path: &Path) -> io::Result<()> {
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    fs::copy(path, Path::new(&old))?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_is_cut_under_the_hands_of_its_writer_and_kept_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tap.log");
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        log.write_all(b"small\n").unwrap();
        trim(&path);
        assert_eq!(fs::read(&path).unwrap(), b"small\n");
        log.write_all(&vec![b'x'; LOG_BYTES_MAX as usize]).unwrap();
        trim(&path);
        log.write_all(b"after\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after\n");
        let old = fs::metadata(dir.path().join("tap.log.old")).unwrap();
        assert_eq!(old.len(), LOG_BYTES_MAX + 6);
    }
}
