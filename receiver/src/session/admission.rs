//! Admission: whether a source may have what its hello asks for (P13, P14).
//!
//! Everything is checked against the catalog before the group hears of the hello. The disk a volume
//! shows first is bound to it when nobody has anything against a hello that is not a probe.

use crate::catalog::{Bound, Catalog, CatalogError, Since, VolumeRecord};
use crate::foreign::is_printable;
use std::collections::BTreeSet;
use wire::control::{Hello, Refusal, RefusalCode};
use wire::{Generation, Pin, VolumeName, VolumeSpec};

/// The group's generation, if the hello may pass.
pub(super) fn check(catalog: &Catalog, pin: Pin, hello: &Hello) -> Result<Generation, Refusal> {
    identify(catalog, pin, hello)?;
    check_words(hello)?;
    let generation = catalog.group(&hello.group).map_err(unable)?;
    for spec in &hello.volumes {
        check_volume(catalog, hello, spec)?;
    }
    let known = catalog.group_volumes(&hello.group).map_err(unable)?;
    // A hello may name no volume: the group must be this source's all the same.
    let owned = known.iter().any(|record| record.source == hello.source);
    let Some(generation) = generation.filter(|_| owned) else {
        let text = format!(
            "there is no group {} of source {} here; register it with `ublk-tap-receiver volume add`",
            hello.group, hello.source
        );
        return Err(refusal(RefusalCode::UnknownVolume, text));
    };
    fence(hello, generation.generation)?;
    check_numbers(hello)?;
    Ok(generation.generation)
}

fn identify(catalog: &Catalog, pin: Pin, hello: &Hello) -> Result<(), Refusal> {
    let record = catalog.source_by_pin(pin).map_err(unable)?;
    let text = match record {
        Some(record) if record.revoked_unix_s.is_some() => {
            format!(
                "source {} was revoked; ask for a new token and join again",
                record.name
            )
        }
        Some(record) if record.name == hello.source => return Ok(()),
        Some(record) => format!(
            "this certificate is enrolled as {}, not as {}; join again",
            record.name, hello.source
        ),
        None => "this host is not enrolled here; ask for a token and run `ublk-tap join`".into(),
    };
    Err(refusal(RefusalCode::NotEnrolled, text))
}

fn check_volume(catalog: &Catalog, hello: &Hello, spec: &VolumeSpec) -> Result<(), Refusal> {
    let name = VolumeName {
        group: hello.group.clone(),
        volume: spec.name.clone(),
    };
    let record = catalog.volume(&name).map_err(unable)?;
    let record = record
        .filter(|record| record.source == hello.source)
        .ok_or_else(|| {
            let text = format!(
                "volume {name} is not registered for source {}; run `ublk-tap-receiver volume add \
             {name} --source {} ...`",
                hello.source, hello.source
            );
            refusal(RefusalCode::UnknownVolume, text)
        })?;
    check_geometry(&record, spec)?;
    match &record.disk {
        Some(bound) if bound.identity != spec.identity => {
            let text = format!(
                "volume {name} belongs to disk {}, not to {}; add that disk, or remove and add the \
                 volume at the receiver",
                bound.identity, spec.identity
            );
            Err(refusal(RefusalCode::WrongDisk, text))
        }
        _ => Ok(()),
    }
}

fn check_geometry(record: &VolumeRecord, spec: &VolumeSpec) -> Result<(), Refusal> {
    let name = &record.name;
    let text = if record.size_bytes != spec.size_bytes {
        format!(
            "volume {name} is registered with a size of {} bytes, the disk has {}",
            record.size_bytes, spec.size_bytes
        )
    } else if record.sector_bytes != spec.sector_bytes {
        format!(
            "volume {name} is registered with a sector size of {} bytes, the disk has {}",
            record.sector_bytes, spec.sector_bytes
        )
    } else {
        return Ok(());
    };
    Err(refusal(
        RefusalCode::Geometry,
        text + "; remove and add the volume at the receiver",
    ))
}

fn fence(hello: &Hello, here: Generation) -> Result<(), Refusal> {
    let said = hello.generation;
    if said == Generation::default() || said == here {
        return Ok(());
    }
    let text = format!(
        "group {} is at generation {here} here, the source is at {said}: another history has \
         begun since",
        hello.group
    );
    Err(refusal(RefusalCode::Fenced, text))
}

/// What a disk is called is kept and shown.
fn check_words(hello: &Hello) -> Result<(), Refusal> {
    let mut volumes = hello.volumes.iter();
    match volumes.find(|spec| !is_printable(&spec.identity)) {
        Some(spec) => Err(refusal(
            RefusalCode::Malformed,
            format!("the disk of volume {} has no printable identity", spec.name),
        )),
        None => Ok(()),
    }
}

/// One number is one volume.
fn check_numbers(hello: &Hello) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    let twice = hello.volumes.iter().find(|spec| !seen.insert(spec.index));
    match twice {
        Some(spec) => Err(refusal(
            RefusalCode::Malformed,
            format!("volume number {} is announced twice", spec.index.0),
        )),
        None => Ok(()),
    }
}

/// Binds the volumes to the disks they show; one that is bound already must be the same.
pub(super) fn bind(catalog: &Catalog, hello: &Hello) -> Result<(), Refusal> {
    for spec in &hello.volumes {
        let name = VolumeName {
            group: hello.group.clone(),
            volume: spec.name.clone(),
        };
        let disk = Bound {
            identity: spec.identity.clone(),
            since: Since::hello(hello),
        };
        let bound = catalog.bind_disk(&name, &disk).map_err(unable)?.identity;
        if bound != spec.identity {
            let text = format!("volume {name} belongs to disk {bound} since a moment ago");
            return Err(refusal(RefusalCode::WrongDisk, text));
        }
    }
    Ok(())
}

fn refusal(code: RefusalCode, text: String) -> Refusal {
    Refusal { code, text }
}

fn unable(error: CatalogError) -> Refusal {
    refusal(RefusalCode::Unable, error.to_string())
}
