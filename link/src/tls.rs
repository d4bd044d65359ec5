//! TLS settings of both ends: version 1.3, both certificates, no early data, no resumption.

use crate::crypto::provider;
use crate::error::EndpointError;
use crate::identity::Identity;
use crate::protocol::Protocol;
use crate::transport;
use crate::verify::{AnyProvenClient, PinnedServer};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use std::sync::Arc;
use wire::Pin;

/// What a receiver's endpoint accepts: either protocol, from anyone who proves a key.
///
/// Who that is, is for the session layer to decide: see [`peer_pin`](crate::peer_pin) and
/// [`admit`](crate::admit).
pub fn server_config(identity: &Identity) -> Result<quinn::ServerConfig, EndpointError> {
    let mut tls = server_tls(identity).map_err(refused)?;
    tls.alpn_protocols = Protocol::ALL.map(|known| known.alpn().to_vec()).into();
    let quic = QuicServerConfig::try_from(tls).map_err(refused)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(Arc::new(transport::server()));
    transport::bound_incoming(&mut config);
    Ok(config)
}

/// How a source connects to the receiver with certificate `receiver`, for `protocol`.
pub fn client_config(
    identity: &Identity,
    receiver: Pin,
    protocol: Protocol,
) -> Result<quinn::ClientConfig, EndpointError> {
    let mut tls = client_tls(identity, receiver).map_err(refused)?;
    tls.alpn_protocols = vec![protocol.alpn().to_vec()];
    client_quic(tls)
}

/// Wraps client TLS settings for QUIC.
pub(crate) fn client_quic(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, EndpointError> {
    let quic = QuicClientConfig::try_from(tls).map_err(refused)?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport::client()));
    Ok(config)
}

fn server_tls(identity: &Identity) -> Result<rustls::ServerConfig, rustls::Error> {
    let verifier = Arc::new(AnyProvenClient::new(provider()));
    let own = SingleCertAndKey::from(identity.certified()?);
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(own));
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(tls)
}

/// Client TLS settings without a protocol yet.
pub(crate) fn client_tls(
    identity: &Identity,
    receiver: Pin,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let verifier = Arc::new(PinnedServer::new(receiver, provider()));
    let own = SingleCertAndKey::from(identity.certified()?);
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(own));
    tls.enable_early_data = false;
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    Ok(tls)
}

fn refused(error: impl std::fmt::Display) -> EndpointError {
    EndpointError::Tls(error.to_string())
}
