//! Stable names: `DEV_DIR/GROUP/VOLUME` leads to the block device, whatever its number is today.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use wire::Name;

/// The stable name of a volume.
pub fn path(dev_dir: &Path, group: &Name, volume: &Name) -> PathBuf {
    dev_dir.join(group.as_str()).join(volume.as_str())
}

/// Lets the stable name lead to `device`, at once and whatever it led to before.
pub fn publish(dev_dir: &Path, group: &Name, volume: &Name, device: &Path) -> io::Result<PathBuf> {
    let link = path(dev_dir, group, volume);
    let dir = dev_dir.join(group.as_str());
    fs::create_dir_all(&dir)?;
    // Names have no dots: this one is never a volume's.
    let fresh = dir.join(format!(".{volume}.new"));
    remove(&fresh)?;
    symlink(device, &fresh)?;
    fs::rename(&fresh, &link).inspect_err(|_| drop(remove(&fresh)))?;
    Ok(link)
}

/// Takes the stable name away, and the group's directory with its last volume.
pub fn withdraw(dev_dir: &Path, group: &Name, volume: &Name) -> io::Result<()> {
    remove(&path(dev_dir, group, volume))?;
    match fs::remove_dir(dev_dir.join(group.as_str())) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_its_device_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let [group, one, two] = ["g", "one", "two"].map(|name| Name::new(name).unwrap());
        let link = publish(dir.path(), &group, &one, Path::new("/dev/ublkb1")).unwrap();
        publish(dir.path(), &group, &one, Path::new("/dev/ublkb7")).unwrap();
        publish(dir.path(), &group, &two, Path::new("/dev/ublkb2")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/dev/ublkb7"));
        withdraw(dir.path(), &group, &one).unwrap();
        withdraw(dir.path(), &group, &one).unwrap();
        assert!(!link.exists() && dir.path().join("g").exists());
        withdraw(dir.path(), &group, &two).unwrap();
        assert!(!dir.path().join("g").exists());
    }
}
