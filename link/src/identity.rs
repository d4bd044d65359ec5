//! Who this end is: an ECDSA P-256 key, a self-signed certificate, and their files.
//!
//! The certificate's name says nothing to anyone; its SHA-256 is what peers know. `key.pem` is
//! readable by its owner only and never leaves the host.

use crate::crypto::provider;
use crate::error::IdentityError;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use wire::Pin;

/// Name of the private key's file inside an identity directory; mode 0600.
pub const KEY_FILE: &str = "key.pem";
/// Name of the certificate's file inside an identity directory.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// A fresh certificate is valid from so long ago, for peers whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
/// And for so long: it is pinned, so its end only bounds how long a forgotten key is worth.
const VALID: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A private key and its self-signed certificate.
pub struct Identity {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    key: PrivateKeyDer<'static>,
    key_pem: String,
}

/// SHA-256 of a certificate in DER.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Pin {
    let suite = TLS13_AES_128_GCM_SHA256
        .tls13()
        .expect("the suite is a TLS 1.3 suite by its name");
    let digest = suite.common.hash_provider.hash(certificate);
    let bytes = digest.as_ref().try_into();
    Pin(bytes.expect("SHA-256 has 32 bytes"))
}

impl Identity {
    /// A new key and a certificate valid from the day before `now` for ten years.
    pub fn generate(now: SystemTime) -> Result<Self, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Generate(error.to_string());
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "ublk-tap");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = date(now.checked_sub(BACKDATED))?;
        params.not_after = date(now.checked_add(VALID))?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Self {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Reads `key.pem` and `cert.pem` from `dir` and checks that they belong together.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let (key_path, certificate_path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
        let damaged = |path: &Path, what| IdentityError::Damaged {
            path: path.to_owned(),
            what,
        };
        let (key_pem, certificate_pem) = (read(&key_path)?, read(&certificate_path)?);
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes());
        let key = key.map_err(|_| damaged(&key_path, "key"))?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes());
        let certificate = certificate.map_err(|_| damaged(&certificate_path, "certificate"))?;
        let identity = Self {
            certificate,
            certificate_pem,
            key,
            key_pem,
        };
        match identity.certified() {
            Ok(_) => Ok(identity),
            Err(_) => Err(damaged(&certificate_path, "certificate for this key")),
        }
    }

    /// Writes both files into `dir`, which must exist and hold neither; durable on return.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        write_new(&dir.join(KEY_FILE), 0o600, &self.key_pem)?;
        write_new(&dir.join(CERTIFICATE_FILE), 0o644, &self.certificate_pem)?;
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| IdentityError::Write {
            path: dir.to_owned(),
            source,
        })
    }

    /// What peers know this identity by.
    pub fn pin(&self) -> Pin {
        pin_of(&self.certificate)
    }

    /// The certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Key and certificate as the TLS library wants them, checked to belong together.
    pub(crate) fn certified(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let chain = vec![self.certificate.clone()];
        let pair = CertifiedKey::from_der(chain, self.key.clone_key(), &provider())?;
        Ok(Arc::new(pair))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("pin", &self.pin())
            .finish_non_exhaustive()
    }
}

/// Whole seconds of `at` as a certificate writes them.
fn date(at: Option<SystemTime>) -> Result<OffsetDateTime, IdentityError> {
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let seconds = since.and_then(|since| i64::try_from(since.as_secs()).ok());
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| IdentityError::Generate("this host's clock is far off; set it".into()))
}

fn read(path: &Path) -> Result<String, IdentityError> {
    let mut text = String::new();
    let bounded = |file: File| file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    match File::open(path).and_then(bounded) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(IdentityError::Missing(path.to_owned()))
        }
        Err(source) => Err(IdentityError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), IdentityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| IdentityError::Write {
        path: path.to_owned(),
        source,
    })
}
