//! What a connection is for.

use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;

/// What a connection is for, told apart in the handshake (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A session: records, settle marks, acks.
    Session,
    /// The redemption of an enrolment token.
    Join,
}

impl Protocol {
    /// Every protocol of this build.
    pub const ALL: [Self; 2] = [Self::Session, Self::Join];

    /// The name in the handshake.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Session => b"ublk-tap/1",
            Self::Join => b"ublk-tap-join/1",
        }
    }
}

/// Which protocol the handshake agreed on.
pub fn protocol(connection: &Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>();
    let name = data.ok()?.protocol?;
    Protocol::ALL.into_iter().find(|known| known.alpn() == name)
}
