//! Real handshakes over loopback: who gets in, who does not, and in which words.

use super::*;
use crate::crypto::provider;
use crate::tls::{client_quic, client_tls};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use wire::control::{Control, Heartbeat};
use wire::limits::CONTROL_BODY_BYTES_MAX;
use wire::{JoinReply, JoinRequest, Name, Pin, Stamp, TimeMark};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn fresh() -> Identity {
    Identity::generate(SystemTime::now()).unwrap()
}

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let bounded = tokio::time::timeout(Duration::from_secs(60), story);
        bounded.await.expect("the story ends in a minute");
    });
}

fn serve(identity: &Identity) -> (Endpoint, SocketAddr) {
    let endpoint = server_endpoint("127.0.0.1:0".parse().unwrap(), identity).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

/// Both ends of one attempt to connect with `config`; a client's handshake ends before the server
/// has looked at its certificate, so its connection is watched for a while.
async fn meet(
    server: &Endpoint,
    address: SocketAddr,
    config: quinn::ClientConfig,
) -> (
    Result<Connection, ConnectionError>,
    Result<Connection, ConnectionError>,
) {
    let client = client_endpoint(address).unwrap();
    let connecting = client.connect_with(config, address, "ublk-tap").unwrap();
    let accepting = async { server.accept().await.unwrap().await };
    let (near, far) = tokio::join!(connecting, accepting);
    let near = match (near, &far) {
        (Ok(connection), Err(_)) => Err(connection.closed().await),
        (near, _) => near,
    };
    (near, far)
}

fn config(identity: &Identity, pin: Pin) -> quinn::ClientConfig {
    client_config(identity, pin, Protocol::Session).unwrap()
}

async fn control_streams(
    near: &Connection,
    far: &Connection,
    first: &[u8],
) -> (SendStream, RecvStream) {
    let (mut send, _) = near.open_bi().await.unwrap();
    send.write_all(first).await.unwrap();
    let (_, recv) = far.accept_bi().await.unwrap();
    (send, recv)
}

#[test]
fn both_ends_know_each_other_by_pin_and_protocol() {
    run(async {
        let (receiver, source) = (fresh(), fresh());
        let (server, address) = serve(&receiver);
        for wanted in Protocol::ALL {
            let config = client_config(&source, receiver.pin(), wanted).unwrap();
            let (near, far) = meet(&server, address, config).await;
            let (near, far) = (near.unwrap(), far.unwrap());
            assert_eq!(peer_pin(&far), Some(source.pin()));
            assert_eq!(peer_pin(&near), Some(receiver.pin()));
            assert_eq!(protocol(&far), Some(wanted));
        }
    });
}

#[test]
fn a_receiver_with_another_certificate_is_not_spoken_to() {
    run(async {
        let (server, address) = serve(&fresh());
        let (near, far) = meet(&server, address, config(&fresh(), fresh().pin())).await;
        assert!(far.is_err(), "the client must abort the handshake");
        let error = ConnectError::new("backup:1", &near.unwrap_err());
        assert!(matches!(error, ConnectError::ForeignReceiver(_)), "{error}");
        assert!(error.is_refusal());
    });
}

#[test]
fn an_expired_certificate_is_refused_at_either_end() {
    run(async {
        let old = Identity::generate(SystemTime::now() - 11 * YEAR).unwrap();
        let new = fresh();
        let (server, address) = serve(&new);
        let (near, far) = meet(&server, address, config(&old, new.pin())).await;
        assert!(far.is_err());
        let error = ConnectError::new("backup:1", &near.unwrap_err());
        assert!(matches!(error, ConnectError::Expired), "{error}");

        let (server, address) = serve(&old);
        let (near, _) = meet(&server, address, config(&new, old.pin())).await;
        let error = ConnectError::new("backup:1", &near.unwrap_err());
        assert!(matches!(error, ConnectError::Expired), "{error}");
    });
}

#[test]
fn a_certificate_from_the_future_is_refused() {
    run(async {
        let early = Identity::generate(SystemTime::now() + YEAR).unwrap();
        let receiver = fresh();
        let (server, address) = serve(&receiver);
        let (near, far) = meet(&server, address, config(&early, receiver.pin())).await;
        assert!(near.is_err() && far.is_err());
    });
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    run(async {
        let receiver = fresh();
        let (server, address) = serve(&receiver);
        let mut tls = client_tls(&fresh(), receiver.pin()).unwrap();
        tls.alpn_protocols = vec![Protocol::Session.alpn().to_vec()];
        tls.client_auth_cert_resolver = Arc::new(NoCertificate);
        let (near, far) = meet(&server, address, client_quic(tls).unwrap()).await;
        assert!(near.is_err() && far.is_err());
    });
}

#[test]
fn a_stolen_certificate_without_its_key_is_refused() {
    run(async {
        let (receiver, victim, thief) = (fresh(), fresh(), fresh());
        let (server, address) = serve(&receiver);
        let key = thief.certified().unwrap().key.clone();
        let mut tls = client_tls(&thief, receiver.pin()).unwrap();
        tls.alpn_protocols = vec![Protocol::Session.alpn().to_vec()];
        tls.client_auth_cert_resolver = unmatched(victim.certificate(), key);
        let (near, far) = meet(&server, address, client_quic(tls).unwrap()).await;
        assert!(near.is_err() && far.is_err());
    });
}

#[test]
fn a_receiver_that_only_copied_the_pinned_certificate_is_not_spoken_to() {
    run(async {
        let (real, impostor) = (fresh(), fresh());
        let key = impostor.certified().unwrap().key.clone();
        let verifier = Arc::new(verify::AnyProvenClient::new(provider()));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(unmatched(real.certificate(), key));
        tls.alpn_protocols = vec![Protocol::Session.alpn().to_vec()];
        let quic = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(quic));
        let server = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = server.local_addr().unwrap();
        let (near, far) = meet(&server, address, self::config(&fresh(), real.pin())).await;
        assert!(near.is_err() && far.is_err());
    });
}

