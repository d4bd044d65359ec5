//! Which files may be opened: read-only, and few.
//!
//! Rules hold for what is at a path now, not for the path. An enrolment is replaced whole, and so
//! is `/etc/resolv.conf` by whoever manages the network: the rules name the directories above.

use super::ConfineError;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The newest rights we name. Those after it are about reaching sockets by their path: the tap's
/// directory may be made anew while a shipper waits for it.
const KNOWN: ABI = ABI::V8;
const RESOLVER_FILE: &str = "/etc/resolv.conf";
/// Where names are resolved from: settings, and the modules the settings name. What there is not is
/// left out.
const RESOLVER_DIRS: [&str; 10] = [
    "/etc",
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/run/netconfig",
    "/run/connman",
];
/// Answers that are too long for a datagram are asked for again over TCP.
const DNS_PORT: u16 = 53;

/// What may be read, opened while it still can be.
#[derive(Debug)]
pub(super) struct Files {
    config: PathFd,
    resolver: Vec<PathBuf>,
}

impl Files {
    pub(super) fn open(config: &Path) -> Result<Self, ConfineError> {
        let mut resolver: Vec<PathBuf> = RESOLVER_DIRS.iter().map(PathBuf::from).collect();
        // Usually a link, to a file of whoever manages the network.
        let target = fs::canonicalize(RESOLVER_FILE).ok();
        let above = target.as_deref().and_then(Path::parent);
        resolver.extend(above.filter(|dir| is_narrow(dir)).map(Path::to_owned));
        Ok(Self {
            config: PathFd::new(config).map_err(|error| cannot_open(config, &error))?,
            resolver,
        })
    }

    /// From here on no other file can be opened by this thread, and none to be written.
    pub(super) fn restrict(self) -> Result<(), ConfineError> {
        match self.enforce()? {
            RulesetStatus::FullyEnforced => {}
            RulesetStatus::PartiallyEnforced => {
                tracing::debug!("this kernel's Landlock is older than the rules");
            }
            RulesetStatus::NotEnforced => tracing::warn!(
                "this kernel has no Landlock: files are guarded by their permissions only"
            ),
        }
        Ok(())
    }

    fn enforce(self) -> Result<RulesetStatus, RulesetError> {
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(KNOWN))?
            .scope(Scope::from_all(KNOWN))?
            .create()?
            .add_rule(PathBeneath::new(self.config, AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(self.resolver, AccessFs::ReadFile))?
            .add_rule(NetPort::new(DNS_PORT, AccessNet::ConnectTcp))?
            .restrict_self()?;
        Ok(status.ruleset)
    }
}

/// Not the root, nor a directory right below it, in which all sorts of things may be.
fn is_narrow(dir: &Path) -> bool {
    dir.components().count() > 2
}

fn cannot_open(config: &Path, error: &PathFdError) -> ConfineError {
    let path = config.to_owned();
    let system = error.source().and_then(|source| source.downcast_ref());
    match system.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => ConfineError::NotJoined(path),
        _ => ConfineError::Config {
            path,
            reason: system.map_or_else(|| error.to_string(), io::Error::to_string),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    /// Runs `test` on a thread of its own, restricted; the rules die with it.
    fn restricted(files: Files, test: impl FnOnce(RulesetStatus) + Send + 'static) {
        let thread = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            match files.enforce().unwrap() {
                RulesetStatus::NotEnforced => println!("skipped: this kernel has no Landlock"),
                status => test(status),
            }
        });
        thread.join().unwrap();
    }

    fn is_refused<T>(done: io::Result<T>) -> bool {
        done.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    }

    #[test]
    fn the_enrolment_is_read_and_nothing_written_nor_another_file_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (config, other) = (dir.path().join("etc"), dir.path().join("other"));
        let key = config.join("identity/key.pem");
        fs::create_dir_all(key.parent().unwrap()).unwrap();
        fs::write(&key, "key").unwrap();
        fs::write(&other, "secret").unwrap();
        restricted(Files::open(&config).unwrap(), move |_| {
            assert_eq!(fs::read_to_string(&key).unwrap(), "key");
            assert!(File::open("/etc/hosts").is_ok());
            assert!(is_refused(File::options().write(true).open(&key)));
            assert!(is_refused(File::create_new(config.join("new"))));
            assert!(is_refused(fs::remove_file(&key)));
            assert!(is_refused(File::open(&other)));
            assert!(is_refused(File::open("/proc/self/mem")));
            assert!(is_refused(fs::read_dir("/dev")));
        });
    }

    #[test]
    fn an_enrolment_put_in_the_place_of_another_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("identity"), dir.path().join(".identity-1"));
        for (place, text) in [(&old, "old"), (&new, "new")] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("key.pem"), text).unwrap();
        }
        let (confined, is_confined) = mpsc::channel();
        let (renamed, is_renamed) = mpsc::channel::<()>();
        let (files, key) = (Files::open(dir.path()).unwrap(), old.join("key.pem"));
        let reader = std::thread::spawn(move || {
            restricted(files, move |_| {
                confined.send(()).unwrap();
                is_renamed.recv().unwrap();
                assert_eq!(fs::read_to_string(key).unwrap(), "new");
            });
        });
        // No word comes where the test is skipped.
        if is_confined.recv().is_ok() {
            fs::remove_dir_all(&old).unwrap();
            fs::rename(&new, &old).unwrap();
            renamed.send(()).unwrap();
        }
        reader.join().unwrap();
    }

    #[test]
    fn tcp_is_for_the_resolver_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        restricted(Files::open(dir.path()).unwrap(), move |status| {
            if status != RulesetStatus::FullyEnforced {
                return println!("skipped: this kernel's Landlock may know no rules for TCP");
            }
            assert!(is_refused(TcpStream::connect(address)));
            let dns = TcpStream::connect(("127.0.0.1", DNS_PORT));
            assert!(!is_refused(dns), "whoever may listen there");
        });
    }

    #[test]
    fn a_host_that_has_not_joined_is_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let error = Files::open(&dir.path().join("absent")).unwrap_err();
        assert!(error.is_not_joined());
        assert!(error.to_string().contains("ublk-tap join TOKEN"), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Files::open(&file.join("etc")).unwrap_err();
        assert!(!error.is_not_joined(), "{error}");
        assert!(error.to_string().contains("Not a directory"), "{error}");
    }
}
