//! Which volumes the receiver has been told of, and which it must be told of.

use wire::limits::VOLUMES_MAX;
use wire::{RecordHeader, RecordKind, Stamp, VolumeIndex, VolumeSpec};

/// The volume table of one incarnation.
///
/// A volume the tap has removed stays until the records it may still have are durable.
#[derive(Debug)]
pub(super) struct VolumeTable {
    rows: Vec<Row>,
    announced: Vec<VolumeIndex>,
}

#[derive(Debug)]
struct Row {
    spec: VolumeSpec,
    /// The newest stamp claimed when the tap took the volume off its table.
    removed: Option<Stamp>,
}

impl VolumeTable {
    pub(super) fn new(volumes: Vec<VolumeSpec>) -> Self {
        let row = |spec| Row {
            spec,
            removed: None,
        };
        Self {
            rows: volumes.into_iter().map(row).collect(),
            announced: Vec::new(),
        }
    }

    /// Takes the tap's new table; whether the receiver must hear of it.
    pub(super) fn change(&mut self, volumes: Vec<VolumeSpec>, captured: Stamp) -> bool {
        for row in &mut self.rows {
            let is_kept = volumes.iter().any(|spec| spec.index == row.spec.index);
            match (is_kept, row.removed) {
                (true, _) => row.removed = None,
                (false, None) => row.removed = Some(captured),
                (false, Some(_)) => {}
            }
        }
        let mut has_news = false;
        for spec in volumes {
            has_news |= self.put(spec);
        }
        has_news
    }

    /// The volumes for a hello, less those removed whose records are durable up to `acked`.
    pub(super) fn announce(&mut self, acked: Stamp) -> Vec<VolumeSpec> {
        let needed = |row: &Row| row.removed.is_none_or(|removed| removed > acked);
        self.rows.retain(needed);
        // More than a group can have: the tap reuses places faster than records leave. The oldest
        // removed ones go; a record of theirs waits until the ring is given up.
        while self.rows.len() > VOLUMES_MAX {
            let oldest = self.rows.iter().position(|row| row.removed.is_some());
            self.rows.remove(oldest.unwrap_or(0));
        }
        let volumes: Vec<VolumeSpec> = self.rows.iter().map(|row| row.spec.clone()).collect();
        self.announced = volumes.iter().map(|spec| spec.index).collect();
        volumes
    }

    /// Whether the receiver knows the volume of `record`, or the record has none.
    pub(super) fn covers(&self, record: &RecordHeader) -> bool {
        let has_volume = !matches!(
            record.kind,
            RecordKind::Gap | RecordKind::Bookmark | RecordKind::Void
        );
        !has_volume || self.is_announced(record.volume)
    }

    pub(super) fn is_announced(&self, index: VolumeIndex) -> bool {
        self.announced.contains(&index)
    }

    /// Adds or replaces a volume; whether that changed anything.
    fn put(&mut self, spec: VolumeSpec) -> bool {
        let known = self
            .rows
            .iter_mut()
            .find(|row| row.spec.index == spec.index);
        match known {
            Some(row) if row.spec == spec => false,
            Some(row) => {
                row.spec = spec;
                true
            }
            None => {
                self.rows.push(Row {
                    spec,
                    removed: None,
                });
                true
            }
        }
    }
}
