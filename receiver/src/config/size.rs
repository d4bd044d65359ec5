//! Sizes as operators write them: IEC units, exact bytes.

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
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if !digits {
            return Err(SizeError::NotASize(text.to_owned()));
        }
        let too_large = || SizeError::TooLarge(text.to_owned());
        let number: u64 = number.parse().map_err(|_| too_large())?;
        let bytes = number
            .checked_mul(1 << shift)
            .filter(|bytes| i64::try_from(*bytes).is_ok());
        bytes.map(Self).ok_or_else(too_large)
    }
}

/// Exact where it can be said in a whole unit, else to one decimal.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS[..5]
            .iter()
            .rev()
            .find(|(_, shift)| self.0 >> shift > 0);
        match unit {
            None => write!(f, "{} B", self.0),
            Some((name, shift)) if self.0.trailing_zeros() >= *shift => {
                write!(f, "{} {name}", self.0 >> shift)
            }
            Some((name, shift)) => {
                write!(f, "{:.1} {name}", self.0 as f64 / (1u64 << shift) as f64)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_whole_iec_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("1KiB", 1024),
            ("64MiB", 64 << 20),
            ("2 GiB", 2 << 30),
            ("3TiB", 3 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "", "MiB", "1GB", "1.5GiB", "-1", "+1", "1 2", "0x10", "1K", "\u{664}",
        ] {
            assert!(
                text.parse::<ByteSize>().is_err(),
                "{text:?} must be refused"
            );
        }
        for text in ["9223372036854775808", "8192PiB", "99999999999999999999"] {
            let refused = text.parse::<ByteSize>();
            assert_eq!(refused, Err(SizeError::TooLarge(text.to_owned())));
        }
    }

    #[test]
    fn a_size_is_shown_exactly_where_a_unit_divides_it() {
        let shown = [0, 512, 1024, 1536, 64 << 20, (1 << 30) + 1].map(|b| ByteSize(b).to_string());
        assert_eq!(
            shown,
            ["0 B", "512 B", "1 KiB", "1.5 KiB", "64 MiB", "1.0 GiB"]
        );
    }
}
