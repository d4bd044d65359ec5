//! Enrolment: the token an operator carries from the receiver to a source, and the two messages
//! it is redeemed with.
//!
//! A token is one line of text, `ut1.` and base-32 of: address, pin of the receiver's certificate,
//! secret, source name, and a checksum against typing errors. It is used once and expires at the
//! receiver; the source's key never leaves the source (P14).

use crate::coding::{DecodeError, Reader, Writer};
use crate::limits::TEXT_BYTES_MAX;
use crate::name::Name;
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a token's secret.
pub const SECRET_BYTES: usize = 32;
const PREFIX: &str = "ut1.";
const ADDRESS_BYTES_MAX: usize = 256;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// SHA-256 of a certificate in DER: who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin(pub [u8; 32]);

/// What a source needs to enrol itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// `HOST:PORT` of the receiver.
    pub address: String,
    /// Pin of the receiver's certificate.
    pub receiver: Pin,
    /// Proof that the operator of the receiver made this token.
    pub secret: [u8; SECRET_BYTES],
    /// The name the source is enrolled under.
    pub source: Name,
}

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Another prefix, or a character outside the alphabet.
    #[error("this is not an enrolment token (it starts with ut1.)")]
    NotAToken,
    /// Cut or mistyped.
    #[error("the enrolment token is damaged; copy it again, whole and unchanged")]
    Damaged,
}

/// The source redeems a token; its certificate is the one of the TLS handshake.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The token's secret.
    pub secret: [u8; SECRET_BYTES],
    /// The name in the token.
    pub source: Name,
}

/// The receiver's answer: enrolled, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinReply {
    /// The certificate is enrolled under the source's name.
    Enrolled,
    /// Used, expired or unknown token; in words.
    Refused(String),
}

impl Pin {
    /// The pin as lower-case hexadecimal.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Result<Self, DecodeError> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(DecodeError::BadValue("pin"));
        }
        let mut pin = [0; 32];
        for (byte, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| DecodeError::BadValue("pin"))?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| DecodeError::BadValue("pin"))?;
        }
        Ok(Self(pin))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", &self.to_hex()[..16])
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("address", &self.address)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = Writer::new();
        writer
            .text(&self.address, ADDRESS_BYTES_MAX)
            .put(&self.receiver.0)
            .put(&self.secret);
        writer.name(&self.source);
        let mut bytes = writer.into_bytes();
        bytes.extend_from_slice(&xxh3_64(&bytes).to_le_bytes()[..4]);
        write!(f, "{PREFIX}{}", base32(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(TokenError::NotAToken)?;
        let bytes = from_base32(digits).ok_or(TokenError::NotAToken)?;
        let (body, check) = bytes.split_last_chunk::<4>().ok_or(TokenError::Damaged)?;
        if xxh3_64(body).to_le_bytes()[..4] != check[..] {
            return Err(TokenError::Damaged);
        }
        parse_body(body).map_err(|_| TokenError::Damaged)
    }
}

fn parse_body(body: &[u8]) -> Result<Token, DecodeError> {
    let mut reader = Reader::new(body);
    let token = Token {
        address: reader.text("address", ADDRESS_BYTES_MAX)?,
        receiver: Pin(array(&mut reader)?),
        secret: array(&mut reader)?,
        source: reader.name("source name")?,
    };
    reader.finish()?;
    Ok(token)
}

fn array(reader: &mut Reader<'_>) -> Result<[u8; 32], DecodeError> {
    reader.take(32)?.try_into().map_err(|_| DecodeError::Short)
}

impl JoinRequest {
    /// The message as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put(&self.secret).name(&self.source);
        writer.into_bytes()
    }

    /// Reads a request.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let request = Self {
            secret: array(&mut reader)?,
            source: reader.name("source name")?,
        };
        reader.finish()?;
        Ok(request)
    }
}

impl JoinReply {
    /// The message as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        match self {
            Self::Enrolled => writer.flag(true).reason(""),
            Self::Refused(reason) => writer.flag(false).reason(reason),
        };
        writer.into_bytes()
    }

    /// Reads a reply.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let enrolled = reader.flag("enrolled")?;
        let reason = reader.text("reason", TEXT_BYTES_MAX)?;
        reader.finish()?;
        match enrolled {
            true if reason.is_empty() => Ok(Self::Enrolled),
            true => Err(DecodeError::BadValue("reason to be enrolled")),
            false => Ok(Self::Refused(reason)),
        }
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        out.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    out
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for digit in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        held = held << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 255) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            address: "backup.example:7800".into(),
            receiver: Pin([0xab; 32]),
            secret: [0x11; SECRET_BYTES],
            source: Name::new("db1").unwrap(),
        }
    }

    #[test]
    fn a_token_survives_copying_and_a_changed_character_is_noticed() {
        let text = token().to_string();
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
        for at in PREFIX.len()..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'a' { b'b' } else { b'a' };
            let bad = String::from_utf8(bad).unwrap();
            let last = at + 1 == text.len();
            assert!(
                last || bad.parse::<Token>() != Ok(token()),
                "character {at}"
            );
        }
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Token>().is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn neither_debug_output_shows_the_secret() {
        let request = JoinRequest {
            secret: [0x11; 32],
            source: Name::new("db1").unwrap(),
        };
        for text in [format!("{:?}", token()), format!("{request:?}")] {
            assert!(!text.contains("11") && !text.contains("17"), "{text}");
        }
    }

    #[test]
    fn a_pin_reads_back_and_other_texts_do_not() {
        let pin = Pin([0x3c; 32]);
        assert_eq!(Pin::from_hex(&pin.to_hex()), Ok(pin));
        for bad in ["", "3c", &"zz".repeat(32), &"\u{e9}".repeat(32)] {
            assert!(Pin::from_hex(bad).is_err(), "{bad:?}");
        }
    }
}
