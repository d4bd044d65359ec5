//! Foreign: words of a peer, before they reach a log or a terminal.

/// The text without what moves a cursor, ends a line or hides what follows.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| if is_plain(letter) { letter } else { '?' };
    text.chars().map(shown).collect()
}

/// Whether the text can be shown as it is.
pub(crate) fn is_printable(text: &str) -> bool {
    text.chars().all(is_plain)
}

fn is_plain(letter: char) -> bool {
    // Control characters, and those that turn the direction of writing.
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_peer_stay_words() {
        for text in ["ring full", "/dev/sda: E/A-Fehler", "größer 漢字"] {
            assert_eq!(printable(text), text);
            assert!(is_printable(text));
        }
        let text = "ok\n2026 all well\u{1b}[2J\r\u{9b}1A\u{202e}x";
        assert_eq!(printable(text), "ok?2026 all well?[2J??1A?x");
        assert!(!is_printable(text));
    }
}
