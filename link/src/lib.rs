//! What both ends of the link share: identities, TLS, transport settings and bounded frames.
//!
//! The link is QUIC with mutual TLS 1.3, always (P14). Each end has a key and a self-signed
//! certificate; the SHA-256 of that certificate is its [`Pin`](wire::Pin). A source pins its receiver in the
//! handshake. A receiver lets any certificate finish the handshake whose key the peer really has,
//! and decides afterwards: the session layer asks [`peer_pin`] and looks it up, and only then calls
//! [`admit`], before which a peer can open no data stream and send next to nothing.
//!
//! There is no unencrypted mode, no TLS below 1.3, no 0-RTT and no session resumption: every
//! connection proves both keys anew. Every length is bounded by [`wire::limits`] before anything is
//! allocated by it (P11).
//!
//! This crate knows no sessions, no ring and no journal; `docs/protocol.md` describes what is said
//! over the streams.

mod alert;
mod crypto;
mod endpoint;
mod error;
mod frame;
mod identity;
mod peer;
mod protocol;
mod tls;
mod transport;
mod verify;

pub use endpoint::{client_endpoint, connect, server_endpoint};
pub use error::{ConnectError, EndpointError, FrameError, IdentityError};
pub use frame::{
    read_batch_body, read_batch_header, read_control, read_join_reply, read_join_request,
    write_control, write_join_reply, write_join_request,
};
pub use identity::{CERTIFICATE_FILE, Identity, KEY_FILE, pin_of};
pub use peer::{GOODBYE_PATIENCE, admit, close, close_after, peer_pin};
pub use protocol::{Protocol, protocol};
pub use tls::{client_config, server_config};
pub use transport::{
    BATCH_STREAMS_MAX, IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL, RECEIVE_WINDOW_BYTES, SEND_WINDOW_BYTES,
    STREAM_WINDOW_BYTES, UDP_PAYLOAD_BYTES_MAX, UNPROVEN_WINDOW_BYTES,
};

#[cfg(test)]
mod tests;
