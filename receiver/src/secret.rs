//! Randomness and the digest of secrets. Small on purpose: the cryptography is the TLS library's.

use quinn::rustls::pki_types::CertificateDer;
use std::fs::File;
use std::io::{self, Read};

/// Bytes nobody can guess, from the kernel.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// SHA-256 of a secret: the catalog holds this, never the secret.
///
/// The link's pin of a certificate is the SHA-256 of its bytes, whatever they are.
pub(crate) fn digest(secret: &[u8]) -> [u8; 32] {
    link::pin_of(&CertificateDer::from(secret)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        let hex = wire::Pin(digest(b"abc")).to_hex();
        assert_eq!(
            hex,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn two_secrets_differ() {
        assert_ne!(random::<32>().unwrap(), random::<32>().unwrap());
    }
}
