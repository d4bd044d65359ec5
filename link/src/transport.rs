//! QUIC settings, every window and count named (P11).
//!
//! A server starts a connection with room for one hello and no data streams; [`admit`](crate::admit)
//! opens the rest once the session layer knows the peer.

use quinn::congestion::CubicConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// Silence after which a connection is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a source that has nothing to say shows that it is there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Batches a source may have open at once.
pub const BATCH_STREAMS_MAX: u32 = 32;
/// Bytes of one stream that may be under way: a whole batch.
pub const STREAM_WINDOW_BYTES: u32 = wire::limits::BATCH_BYTES_MAX + (64 << 10);
/// Bytes of one admitted connection that the receiver may hold unread.
///
/// More than all open batches of a shipper can have: however many of them wait for room, the bytes
/// of a batch that has room pass, and so do settle marks and heartbeats.
pub const RECEIVE_WINDOW_BYTES: u32 = 72 << 20;
/// Largest batch of a shipper: it closes one at its goal, the last record may lie across it.
const SHIPPED_BYTES_MAX: u32 = wire::limits::BATCH_BYTES_GOAL
    + wire::limits::RECORD_PAYLOAD_BYTES_MAX
    + wire::limits::BATCH_RECORDS_MAX * wire::RECORD_HEADER_BYTES as u32;
/// Bytes a source may have sent and not yet seen acknowledged by the transport.
pub const SEND_WINDOW_BYTES: u32 = 64 << 20;
/// Bytes a peer may send before it is admitted: one hello.
pub const UNPROVEN_WINDOW_BYTES: u32 = 128 << 10;
/// Largest UDP payload; ten of them must stay below 64 KiB for segmentation offload to work.
pub const UDP_PAYLOAD_BYTES_MAX: u16 = 6500;
/// Receive and send buffer asked of the kernel for the UDP socket.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
const INITIAL_WINDOW_BYTES: u64 = 64 << 10;
const HANDSHAKES_MAX: usize = 64;
const HANDSHAKE_BYTES_MAX: u64 = 64 << 10;

const _: () = assert!(UDP_PAYLOAD_BYTES_MAX as u32 * 10 < 65_507);
const _: () = assert!(
    UNPROVEN_WINDOW_BYTES as usize
        > wire::limits::CONTROL_BODY_BYTES_MAX as usize + wire::control::FRAME_HEADER_BYTES
);
const _: () = assert!(RECEIVE_WINDOW_BYTES > STREAM_WINDOW_BYTES);
const _: () = assert!(RECEIVE_WINDOW_BYTES > BATCH_STREAMS_MAX * SHIPPED_BYTES_MAX + (4 << 20));

/// A source: it opens the control stream and the batches, and accepts nothing.
pub(crate) fn client() -> TransportConfig {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(0u8.into())
        .max_concurrent_uni_streams(0u8.into())
        .receive_window(UNPROVEN_WINDOW_BYTES.into())
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL));
    config
}

/// A receiver: one control stream and room for a hello, until the peer is admitted.
pub(crate) fn server() -> TransportConfig {
    let mut config = common();
    config
        .max_concurrent_bidi_streams(1u8.into())
        .max_concurrent_uni_streams(0u8.into())
        .receive_window(UNPROVEN_WINDOW_BYTES.into());
    config
}

/// Bounds what strangers can make a receiver hold before their handshake is looked at.
pub(crate) fn bound_incoming(config: &mut quinn::ServerConfig) {
    config
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(HANDSHAKE_BYTES_MAX)
        .incoming_buffer_size_total(HANDSHAKE_BYTES_MAX * HANDSHAKES_MAX as u64);
}

fn common() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(UDP_PAYLOAD_BYTES_MAX);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let idle_ms = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES.into())
        .send_fairness(false)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(cubic))
        .datagram_receive_buffer_size(None);
    config
}
