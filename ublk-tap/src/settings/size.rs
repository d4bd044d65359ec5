//! Sizes as operators write them: IEC units, exact bytes.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Not a whole number with an optional IEC suffix.
    #[error("{0:?} is not a size; write bytes or a number with KiB, MiB, GiB or TiB")]
    NotASize(String),
    /// Past 2^63 bytes.
    #[error("{0:?} is larger than any disk")]
    TooLarge(String),
}

const UNITS: [(&str, u32); 6] = [
    ("KiB", 10),
    ("MiB", 20),
    ("GiB", 30),
    ("TiB", 40),
    ("PiB", 50),
    ("B", 0),
];

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let found = UNITS.into_iter().find_map(|(unit, shift)| {
            text.strip_suffix(unit)
                .map(|number| (number.trim_end(), shift))
        });
        let (number, shift) = found.unwrap_or((text, 0));
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SizeError::NotASize(text.to_owned()));
        }
        let number = number.parse::<u64>().ok();
        let bytes = number.and_then(|number| number.checked_mul(1 << shift));
        let sound = bytes.filter(|bytes| i64::try_from(*bytes).is_ok());
        sound
            .map(Self)
            .ok_or_else(|| SizeError::TooLarge(text.to_owned()))
    }
}

/// Exact where it can be said in a whole unit, else to one decimal.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS
            .iter()
            .take(5)
            .rev()
            .find(|(_, shift)| self.0 >> shift > 0);
        match unit {
            None => write!(f, "{} B", self.0),
            Some((name, shift)) if self.0.trailing_zeros() >= *shift => {
                write!(f, "{} {name}", self.0 >> shift)
            }
            Some((name, shift)) => {
                write!(f, "{:.1} {name}", self.0 as f64 / (1_u64 << shift) as f64)
            }
        }
    }
}

/// A size in a settings file is a text with a unit, or a plain number of bytes.
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;

        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\", or a number of bytes")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ByteSize, E> {
                let bytes =
                    u64::try_from(value).map_err(|_| E::custom("a size is not negative"))?;
                Ok(ByteSize(bytes))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteSize, E> {
                value.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_whole_iec_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096B", 4096),
            ("1KiB", 1024),
            ("64MiB", 64 << 20),
            ("2 GiB", 2 << 30),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "1GB", "1.5GiB", "-1", "+1", "1 2", "0x10"] {
            assert!(
                text.parse::<ByteSize>().is_err(),
                "{text:?} must be refused"
            );
        }
        assert!(matches!(
            "8192PiB".parse::<ByteSize>(),
            Err(SizeError::TooLarge(_))
        ));
    }

    #[test]
    fn a_size_is_shown_exactly_where_a_unit_divides_it() {
        let shown = [0, 512, 1024, 1536, 64 << 20].map(|bytes| ByteSize(bytes).to_string());
        assert_eq!(shown, ["0 B", "512 B", "1 KiB", "1.5 KiB", "64 MiB"]);
    }
}
