//! What can go wrong on the link, one clear line each.

use crate::alert::{ALERT_ACCESS_DENIED, ALERT_CERTIFICATE_EXPIRED, ALERT_NO_PROTOCOL};
use quinn::{ConnectionError, TransportErrorCode};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use wire::DecodeError;

/// Why an identity could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The directory holds no identity.
    #[error("{0} does not exist: this host has no identity yet")]
    Missing(PathBuf),
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Key or certificate are not PEM, not of a kind we use, or do not belong together.
    #[error("{path} is not a usable {what}: restore it from a backup or enrol this host again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// `key` or `certificate`.
        what: &'static str,
    },
    /// The cryptography library refused to make a key or certificate.
    #[error("cannot make an identity: {0}")]
    Generate(String),
}

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is taken, not ours, or forbidden.
    #[error("cannot open UDP {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Key and certificate were refused by the TLS library.
    #[error("TLS cannot be set up with this identity: {0}")]
    Tls(String),
}

/// Why no connection came about, or why one ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint could not be opened.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The host name has no address.
    #[error("cannot resolve {address}: {source}")]
    Resolve {
        /// The `HOST:PORT` asked for.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody answered, or the peer fell silent.
    #[error("no answer from {0}: is the receiver running, and does UDP pass?")]
    Silent(String),
    /// The receiver has another certificate than the pinned one.
    #[error(
        "{0} is not the receiver this host has joined (its certificate has another fingerprint)"
    )]
    ForeignReceiver(String),
    /// One of the certificates is outside its time of validity.
    #[error("a certificate is expired or not yet valid: check both clocks, or enrol again")]
    Expired,
    /// No protocol in common.
    #[error("{0} speaks no protocol version this build knows: install the same release there")]
    Protocol(String),
    /// The peer ended the connection, in its own words.
    #[error("{0} closed the connection: {1}")]
    Closed(String, String),
    /// Anything else.
    #[error("connection to {0} failed: {1}")]
    Other(String, String),
}

impl ConnectError {
    /// Sorts a QUIC error of the connection to `peer`.
    pub fn new(peer: &str, error: &ConnectionError) -> Self {
        let code = match error {
            ConnectionError::TransportError(error) => Some(error.code),
            ConnectionError::ConnectionClosed(close) => Some(close.error_code),
            _ => None,
        };
        let is = |alert| code == Some(TransportErrorCode::crypto(alert));
        match error {
            ConnectionError::TimedOut => Self::Silent(peer.into()),
            _ if is(ALERT_ACCESS_DENIED) => Self::ForeignReceiver(peer.into()),
            _ if is(ALERT_CERTIFICATE_EXPIRED) => Self::Expired,
            _ if is(ALERT_NO_PROTOCOL) => Self::Protocol(peer.into()),
            ConnectionError::ApplicationClosed(close) => {
                let text = String::from_utf8_lossy(&close.reason);
                Self::Closed(peer.into(), text.into_owned())
            }
            _ => Self::Other(peer.into(), error.to_string()),
        }
    }

    /// Whether the peer was reached and its identity or ours stands in the way.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::ForeignReceiver(_) | Self::Expired | Self::Protocol(_)
        )
    }
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream ended between two messages.
    #[error("the peer ended the stream")]
    Ended,
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Truncated,
    /// Bytes follow where none may.
    #[error("bytes follow the last message of a stream")]
    Trailing,
    /// The bytes are not a message.
    #[error("malformed message: {0}")]
    Malformed(#[from] DecodeError),
    /// The peer gave the stream up.
    #[error("the peer gave the stream up (code {0})")]
    Reset(u64),
    /// The connection is gone.
    #[error("connection lost: {0}")]
    Lost(ConnectionError),
}

impl FrameError {
    /// Whether the peer broke the protocol, rather than the network the connection.
    pub fn is_violation(&self) -> bool {
        matches!(self, Self::Truncated | Self::Trailing | Self::Malformed(_))
    }
}
