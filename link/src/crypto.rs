//! The cryptography of both ends.

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite;
use std::sync::Arc;

/// What both ends use: ring, AES-128-GCM first because it is the fastest here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}
