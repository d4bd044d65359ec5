//! `init`: sets a receiver up, or leaves nothing behind.
//!
//! The settings file is written last: a directory without it is no receiver.

use super::args::InitArgs;
use crate::apply::STEPS_BYTES_DEFAULT;
use crate::catalog::Catalog;
use crate::config::{SETTINGS_FILE, Settings, journal_max_in_bounds, retain_in_bounds};
use crate::failure::{Exit, Failure, io_exit};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What has been made so far; removed again unless kept.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a directory only its owner can enter, and the missing ones above it.
    fn dir(&mut self, path: &Path) -> Result<(), Failure> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.dir(parent)?;
        }
        let made = fs::DirBuilder::new().mode(0o700).create(path);
        made.map_err(|error| {
            Failure::new(
                io_exit(&error),
                format!("cannot create {}: {error}", path.display()),
            )
        })?;
        self.0.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: PathBuf) {
        self.0.push(path);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.drain(..).rev() {
            let gone = if path.is_dir() {
                fs::remove_dir(&path)
            } else {
                fs::remove_file(&path)
            };
            if let Err(error) = gone
                && error.kind() != std::io::ErrorKind::NotFound
            {
                eprintln!(
                    "ublk-tap-receiver: cannot remove {}: {error}",
                    path.display()
                );
            }
        }
    }
}

/// Sets a receiver up in `dir`.
pub(super) fn init(dir: &Path, args: &InitArgs) -> Result<(), Failure> {
    let settings = settings(dir, args)?;
    let mut made = Made::default();
    refuse_existing(&settings)?;
    made.dir(dir)?;
    made.dir(&settings.journal_dir)?;
    made.dir(&settings.identity_dir())?;

    made.file(settings.identity_dir().join(link::KEY_FILE));
    made.file(settings.identity_dir().join(link::CERTIFICATE_FILE));
    let identity = link::Identity::generate(SystemTime::now());
    let identity = identity.map_err(|error| Failure::failed(error.to_string()))?;
    let saved = identity.save(&settings.identity_dir());
    saved.map_err(|error| Failure::failed(error.to_string()))?;

    made.file(settings.catalog_path());
    drop(Catalog::create(&settings.catalog_path())?);
    made.file(dir.join(SETTINGS_FILE));
    settings.save()?;
    made.0.clear();
    super::say(&format!(
        "receiver ready in {}: listens on UDP {}, sources reach it at {}, pin {}\nnext: \
         `ublk-tap-receiver token --source NAME` for each source, `volume add`, then `serve`",
        dir.display(),
        settings.listen,
        settings.advertise,
        identity.pin().to_hex()
    ))
}

fn settings(dir: &Path, args: &InitArgs) -> Result<Settings, Failure> {
    let listen = args.listen.0;
    let advertise = match &args.advertise {
        Some(address) => advertised(address)?,
        None if listen.ip().is_unspecified() => {
            return Err(Failure::usage(format!(
                "no source can reach {listen}: say how they do with --advertise HOST:PORT"
            )));
        }
        None => listen.to_string(),
    };
    journal_max_in_bounds(args.journal_max)
        .map_err(|reason| Failure::usage(format!("--journal-max {reason}")))?;
    let retain = retain_in_bounds(args.retain)
        .map_err(|reason| Failure::usage(format!("--retain {reason}")))?;
    let journal = args
        .journal
        .as_deref()
        .unwrap_or_else(|| Path::new("journal"));
    let journal = if args.journal.is_some() {
        std::path::absolute(journal)
    } else {
        Ok(dir.join(journal))
    };
    let journal_dir = journal.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Settings {
        dir: dir.to_owned(),
        listen,
        advertise,
        journal_dir,
        journal_bytes_max: args.journal_max.0,
        retain,
        steps_bytes_max: STEPS_BYTES_DEFAULT,
    })
}

fn advertised(address: &str) -> Result<String, Failure> {
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        let host_is_whole = !host.is_empty() && (!host.contains(':') || host.ends_with(']'));
        host_is_whole.then(|| port.parse::<u16>().ok()).flatten()
    });
    match port {
        Some(1..) => Ok(address.to_owned()),
        _ => Err(Failure::usage(format!("{address:?} is not HOST:PORT"))),
    }
}

fn refuse_existing(settings: &Settings) -> Result<(), Failure> {
    let files = [
        settings.dir.join(SETTINGS_FILE),
        settings.catalog_path(),
        settings.identity_dir().join(link::KEY_FILE),
        settings.identity_dir().join(link::CERTIFICATE_FILE),
    ];
    match files.iter().find(|file| file.exists()) {
        Some(file) => Err(Failure::new(
            Exit::Refused,
            format!(
                "{} exists: there is a receiver in {} already; choose another --dir, or remove it",
                file.display(),
                settings.dir.display()
            ),
        )),
        None => Ok(()),
    }
}
