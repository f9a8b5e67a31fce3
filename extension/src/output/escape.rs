//! Makes text from strangers harmless on a terminal.

use std::borrow::Cow;

/// The text with control characters, and those that turn the direction of text around, written as escapes.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(harmful) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe.into()
}

/// Controls (C1 too: some terminals obey them), line and paragraph separators, bidirectional marks.
pub(super) fn harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
