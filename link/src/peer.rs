//! Who is at the other end of a connection, with how much room, and how it is left.

use crate::frame::write_control;
use crate::identity::pin_of;
use crate::transport::{BATCH_STREAMS_MAX, RECEIVE_WINDOW_BYTES};
use quinn::{Connection, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use std::time::Duration;
use wire::Pin;
use wire::control::Control;

/// How long a last message may take to arrive before the connection is closed anyway.
pub const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

/// The pin of the certificate whose key the peer has proved in the handshake.
pub fn peer_pin(connection: &Connection) -> Option<Pin> {
    let chain = connection.peer_identity()?;
    let chain = chain.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    chain.first().map(pin_of)
}

/// Gives a peer whose pin and hello were accepted the room for a session.
pub fn admit(connection: &Connection) {
    connection.set_receive_window(RECEIVE_WINDOW_BYTES.into());
    connection.set_max_concurrent_uni_streams(BATCH_STREAMS_MAX.into());
}

/// Says a last message, waits a moment for its arrival, and closes `connection` with `reason`.
///
/// A bare [`close`] throws away what was written and not sent yet, a refusal for example.
pub async fn close_after(
    connection: &Connection,
    stream: &mut SendStream,
    last: &Control,
    reason: &str,
) {
    let saying = async {
        let said = write_control(stream, last).await;
        if said.is_ok() && stream.finish().is_ok() {
            let _ = stream.stopped().await;
        }
    };
    let _ = tokio::time::timeout(GOODBYE_PATIENCE, saying).await;
    close(connection, reason);
}

/// Closes `connection` at once, with a reason in words.
pub fn close(connection: &Connection, reason: &str) {
    let cut = reason.floor_char_boundary(reason.len().min(wire::limits::TEXT_BYTES_MAX));
    connection.close(VarInt::from_u32(0), &reason.as_bytes()[..cut]);
}
