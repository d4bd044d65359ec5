//! `ublk-tap-shipper check`: asks the receiver whether a volume would be accepted.
//!
//! A hello with the probe flag: the receiver validates it as it would validate any other, answers
//! and keeps nothing. `ublk-tap add` asks before it creates anything.

use crate::enrolment::{Enrolment, EnrolmentError};
use link::{ConnectError, FrameError, Protocol};
use std::path::Path;
use std::time::Duration;
use wire::control::{Control, Hello};
use wire::{Generation, Incarnation, Name, Stamp, VolumeSpec};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The group.
    pub group: Name,
    /// The volume.
    pub volume: VolumeSpec,
    /// How long everything may take.
    pub patience: Duration,
}

/// Why the answer is not yes.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// This host has no enrolment, or a damaged one.
    #[error(transparent)]
    NotJoined(#[from] EnrolmentError),
    /// The receiver said no, in its words.
    #[error("{0}")]
    Refused(String),
    /// An identity stands in the way.
    #[error(transparent)]
    Identity(ConnectError),
    /// The receiver did not answer.
    #[error("the receiver at {address} did not answer within {seconds} s: {reason}")]
    Unreachable {
        /// Its address.
        address: String,
        /// The time it had.
        seconds: u64,
        /// What was seen.
        reason: String,
    },
}

/// Asks the receiver this host has joined, as named below `config`; gives its address.
pub async fn check(config: &Path, question: &Question) -> Result<String, CheckError> {
    let enrolment = Enrolment::load(config)?;
    let unreachable = |reason: String| CheckError::Unreachable {
        address: enrolment.address.clone(),
        seconds: question.patience.as_secs(),
        reason,
    };
    let asking = ask(&enrolment, question);
    let Ok(answered) = tokio::time::timeout(question.patience, asking).await else {
        return Err(unreachable("is it running, and does UDP pass?".into()));
    };
    match answered {
        Ok(Control::HelloAck(_)) => Ok(enrolment.address.clone()),
        Ok(Control::Refusal(refusal)) => Err(CheckError::Refused(refusal.text)),
        Ok(Control::Bye(reason)) => Err(CheckError::Refused(reason)),
        Ok(_) => Err(unreachable("it answered out of turn".into())),
        Err(Failure::Connect(error)) if error.is_refusal() => Err(CheckError::Identity(error)),
        Err(Failure::Connect(error)) => Err(unreachable(error.to_string())),
        Err(Failure::Frame(error)) => Err(unreachable(error.to_string())),
    }
}

/// Where asking ended.
enum Failure {
    Connect(ConnectError),
    Frame(FrameError),
}

async fn ask(enrolment: &Enrolment, question: &Question) -> Result<Control, Failure> {
    let address = &enrolment.address;
    let (identity, receiver) = (&enrolment.identity, enrolment.receiver);
    let connected = link::connect(address, identity, receiver, Protocol::Session).await;
    let (endpoint, connection) = connected.map_err(Failure::Connect)?;
    let sort = |error: FrameError| match error {
        FrameError::Lost(error) => Failure::Connect(ConnectError::new(address, &error)),
        error => Failure::Frame(error),
    };
    let opened = connection.open_bi().await.map_err(FrameError::Lost);
    let (mut send, mut recv) = opened.map_err(sort)?;
    let hello = Control::Hello(probe(enrolment.source.clone(), question));
    link::write_control(&mut send, &hello).await.map_err(sort)?;
    let answer = link::read_control(&mut recv).await.map_err(sort)?;
    link::close(&connection, "asked and answered");
    endpoint.wait_idle().await;
    Ok(answer)
}

fn probe(source: Name, question: &Question) -> Hello {
    Hello {
        probe: true,
        source,
        group: question.group.clone(),
        generation: Generation::default(),
        incarnation: Incarnation::default(),
        ring_slots: 0,
        oldest: Stamp::ZERO,
        captured: Stamp::ZERO,
        volumes: vec![question.volume.clone()],
    }
}
