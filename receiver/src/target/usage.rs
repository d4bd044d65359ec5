//! Who uses a disk or file that cannot be had, in words for the operator.

use super::block::{Block, attribute};
use super::identity::block_of;
use std::fs;
use std::path::Path;

/// What is said when nothing better is found.
const UNKNOWN: &str = "another program or driver has it open exclusively";

/// Who uses a block device, as far as the kernel tells.
pub(super) fn user_of(block: Block) -> String {
    mounted(block)
        .or_else(|| held(block))
        .or_else(|| swap(block))
        .unwrap_or_else(|| UNKNOWN.into())
}

/// The loop device a file is attached to, if any.
pub(super) fn loop_of(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    fs::read_dir("/sys/block")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let backing = attribute(&entry.path(), "loop/backing_file")?;
            let name = entry.file_name().to_string_lossy().into_owned();
            (Path::new(&backing) == path).then(|| format!("attached as /dev/{name}"))
        })
}

/// A line of mountinfo is `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS... - TYPE SOURCE ...`;
/// some file systems show a device number of their own, so the source is looked at as well.
fn mounted(block: Block) -> Option<String> {
    let numbers = block.with_partitions();
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let number = fields.nth(2)?;
        let point = fields.nth(1)?;
        let source = line.split(" - ").nth(1)?.split(' ').nth(1)?;
        let is_it = numbers.iter().any(|known| known == number) || names(source, &numbers);
        is_it.then(|| format!("mounted on {point}"))
    })
}

fn held(block: Block) -> Option<String> {
    let holders = fs::read_dir(block.sysfs().join("holders")).ok()?;
    let holder = holders.flatten().next()?;
    Some(format!(
        "part of /dev/{}",
        holder.file_name().to_string_lossy()
    ))
}

fn swap(block: Block) -> Option<String> {
    let numbers = block.with_partitions();
    let table = fs::read_to_string("/proc/swaps").ok()?;
    let is_it = |line: &str| {
        line.split_whitespace()
            .next()
            .is_some_and(|p| names(p, &numbers))
    };
    table
        .lines()
        .skip(1)
        .any(is_it)
        .then(|| "used as swap".to_owned())
}

/// Whether `path` is one of the block devices with these numbers.
fn names(path: &str, numbers: &[String]) -> bool {
    let metadata = path
        .starts_with('/')
        .then(|| fs::metadata(path).ok())
        .flatten();
    let found = metadata.as_ref().and_then(block_of);
    found.is_some_and(|block| numbers.contains(&block.number()))
}
