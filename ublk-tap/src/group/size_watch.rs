//! Size watch: is a disk still as large as it was when it was tapped? Pure.
//!
//! A device keeps the size it was made with, and so do stream and replica: another size of the disk
//! below is named, not followed. Of a disk that shrinks the end is gone, and whether it comes back
//! as it was nobody knows: what was cut off is told once, to be read again.

use crate::settings::ByteSize;
use std::io;
use std::time::{Duration, Instant};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was seen of a disk's size.
#[derive(Debug, Default)]
pub(super) struct SizeWatch {
    looked: Option<Instant>,
    /// The size it has now, if that is another one.
    found_bytes: Option<u64>,
}

impl SizeWatch {
    /// Looks, if it is time to; what has been cut off the end of a disk of `own_bytes` just now.
    pub(super) fn look(
        &mut self,
        now: Instant,
        own_bytes: u64,
        size: impl FnOnce() -> io::Result<u64>,
    ) -> Option<(u64, u64)> {
        let since = self.looked.map(|then| now.saturating_duration_since(then));
        if since.is_some_and(|since| since < INTERVAL) {
            return None;
        }
        self.looked = Some(now);
        // A disk that does not answer says so when it is read or written.
        let found = size().ok()?;
        let before = self.found_bytes.unwrap_or(own_bytes).min(own_bytes);
        self.found_bytes = Some(found).filter(|found| *found != own_bytes);
        (found < before).then_some((found, before))
    }

    /// What is to be said about a disk that was tapped with `own_bytes`.
    pub(super) fn words(&self, own_bytes: u64) -> Option<String> {
        let found = self.found_bytes?;
        let (was, is) = (ByteSize(own_bytes), ByteSize(found));
        let (what, then) = if found > own_bytes {
            ("grew", "what was added is not protected")
        } else {
            ("shrank", "what was cut off cannot be read or written")
        };
        Some(format!(
            "the disk {what} from {was} ({own_bytes} bytes) to {is} ({found} bytes) while it is \
             tapped: the device stays as it was, {then}; undo it, or remove the volume and start \
             over with the new size"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u64 = 1 << 20;

    struct Clock(Instant);

    impl Clock {
        fn look(&mut self, watch: &mut SizeWatch, size: io::Result<u64>) -> Option<(u64, u64)> {
            self.0 += INTERVAL;
            watch.look(self.0, OWN, || size)
        }
    }

    #[test]
    fn another_size_is_named_until_it_is_the_old_one_again() {
        let (mut clock, mut watch) = (Clock(Instant::now()), SizeWatch::default());
        assert_eq!(clock.look(&mut watch, Ok(OWN)), None);
        assert_eq!(watch.words(OWN), None);
        assert_eq!(clock.look(&mut watch, Ok(2 * OWN)), None);
        let words = watch.words(OWN).unwrap();
        assert!(
            words.contains("grew from 1 MiB") && words.contains("2 MiB"),
            "{words}"
        );
        assert_eq!(
            clock.look(&mut watch, Err(io::ErrorKind::Other.into())),
            None
        );
        assert!(watch.words(OWN).is_some(), "not to know is no news");
        assert_eq!(clock.look(&mut watch, Ok(OWN)), None);
        assert_eq!(watch.words(OWN), None);
    }

    #[test]
    fn what_is_cut_off_is_told_once_and_again_when_more_is() {
        let (mut clock, mut watch) = (Clock(Instant::now()), SizeWatch::default());
        assert_eq!(clock.look(&mut watch, Ok(4096)), Some((4096, OWN)));
        assert!(watch.words(OWN).unwrap().contains("shrank"));
        assert_eq!(clock.look(&mut watch, Ok(4096)), None);
        assert_eq!(clock.look(&mut watch, Ok(512)), Some((512, 4096)));
        assert_eq!(clock.look(&mut watch, Ok(2 * OWN)), None);
        assert_eq!(clock.look(&mut watch, Ok(8192)), Some((8192, OWN)));
    }

    #[test]
    fn it_looks_once_a_second() {
        let (now, mut watch) = (Instant::now(), SizeWatch::default());
        watch.look(now, OWN, || Ok(OWN));
        watch.look(now + INTERVAL / 2, OWN, || {
            unreachable!("it is not time yet")
        });
        assert!(watch.look(now + INTERVAL, OWN, || Ok(0)).is_some());
    }
}
