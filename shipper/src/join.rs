//! `ublk-tap-shipper join`: redeems an enrolment token.
//!
//! Everything is written to a directory beside the final one before the token is spent, so that a
//! full disk costs no token; the directory gets its name in one step after the receiver has agreed.
//! On any failure what was there before is there after, and nothing else.

use crate::enrolment::{IDENTITY_DIR, RECEIVER_FILE, ReceiverFile};
use crate::user::{self, PASSWORD_FILE, USERS};
use link::{ConnectError, FrameError, Identity, IdentityError, KEY_FILE, Protocol};
use rustix::fs::{CWD, RenameFlags, chown, renameat_with};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wire::{JoinReply, JoinRequest, Token};

/// How long the receiver may take.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(15);

/// Why this host was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The host is enrolled already.
    #[error(
        "this host has joined {address} as {source_name} already: use --force to join anew \
         with a new key, and revoke the old one there"
    )]
    Joined {
        /// The receiver it has joined.
        address: String,
        /// Its name there.
        source_name: String,
    },
    /// The receiver refuses the token.
    #[error("{0}")]
    Refused(String),
    /// No or another receiver answers.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The receiver did not answer in time.
    #[error("the receiver at {0} did not answer: is it running, and does UDP pass?")]
    Silent(String),
    /// The connection ended before the answer.
    #[error("no answer from the receiver ({0}): the token may be spent, ask for a new one")]
    Cut(FrameError),
    /// Key and certificate could not be made or written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The shipper would have no user to run as.
    #[error("this host has neither a user {} nor {}: create the first", USERS[0], USERS[1])]
    NoUser,
}

impl JoinError {
    /// The error of the system below, if there is one.
    pub fn system_error(&self) -> Option<&io::Error> {
        match self {
            Self::Write { source, .. } | Self::Identity(IdentityError::Write { source, .. }) => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// Enrols this host with `token`; the files go below the configuration directory `config`.
pub async fn join(config: &Path, token: &Token, is_forced: bool) -> Result<(), JoinError> {
    let place = config.join(IDENTITY_DIR);
    if !is_forced && place.exists() {
        return Err(already(&place));
    }
    let staged = Staged::new(config)?;
    let identity = Identity::generate(SystemTime::now())?;
    staged.fill(&identity, token)?;
    let asking = redeem(&identity, token);
    match tokio::time::timeout(JOIN_PATIENCE, asking).await {
        Err(_) => return Err(JoinError::Silent(token.address.clone())),
        Ok(reply) => match reply? {
            JoinReply::Enrolled => {}
            JoinReply::Refused(reason) => return Err(JoinError::Refused(reason)),
        },
    }
    staged.put_in_place(&place, is_forced)
}

fn already(place: &Path) -> JoinError {
    let known = ReceiverFile::load(place);
    let (address, source_name) = known.map_or_else(
        |_| ("a receiver".into(), "(unreadable)".into()),
        |file| (file.address, file.source),
    );
    JoinError::Joined {
        address,
        source_name,
    }
}

async fn redeem(identity: &Identity, token: &Token) -> Result<JoinReply, JoinError> {
    let (address, receiver) = (&token.address, token.receiver);
    let (endpoint, connection) = link::connect(address, identity, receiver, Protocol::Join).await?;
    let sort = |error: FrameError| match error {
        FrameError::Lost(error) => JoinError::Connect(ConnectError::new(address, &error)),
        error => JoinError::Cut(error),
    };
    let opened = connection.open_bi().await.map_err(FrameError::Lost);
    let (mut send, mut recv) = opened.map_err(sort)?;
    let request = JoinRequest {
        secret: token.secret,
        source: token.source.clone(),
    };
    let sent = link::write_join_request(&mut send, &request).await;
    sent.map_err(sort)?;
    let reply = link::read_join_reply(&mut recv).await.map_err(sort)?;
    link::close(&connection, "thank you");
    endpoint.wait_idle().await;
    Ok(reply)
}

/// A directory that goes away unless it is put in its place.
struct Staged {
    dir: PathBuf,
    config: PathBuf,
}

impl Staged {
    fn new(config: &Path) -> Result<Self, JoinError> {
        let dir = config.join(format!(".{IDENTITY_DIR}-{}", std::process::id()));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(config).map_err(cannot_write(config))?;
        // One of a process with our number that was killed.
        let _ = fs::remove_dir_all(&dir);
        builder.recursive(false);
        builder.create(&dir).map_err(cannot_write(&dir))?;
        Ok(Self {
            dir,
            config: config.to_owned(),
        })
    }

    /// Writes all files, durably, for the user the shipper runs as.
    fn fill(&self, identity: &Identity, token: &Token) -> Result<(), JoinError> {
        let file = ReceiverFile {
            source: token.source.to_string(),
            address: token.address.clone(),
            pin: token.receiver.to_hex(),
        };
        let path = self.dir.join(RECEIVER_FILE);
        let text = toml::to_string(&file).map_err(io::Error::other);
        let text = text.map_err(cannot_write(&path))?;
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(cannot_write(&path))?;
        identity.save(&self.dir)?;
        self.hand_over_key()
    }

    /// Root's key would be of no use to the unprivileged shipper.
    fn hand_over_key(&self) -> Result<(), JoinError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let user = user::shipper_user(Path::new(PASSWORD_FILE)).ok_or(JoinError::NoUser)?;
        let key = self.dir.join(KEY_FILE);
        let owner = rustix::fs::Uid::from_raw(user.uid);
        let changed = chown(&key, Some(owner), None).map_err(io::Error::from);
        changed.map_err(cannot_write(&key))
    }

    /// Gives the directory its name in one step; an old one takes its place and is removed.
    fn put_in_place(self, place: &Path, is_forced: bool) -> Result<(), JoinError> {
        let flags = match place.exists() {
            true if is_forced => RenameFlags::EXCHANGE,
            _ => RenameFlags::NOREPLACE,
        };
        let renamed = renameat_with(CWD, &self.dir, CWD, place, flags);
        let renamed = renamed.map_err(io::Error::from);
        renamed.map_err(cannot_write(place))?;
        let synced = File::open(&self.config).and_then(|dir| dir.sync_all());
        synced.map_err(cannot_write(&self.config))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already when it was put in its place and replaced nothing.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> JoinError {
    let path = path.to_owned();
    move |source| JoinError::Write { path, source }
}