#[test]
fn a_certificate_signed_by_another_key_is_refused() {
    run(async {
        let receiver = fresh();
        let (server, address) = serve(&receiver);
        let thief = fresh();
        let mut forged = thief.certificate().to_vec();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let key = thief.certified().unwrap().key.clone();
        let mut tls = client_tls(&thief, receiver.pin()).unwrap();
        tls.alpn_protocols = vec![Protocol::Session.alpn().to_vec()];
        tls.client_auth_cert_resolver = unmatched(&CertificateDer::from(forged), key);
        let (near, far) = meet(&server, address, client_quic(tls).unwrap()).await;
        assert!(near.is_err() && far.is_err());
    });
}

#[test]
fn another_protocol_is_refused_in_the_handshake() {
    run(async {
        let receiver = fresh();
        let (server, address) = serve(&receiver);
        for alpn in [&b"ublk-tap/2"[..], b"h3"] {
            let mut tls = client_tls(&fresh(), receiver.pin()).unwrap();
            tls.alpn_protocols = vec![alpn.to_vec()];
            let (near, far) = meet(&server, address, client_quic(tls).unwrap()).await;
            assert!(far.is_err());
            let error = ConnectError::new("backup:1", &near.unwrap_err());
            assert!(matches!(error, ConnectError::Protocol(_)), "{error}");
        }
    });
}

#[test]
fn a_client_that_speaks_no_protocol_at_all_is_refused() {
    run(async {
        let receiver = fresh();
        let (server, address) = serve(&receiver);
        let tls = client_tls(&fresh(), receiver.pin()).unwrap();
        let (near, far) = meet(&server, address, client_quic(tls).unwrap()).await;
        assert!(near.is_err() && far.is_err());
    });
}

#[test]
fn nobody_listening_is_told_as_silence() {
    run(async {
        let unused = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = unused.local_addr().unwrap().to_string();
        let source = fresh();
        let attempt = connect(&address, &source, fresh().pin(), Protocol::Session).await;
        let error = attempt.map(|_| ()).unwrap_err();
        assert!(matches!(error, ConnectError::Silent(_)), "{error}");
        assert!(!error.is_refusal());
    });
}

