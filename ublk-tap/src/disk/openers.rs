//! Which processes have a disk open, in words. For texts: it may have changed since.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Most that are named.
const NAMED_MAX: usize = 3;

/// The processes that have it open, but for our own; none if there is none, or none we may see.
pub fn openers(path: &Path) -> Option<String> {
    let key = key(path)?;
    let own = std::process::id();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let openers = pids.filter(|pid| *pid != own && has_open(*pid, key));
    let named: Vec<String> = openers.take(NAMED_MAX).map(name).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn has_open(pid: u32, wanted: (u64, u64)) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut paths = descriptors.into_iter().flatten().flatten();
    paths.any(|entry| key(&entry.path()) == Some(wanted))
}

fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("process {pid} ({})", name.trim())
}

/// What makes two paths the same disk.
fn key(path: &Path) -> Option<(u64, u64)> {
    let found = path.metadata().ok()?;
    match found.file_type() {
        kind if kind.is_block_device() => Some((0, found.rdev())),
        kind if kind.is_file() => Some((found.dev(), found.ino())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn who_has_a_file_open_is_named_and_we_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let _ours = file.reopen().unwrap();
        assert_eq!(openers(file.path()), None);
        let mut cat = Command::new("sh");
        cat.args(["-c", "exec 3<\"$0\"; echo open; read line"])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = cat.spawn().unwrap();
        let mut line = [0; 5];
        let out = child.stdout.as_mut().unwrap();
        std::io::Read::read_exact(out, &mut line).unwrap();
        let named = openers(file.path()).unwrap();
        assert_eq!(named, format!("process {} (sh)", child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
