//! Labels come from whoever starts a container: they are bounded before anything keeps them.

use std::collections::BTreeMap;

/// The most that one container's labels may take together, names included, in bytes.
const MOST: usize = 64 << 10;
/// The longest name or value, in bytes.
const LONGEST: usize = 16 << 10;

/// Keeps labels as long as all of them fit; a longer name or value is cut and marked with `…`.
pub(crate) fn bounded(labels: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut left = MOST;
    let mut kept = BTreeMap::new();
    for (name, value) in labels {
        let (name, value) = (cut(name), cut(value));
        if let Some(rest) = left.checked_sub(name.len() + value.len()) {
            left = rest;
            kept.insert(name, value);
        }
    }
    kept
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_label_is_cut_and_the_others_stay() {
        let kept = bounded([("a".into(), "é".repeat(1 << 20)), ("b".into(), "2".into())]);
        assert!(kept["a"].len() <= LONGEST && kept["a"].ends_with('…'));
        assert_eq!(kept["b"], "2");
    }

    #[test]
    fn all_together_stay_within_the_bound() {
        let kept = bounded((0..1000).map(|n| (format!("{n:04}"), "x".repeat(1000))));
        assert!(kept.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= MOST);
        assert!(kept.len() > 60);
    }
}