#[test]
fn a_peer_that_is_not_admitted_cannot_open_a_data_stream() {
    run(async {
        let (receiver, source) = (fresh(), fresh());
        let (server, address) = serve(&receiver);
        let (near, far) = meet(&server, address, config(&source, receiver.pin())).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        let refused = tokio::time::timeout(Duration::from_millis(300), near.open_uni()).await;
        assert!(refused.is_err(), "no stream before the peer is admitted");
        admit(&far);
        let mut batch = near.open_uni().await.unwrap();
        let bytes = vec![7; 4 << 20];
        let sending = async {
            batch.write_all(&bytes).await.unwrap();
            batch.finish().unwrap();
        };
        let receiving = async {
            let mut stream = far.accept_uni().await.unwrap();
            stream.read_to_end(5 << 20).await.unwrap()
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert_eq!(received.len(), bytes.len());
    });
}

#[test]
fn messages_arrive_whole_and_hostile_ones_are_named() {
    run(async {
        let (receiver, source) = (fresh(), fresh());
        let (server, address) = serve(&receiver);
        let beat = Control::Heartbeat(Heartbeat {
            clock: TimeMark(1),
            captured: Stamp(2),
        });
        let frame = beat.to_frame();
        let mut oversized = frame[..4].to_vec();
        oversized.extend_from_slice(&(CONTROL_BODY_BYTES_MAX + 1).to_le_bytes());
        for (bytes, is_whole) in [
            (frame.clone(), true),
            (frame[..3].to_vec(), false),
            (frame[..20].to_vec(), false),
            (oversized, false),
            (vec![0xff; 4096], false),
        ] {
            let (near, far) = meet(&server, address, config(&source, receiver.pin())).await;
            let (near, far) = (near.unwrap(), far.unwrap());
            let (mut send, mut recv) = control_streams(&near, &far, &bytes).await;
            send.finish().unwrap();
            let first = read_control(&mut recv).await;
            assert_eq!(first.is_ok(), is_whole, "{first:?}");
            if is_whole {
                assert_eq!(first.unwrap(), beat);
                let end = read_control(&mut recv).await.unwrap_err();
                assert!(matches!(end, FrameError::Ended), "{end}");
            } else {
                assert!(first.unwrap_err().is_violation());
            }
        }
    });
}

#[test]
fn a_last_message_arrives_before_the_connection_closes() {
    run(async {
        let (receiver, source) = (fresh(), fresh());
        let (server, address) = serve(&receiver);
        let (near, far) = meet(&server, address, config(&source, receiver.pin())).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        let (mut send, mut recv) = near.open_bi().await.unwrap();
        send.write_all(b"x").await.unwrap();
        let (mut answer, _) = far.accept_bi().await.unwrap();
        let last = Control::Bye("revoked".into());
        let reading = async { read_control(&mut recv).await.unwrap() };
        let closing = close_after(&far, &mut answer, &last, "revoked");
        let (heard, ()) = tokio::join!(reading, closing);
        assert_eq!(heard, last);
        let error = ConnectError::new("backup:1", &near.closed().await).to_string();
        assert!(error.contains("revoked"), "{error}");
    });
}

#[test]
fn a_batch_is_read_to_its_exact_end() {
    run(async {
        let (receiver, source) = (fresh(), fresh());
        let (server, address) = serve(&receiver);
        let (near, far) = meet(&server, address, config(&source, receiver.pin())).await;
        let (near, far) = (near.unwrap(), far.unwrap());
        admit(&far);
        let header = wire::BatchHeader {
            session: 5,
            records: 1,
            bytes: 64,
        };
        for (body, verdict) in [(64, "whole"), (63, "truncated"), (65, "trailing")] {
            let mut stream = near.open_uni().await.unwrap();
            stream.write_all(&header.to_bytes()).await.unwrap();
            stream.write_all(&vec![1; body]).await.unwrap();
            stream.finish().unwrap();
            let mut stream = far.accept_uni().await.unwrap();
            let read = read_batch_header(&mut stream).await.unwrap();
            assert_eq!(read, header);
            let mut bytes = Vec::new();
            let found = match read_batch_body(&mut stream, &read, &mut bytes).await {
                Ok(()) => "whole",
                Err(FrameError::Truncated) => "truncated",
                Err(FrameError::Trailing) => "trailing",
                Err(error) => panic!("{error}"),
            };
            assert_eq!(found, verdict);
        }
    });
}

#[test]
fn a_token_is_redeemed_over_the_join_protocol() {
    run(async {
        let (receiver, source) = (fresh(), fresh());
        let (server, address) = serve(&receiver);
        let request = JoinRequest {
            secret: [3; 32],
            source: Name::new("db1").unwrap(),
        };
        let answering = async {
            let connection = server.accept().await.unwrap().await.unwrap();
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            let request = read_join_request(&mut recv).await.unwrap();
            let reply = JoinReply::Refused(format!("{} is late", request.source));
            write_join_reply(&mut send, &reply).await.unwrap();
        };
        let asking = async {
            let address = address.to_string();
            let pin = receiver.pin();
            let connected = connect(&address, &source, pin, Protocol::Join).await;
            let (_endpoint, connection) = connected.unwrap();
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            write_join_request(&mut send, &request).await.unwrap();
            read_join_reply(&mut recv).await.unwrap()
        };
        let ((), reply) = tokio::join!(answering, asking);
        assert_eq!(reply, JoinReply::Refused("db1 is late".into()));
    });
}

#[test]
fn a_saved_identity_comes_back_and_is_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Identity::load(dir.path()),
        Err(IdentityError::Missing(_))
    ));
    let identity = fresh();
    identity.save(dir.path()).unwrap();
    assert_eq!(Identity::load(dir.path()).unwrap().pin(), identity.pin());
    let mode = std::fs::metadata(dir.path().join(KEY_FILE)).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    assert!(fresh().save(dir.path()).is_err());
    assert_eq!(Identity::load(dir.path()).unwrap().pin(), identity.pin());
}

#[test]
fn a_damaged_or_mixed_identity_is_named_and_not_used() {
    let (own, other) = (fresh(), fresh());
    let dir = tempfile::tempdir().unwrap();
    own.save(dir.path()).unwrap();
    let away = tempfile::tempdir().unwrap();
    other.save(away.path()).unwrap();
    let certificate = dir.path().join(CERTIFICATE_FILE);
    std::fs::copy(away.path().join(CERTIFICATE_FILE), &certificate).unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("cert.pem"), "{error}");
    std::fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
    let error = Identity::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
}

#[test]
fn a_pin_is_the_sha_256_of_the_certificate() {
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(pin_of(&CertificateDer::from(&b"abc"[..])).to_hex(), known);
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A certificate shown together with somebody else's key.
fn unmatched(certificate: &CertificateDer<'_>, key: Arc<dyn SigningKey>) -> Arc<SingleCertAndKey> {
    let chain = vec![certificate.clone().into_owned()];
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
}
