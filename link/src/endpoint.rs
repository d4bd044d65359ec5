//! UDP endpoints of both ends, and how a source reaches its receiver.

use crate::error::{ConnectError, EndpointError};
use crate::identity::Identity;
use crate::protocol::Protocol;
use crate::tls::{client_config, server_config};
use crate::transport::{SOCKET_BUFFER_BYTES, UDP_PAYLOAD_BYTES_MAX};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};
use rustix::net::sockopt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use wire::Pin;

/// The name in the handshake; certificates are pinned, names mean nothing.
const SERVER_NAME: &str = "ublk-tap";

/// Opens a receiver's endpoint on `address`; needs a tokio runtime.
pub fn server_endpoint(
    address: SocketAddr,
    identity: &Identity,
) -> Result<Endpoint, EndpointError> {
    open(address, Some(server_config(identity)?))
}

/// Opens a source's endpoint towards `remote`, on a free port; needs a tokio runtime.
pub fn client_endpoint(remote: SocketAddr) -> Result<Endpoint, EndpointError> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    open(any, None)
}

/// Connects to the receiver with certificate `receiver` at `address`, a `HOST:PORT`.
///
/// Every address of the host is tried once, in the resolver's order. The endpoint must be kept as
/// long as the connection is used.
pub async fn connect(
    address: &str,
    identity: &Identity,
    receiver: Pin,
    protocol: Protocol,
) -> Result<(Endpoint, Connection), ConnectError> {
    let config = client_config(identity, receiver, protocol)?;
    let resolved = tokio::net::lookup_host(address).await;
    let resolved = resolved.map_err(|source| ConnectError::Resolve {
        address: address.into(),
        source,
    })?;
    let mut failure = ConnectError::Resolve {
        address: address.into(),
        source: io::ErrorKind::NotFound.into(),
    };
    for remote in resolved {
        let endpoint = client_endpoint(remote)?;
        let connecting = endpoint.connect_with(config.clone(), remote, SERVER_NAME);
        let connecting =
            connecting.map_err(|error| ConnectError::Other(address.into(), error.to_string()))?;
        match connecting.await {
            Ok(connection) => return Ok((endpoint, connection)),
            Err(error) => failure = ConnectError::new(address, &error),
        }
    }
    Err(failure)
}

fn open(
    address: SocketAddr,
    config: Option<quinn::ServerConfig>,
) -> Result<Endpoint, EndpointError> {
    let failed = |source| EndpointError::Bind { address, source };
    let socket = UdpSocket::bind(address).map_err(failed)?;
    widen(&socket);
    let mut endpoint = EndpointConfig::default();
    endpoint
        .max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)
        .map_err(|error| EndpointError::Tls(error.to_string()))?;
    Endpoint::new(endpoint, config, socket, Arc::new(TokioRuntime)).map_err(failed)
}

/// Larger socket buffers where the system allows; the link works without, with more loss.
fn widen(socket: &UdpSocket) {
    if sockopt::set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, SOCKET_BUFFER_BYTES).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES);
    }
}
