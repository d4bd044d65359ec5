//! Spans of time as operators write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A span of time: a number with ms, s, m, h or d; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// Why a text is not a span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time such as 500ms, 90s, 30m or 1h")]
pub struct SpanError(String);

const UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("", 1000),
];
/// Longest span: longer ones are mistakes, and sums of times never overflow.
const MILLIS_MAX: u64 = 366 * 86_400_000;

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let found = UNITS.into_iter().find_map(|(unit, millis)| {
            let digits = text.strip_suffix(unit)?;
            let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            is_number.then(|| digits.parse::<u64>().ok()?.checked_mul(millis))
        });
        let millis = found.flatten().filter(|millis| *millis <= MILLIS_MAX);
        let span = millis.map(|millis| Self(Duration::from_millis(millis)));
        span.ok_or_else(|| SpanError(text.to_owned()))
    }
}

/// As people say it: to the tenth of a second, then in minutes, hours, days.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            3600..86_400 => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{} d {} h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_written() {
        for (text, millis) in [
            ("3s", 3000),
            ("500ms", 500),
            ("2m", 120_000),
            ("240", 240_000),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Span(Duration::from_millis(millis))),
                "{text}"
            );
        }
        for bad in ["", "s", "1w", "-1s", "1.5s", "99999999999999999999", "400d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn spans_are_said_in_the_largest_useful_unit() {
        let say = |seconds: u64| Span(Duration::from_secs(seconds)).to_string();
        assert_eq!(
            [say(3), say(61), say(7260), say(90_000)],
            ["3.0 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]
        );
    }
}
