//! A copy against a real ring, a real file and a consumer played by the test.

use super::worker::CHUNK_BYTES;
use super::*;
use ring::{Consumer, RingConfig};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use wire::{Incarnation, RecordKind, Stamp};

const INDEX: VolumeIndex = VolumeIndex(3);

struct Place {
    ring: Arc<Ring>,
    consumer: Consumer,
    ranges: Arc<RangeTable>,
    disk: Arc<Disk>,
    file: tempfile::NamedTempFile,
    copier: Copier,
    said: Receiver<CopierSaid>,
    _dir: tempfile::TempDir,
}

/// What the records of a copy make of an empty volume.
struct Image {
    bytes: Vec<u8>,
    copies: usize,
    zeroes: usize,
}

fn place(size_bytes: u64, ring_bytes: u64) -> Place {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let incarnation = Incarnation { counter: 1, id: 1 };
    let config = RingConfig {
        slots: 1024,
        payload_bytes: ring_bytes,
    };
    let ring = Arc::new(Ring::create(dir.path(), incarnation, config).unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(size_bytes).unwrap();
    let disk = Arc::new(Disk::open(file.path(), Duration::ZERO).unwrap());
    let ranges = Arc::new(RangeTable::new());
    let (tell, said) = channel();
    let config = CopierConfig {
        index: INDEX,
        disk: Arc::clone(&disk),
        ranges: Arc::clone(&ranges),
        ring: Arc::clone(&ring),
    };
    let copier = Copier::start(config, move |what| drop(tell.send(what))).unwrap();
    let consumer = Consumer::open(ring.consumer_fds().unwrap()).unwrap();
    Place {
        ring,
        consumer,
        ranges,
        disk,
        file,
        copier,
        said,
        _dir: dir,
    }
}

impl Place {
    fn write(&self, at: u64, bytes: &[u8]) {
        self.file.as_file().write_all_at(bytes, at).unwrap();
        self.file.as_file().sync_all().unwrap();
    }

    /// Takes records until the copier says something.
    fn consume(&self, image: &mut Image) -> CopierSaid {
        let start = Instant::now();
        loop {
            let said = self.said.try_recv();
            self.take(image);
            if let Ok(said) = said {
                return said;
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the copier says nothing"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take(&self, image: &mut Image) {
        let (mut entries, mut payload) = (Vec::new(), Vec::new());
        let at = self.consumer.acked();
        self.consumer.peek_filled(at, 1024, &mut entries).unwrap();
        for entry in entries {
            let fields = entry.fields;
            assert_eq!(fields.volume, INDEX);
            let start = fields.offset_bytes as usize;
            let range = start..start + fields.length_bytes as usize;
            match fields.kind {
                RecordKind::Zero => {
                    image.bytes[range].fill(0);
                    image.zeroes += 1;
                }
                RecordKind::Copy => {
                    payload.clear();
                    self.consumer.read_payload(&entry, &mut payload).unwrap();
                    image.bytes[range].copy_from_slice(&payload);
                    image.copies += 1;
                }
                other => panic!("{other:?} is no record of a copier"),
            }
            let before = Stamp(entry.stamp.0 - 1);
            let settled = self
                .consumer
                .settle_scan(before, 1, &mut Vec::new())
                .unwrap();
            assert_eq!(settled, entry.stamp, "a copy is settled at once");
            self.consumer.set_acked(entry.stamp);
        }
    }
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn image(size_bytes: u64) -> Image {
    Image {
        bytes: vec![0xaa; size_bytes as usize],
        copies: 0,
        zeroes: 0,
    }
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed) | 1)
        .collect()
}

fn content(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_copy_through_a_ring_much_smaller_than_the_disk_is_the_disk() {
    let size = 9 * CHUNK_BYTES + 8192;
    let place = place(size, 2 << 20);
    place.write(CHUNK_BYTES - 100, &pattern(3 * CHUNK_BYTES as usize, 1));
    place.write(size - 4096, &pattern(4096, 9));
    place.copier.copy(1);
    let mut image = image(size);
    let said = place.consume(&mut image);
    assert_eq!(
        said,
        CopierSaid::Copied {
            index: INDEX,
            run: 1
        }
    );
    place.take(&mut image);
    assert!(
        image.bytes == content(place.file.path()),
        "the copy is not the disk"
    );
    assert_eq!(
        (image.copies, image.zeroes),
        (5, 5),
        "zeroes travel without payload"
    );
    assert_eq!(place.copier.copied_bytes(), size);
}

#[test]
fn a_copy_leaves_half_the_ring_to_the_application() {
    let size = 64 * CHUNK_BYTES;
    let place = place(size, 4 << 20);
    place.write(0, &pattern(size as usize, 3));
    place.copier.copy(1);
    let within = || {
        let usage = place.ring.usage();
        let most = usage.capacity_bytes / 2 + CHUNK_BYTES;
        assert!(usage.used_bytes <= most, "{usage:?}");
        usage.permille() >= 500
    };
    eventually("it takes half of the ring", within);
    // It has no room now and nobody makes any, so it stays at what it has in hand.
    eventually("no range is held while it waits for room", || {
        within() && place.ranges.is_idle()
    });
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(1));
        assert!(within() && place.ranges.is_idle());
    }
    place.consume(&mut image(size));
}

#[test]
fn what_is_read_again_leaves_half_the_ring_to_the_application_unless_that_waits_for_it() {
    let size = 64 * CHUNK_BYTES;
    let place = place(size, 4 << 20);
    place.write(0, &pattern(size as usize, 3));
    let turn = place.copier.reread(Range::new(0, size));
    eventually("it looks for room", || {
        place.copier.wanted_bytes() == Some(CHUNK_BYTES as u32)
    });
    let usage = place.ring.usage();
    let most = usage.capacity_bytes / 2 + CHUNK_BYTES;
    assert!(usage.used_bytes <= most, "{usage:?}");
    assert!(place.ranges.is_idle() && place.ring.has_room(CHUNK_BYTES as u32));
    place.copier.hurry(true);
    eventually("it takes what there is", || {
        !place.ring.has_room(CHUNK_BYTES as u32)
    });
    assert!(!place.copier.has_reread(turn));
    let mut image = image(size);
    eventually("all of it is read", || {
        place.take(&mut image);
        place.copier.has_reread(turn)
    });
    assert_eq!(place.copier.wanted_bytes(), None);
    place.take(&mut image);
    assert!(image.bytes == content(place.file.path()));
}

#[test]
fn nothing_is_read_for_which_there_is_no_room() {
    let size = 16 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    place.copier.hurry(true);
    place.write(0, &pattern(size as usize, 3));
    place.copier.reread(Range::new(0, size / 2));
    eventually("the ring is full", || {
        place.copier.rereads() == Rereads::Done
    });
    // Whoever reads here now fails.
    place.file.as_file().set_len(size / 2).unwrap();
    place.copier.reread(Range::new(size / 2, size));
    eventually("it looks for room", || {
        place.copier.wanted_bytes().is_some()
    });
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(place.copier.rereads(), Rereads::Pending);
    let said = place.consume(&mut image(size));
    assert!(matches!(said, CopierSaid::RereadFailed { .. }), "{said:?}");
}

#[test]
fn ranges_are_read_again_in_their_order_and_one_that_was_given_up_was_not() {
    let size = 4 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    let held = place.ranges.admit_blocking(Range::new(4096, 8192));
    let turns = [(0, 512), (4096, 512), (8192, 512)]
        .map(|(at, bytes)| place.copier.reread(Range::of_length(at, bytes)));
    eventually("the first is read", || place.copier.has_reread(turns[0]));
    assert!(!turns[1..].iter().any(|turn| place.copier.has_reread(*turn)));
    drop(held);
    eventually("all are read", || place.copier.has_reread(turns[2]));
    place.ring.close();
    let turn = place.copier.reread(Range::new(0, 512));
    eventually("it is given up", || place.copier.rereads_left() == 0);
    assert!(!place.copier.has_reread(turn));
}

#[test]
fn a_copy_waits_for_the_write_that_holds_its_range_and_reads_what_it_wrote() {
    let size = CHUNK_BYTES;
    let place = place(size, 2 << 20);
    let held = place.ranges.admit_blocking(Range::new(4096, 8192));
    place.copier.copy(1);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(place.ring.captured(), Stamp::ZERO);
    place.write(4096, &pattern(4096, 5));
    drop(held);
    let mut image = image(size);
    place.consume(&mut image);
    place.take(&mut image);
    assert!(image.bytes == content(place.file.path()));
}

#[test]
fn a_cancelled_copy_ends_and_the_next_one_starts_from_the_start() {
    let size = 64 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    place.write(0, &pattern(size as usize, 7));
    place.copier.copy(1);
    eventually("it has begun", || place.ring.captured() > Stamp::ZERO);
    place.copier.cancel();
    place.copier.hurry(true);
    // What is read again comes after the chunk in hand, and before the next one.
    place.copier.reread(Range::new(0, 512));
    eventually("it is past that chunk", || {
        place.copier.rereads() == Rereads::Done
    });
    let mut half = image(size);
    place.take(&mut half);
    let captured = place.ring.captured();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(place.ring.captured(), captured, "it has ended");
    place.copier.copy(2);
    let mut whole = image(size);
    assert_eq!(
        place.consume(&mut whole),
        CopierSaid::Copied {
            index: INDEX,
            run: 2
        }
    );
    place.take(&mut whole);
    assert!(whole.bytes == content(place.file.path()));
}

#[test]
fn a_stream_given_up_ends_the_copy_without_a_word() {
    let size = 64 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    place.write(0, &pattern(size as usize, 7));
    place.copier.copy(1);
    place.ring.close();
    place.copier.reread(Range::new(0, 512));
    eventually("it is past the chunk in hand", || {
        place.copier.rereads() == Rereads::Lost
    });
    eventually("nothing is held", || place.ranges.is_idle());
    assert!(place.said.try_recv().is_err());
}

#[test]
fn a_range_whose_write_failed_becomes_a_copy_also_amid_a_copy() {
    let size = 8 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    place.write(0, &pattern(size as usize, 2));
    place.copier.reread(Range::new(512, 2 * CHUNK_BYTES));
    place.copier.copy(1);
    let mut image = image(size);
    place.consume(&mut image);
    place.take(&mut image);
    assert!(image.bytes == content(place.file.path()));
    assert_eq!(image.copies, 8 + 2, "a range is read in pieces of a chunk");
}

#[test]
fn what_cannot_be_read_again_is_said_and_what_cannot_be_copied_is_waited_for() {
    let size = 4 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    // The end of the disk goes away under us: reads there fail.
    place.file.as_file().set_len(CHUNK_BYTES).unwrap();
    place
        .copier
        .reread(Range::new(2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 4096));
    let said = place.said.recv_timeout(Duration::from_secs(10)).unwrap();
    let CopierSaid::RereadFailed {
        index: INDEX,
        words,
    } = said
    else {
        panic!("{said:?}")
    };
    assert!(words.contains("4096 bytes at 512 KiB"), "{words}");
    assert_eq!(place.copier.rereads(), Rereads::Lost);
    place.copier.reread(Range::new(0, 512));
    while place.copier.rereads_left() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(place.copier.rereads(), Rereads::Lost, "until a copy begins");
    place.take(&mut image(size));
    place.copier.copy(1);
    let start = Instant::now();
    while place.copier.trouble().is_none() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the trouble is not told"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(place.copier.copied_bytes(), CHUNK_BYTES);
    place.file.as_file().set_len(size).unwrap();
    let mut image = image(size);
    assert_eq!(
        place.consume(&mut image),
        CopierSaid::Copied {
            index: INDEX,
            run: 1
        }
    );
    assert_eq!(place.copier.trouble(), None);
    assert_eq!(place.copier.rereads(), Rereads::Done);
    assert_eq!(place.disk.size_bytes(), size);
}

#[test]
fn a_range_counts_as_read_again_when_all_of_it_has_found_its_place() {
    let size = 8 * CHUNK_BYTES;
    let place = place(size, 2 << 20);
    assert_eq!(place.copier.rereads(), Rereads::Done);
    let held = place
        .ranges
        .admit_blocking(Range::new(2 * CHUNK_BYTES - 512, 2 * CHUNK_BYTES));
    place.copier.reread(Range::new(0, 2 * CHUNK_BYTES));
    let start = Instant::now();
    while place.ring.captured() < Stamp(1) {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(place.copier.rereads(), Rereads::Pending, "half of it");
    drop(held);
    while place.copier.rereads() != Rereads::Done {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(place.ring.captured(), Stamp(2));
    place.copier.reread(Range::new(0, 512));
    place.ring.close();
    place.copier.reread(Range::new(512, 1024));
    while place.copier.rereads() != Rereads::Lost {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(1));
    }
}
