//! Bounds for what strangers told: sizes of texts, and times that cannot be.

use std::borrow::Cow;

use crate::time::Nanos;

/// How far ahead of ours the clock of whoever tells of an event may be, in nanoseconds.
pub(crate) const MOST_AHEAD: Nanos = 2_000_000_000;

/// Returns what was told, where it cannot be.
pub(crate) fn bound_time(time_ns: &mut Nanos, now_ns: Nanos) -> Option<Nanos> {
    let told = *time_ns;
    *time_ns = told.clamp(0, now_ns.saturating_add(MOST_AHEAD).max(0));
    (*time_ns != told).then_some(told)
}

/// Cuts a text to `most` bytes, at a character.
pub(crate) fn bound(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
}

pub(crate) fn bound_option(text: &mut Option<String>, most: usize) {
    if let Some(text) = text {
        bound(text, most);
    }
}

/// Puts what `with` makes of a text in its place, if that is another.
pub(crate) fn replace(text: &mut String, with: impl FnOnce(&str) -> Cow<'_, str>) {
    let new = with(text);
    if *new != **text {
        *text = new.into_owned();
    }
}
