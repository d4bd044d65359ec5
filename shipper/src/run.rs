//! `ublk-tap-shipper run`: serves the tap of one group for as long as it lives.
//!
//! The tap may be killed and come back, the host may join only later, the receiver may be away: all
//! of that is waited for, and told to the tap where there is one. Only a signal ends the process.

use crate::drive::{Ending, RingBell, RingReader, TapEnd, TapError, Work};
use crate::enrolment::{Enrolment, EnrolmentError};
use ring::handoff::{Channel, ConsumerFds, LinkReport, LinkState, ToTap, Welcome};
use ring::{Consumer, OpenError, RingFault};
use rustix::process::geteuid;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use wire::Name;

/// The tap's socket inside a group's run directory.
pub const SOCKET_FILE: &str = "shipper.sock";
/// Wait between two attempts to reach the tap.
const TAP_WAIT: Duration = Duration::from_millis(200);
/// Wait after something that will not heal at once.
const REPAIR_WAIT: Duration = Duration::from_secs(2);
/// How long a tap that was reached may take to hand its ring over.
const WELCOME_PATIENCE: Duration = Duration::from_secs(10);

/// Where things are and what is to be shipped.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration directory.
    pub config: PathBuf,
    /// The run directory.
    pub run: PathBuf,
    /// The group.
    pub group: Name,
}

/// Why one tap could not be served.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("cannot reach the tap at {0}: {1}")]
    Connect(PathBuf, io::Error),
    #[error("{0} is not a tap's socket: a process of user {1} listens there")]
    Stranger(PathBuf, u32),
    #[error("the tap did not hand over its ring: {0}")]
    Welcome(#[from] TapError),
    #[error("the tap did not hand over its ring in time")]
    Slow,
    #[error("the tap serves group {0}, not this one")]
    OtherGroup(Name),
    #[error(transparent)]
    Ring(#[from] OpenError),
    #[error(transparent)]
    Fault(#[from] RingFault),
    #[error("cannot watch the tap's descriptors: {0}")]
    Watch(io::Error),
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
}

/// Runs until `stop` holds true.
pub async fn run(options: &Options, stop: watch::Receiver<bool>) {
    let mut said = String::new();
    while !*stop.borrow() {
        let wait = match serve(options, stop.clone()).await {
            Ok(Ending::Stopped) => return,
            Ok(Ending::Broken(fault)) => {
                tracing::error!("{fault}");
                REPAIR_WAIT
            }
            Ok(ending) => {
                tracing::info!("{ending:?}; waiting for a tap");
                said.clear();
                TAP_WAIT
            }
            Err(trouble) => {
                let text = trouble.to_string();
                if text != said {
                    tracing::warn!("{text}");
                    said = text;
                }
                wait_after(&trouble)
            }
        };
        tokio::select! {
            () = stopped(stop.clone()) => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Comes true with `stop`, also when nobody can ask any more.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn wait_after(trouble: &Trouble) -> Duration {
    match trouble {
        Trouble::Connect(..) | Trouble::Welcome(_) => TAP_WAIT,
        _ => REPAIR_WAIT,
    }
}

/// Serves one life of a tap.
async fn serve(options: &Options, stop: watch::Receiver<bool>) -> Result<Ending, Trouble> {
    let path = options.run.join(options.group.as_str()).join(SOCKET_FILE);
    let channel = reach(path)?;
    let mut tap = TapEnd::new(channel).map_err(Trouble::Watch)?;
    let (welcome, fds) = tokio::select! {
        welcome = tokio::time::timeout(WELCOME_PATIENCE, tap.welcome()) => {
            welcome.map_err(|_| Trouble::Slow)??
        }
        () = stopped(stop.clone()) => return Ok(Ending::Stopped),
    };
    if welcome.group != options.group {
        return Err(Trouble::OtherGroup(welcome.group));
    }
    tracing::info!("ring {} of group {}", welcome.incarnation, welcome.group);
    let enrolment = tokio::select! {
        enrolment = enrolled(&options.config, &mut tap) => enrolment?,
        () = stopped(stop.clone()) => return Ok(Ending::Stopped),
    };
    let work = start(welcome, fds, tap, options, enrolment)?;
    Ok(work.run(stopped(stop)).await)
}

/// Connects to a tap, which is root or of our own user; what another hands over is not shipped.
fn reach(path: PathBuf) -> Result<Channel, Trouble> {
    let reached = Channel::connect(&path).and_then(|channel| {
        let peer = channel.peer()?;
        Ok((channel, peer.uid))
    });
    match reached {
        Ok((channel, uid)) if is_tap_user(uid, geteuid().as_raw()) => Ok(channel),
        Ok((_, uid)) => Err(Trouble::Stranger(path, uid)),
        Err(error) => Err(Trouble::Connect(path, error)),
    }
}

fn is_tap_user(uid: u32, own_uid: u32) -> bool {
    uid == 0 || uid == own_uid
}

fn start(
    welcome: Welcome,
    fds: ConsumerFds,
    tap: TapEnd,
    options: &Options,
    enrolment: Enrolment,
) -> Result<Work, Trouble> {
    let consumer = Consumer::open(fds)?;
    let bell = RingBell::new(&consumer).map_err(Trouble::Watch)?;
    let ring = (RingReader::new(consumer), bell);
    let own = (enrolment.source, enrolment.address);
    Ok(Work::new(welcome, ring, tap, options.config.clone(), own)?)
}

/// Waits until this host has joined, telling the tap meanwhile; ends when the tap goes.
async fn enrolled(config: &Path, tap: &mut TapEnd) -> Result<Enrolment, Trouble> {
    let mut told = String::new();
    loop {
        let reason = match Enrolment::load(config) {
            Ok(enrolment) => return Ok(enrolment),
            Err(error) => error.to_string(),
        };
        if reason != told {
            tracing::warn!("{reason}");
            tap.tell(ToTap::Link(LinkReport {
                state: LinkState::Refused,
                reason: reason.clone(),
                peer: String::new(),
            }));
            told = reason;
        }
        tokio::select! {
            // The table comes again with the next welcome; only the end matters here.
            message = tap.volumes() => {
                message?;
                return Err(Trouble::Slow);
            }
            () = tokio::time::sleep(REPAIR_WAIT) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_root_or_of_our_own_user() {
        for (uid, is_tap) in [(0, true), (990, true), (991, false), (u32::MAX, false)] {
            assert_eq!(is_tap_user(uid, 990), is_tap, "{uid}");
        }
    }
}
