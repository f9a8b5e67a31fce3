//! Keeps secrets out of the store: labels, commands and command lines pass here before they are recorded.

use std::{borrow::Cow, ops::Range};

/// What stands where a secret was.
const REDACTED: &str = "[redacted]";

/// What is dropped. Keeps the key, drops the value: `--password=…` stays visible as `--password=[redacted]`.
#[derive(Clone, Debug)]
pub struct Redaction {
    keys: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self::new(["password", "passwd", "secret", "token", "apikey", "api_key", "api-key", "credential", "private_key", "private-key"])
    }
}

impl Redaction {
    /// Values of keys that contain one of `keys`, whatever their case, are dropped; besides bearer headers and URLs with credentials, always.
    pub fn new<S: Into<String>>(keys: impl IntoIterator<Item = S>) -> Self {
        Self { keys: keys.into_iter().map(|k| k.into().to_ascii_lowercase()).filter(|k| !k.is_empty()).collect() }
    }

    /// The value of a label or attribute, without what its key or its own text betrays as secret.
    pub fn value<'t>(&self, key: &str, value: &'t str) -> Cow<'t, str> {
        if !value.is_empty() && self.is_secret(&key.to_ascii_lowercase()) {
            return Cow::Borrowed(REDACTED);
        }
        self.text(value)
    }

    /// A command line or any other text: `KEY=value`, `--key value`, `"key": "value"`, `Bearer value` and
    /// `scheme://user:value@host` lose their values. Takes time in proportion to the text.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let drops = Scan { redaction: self, text, lower: text.to_ascii_lowercase() }.drops();
        if drops.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut kept = String::with_capacity(text.len());
        let mut from = 0;
        for drop in drops {
            kept.push_str(&text[from..drop.start]);
            kept.push_str(REDACTED);
            from = drop.end;
        }
        kept.push_str(&text[from..]);
        Cow::Owned(kept)
    }

    /// Whether a key, in lower case, names a secret; the name of a file that holds one does not.
    fn is_secret(&self, key: &str) -> bool {
        let is_place = ["file", "path", "dir", "stdin"].iter().any(|end| key.ends_with(end));
        // What sudo calls a rule that asks for none.
        let is_sudo = key == "nopasswd";
        !is_place && !is_sudo && self.keys.iter().any(|k| key.contains(k.as_str()))
    }
}

/// One pass over a text. All positions are those of ASCII bytes, so that they are boundaries of characters.
struct Scan<'s> {
    redaction: &'s Redaction,
    text: &'s str,
    /// Of the same length: only ASCII letters differ.
    lower: String,
}

impl Scan<'_> {
    fn drops(&self) -> Vec<Range<usize>> {
        let mut drops = Vec::new();
        let mut at = 0;
        while let Some(byte) = self.byte(at) {
            let drop = if is_word(byte) {
                let end = self.skip(at, is_word);
                let drop = self.secret_after(at..end);
                at = end;
                drop
            } else {
                let drop = if byte == b':' { self.userinfo_after(at) } else { None };
                at += 1;
                drop
            };
            if let Some(drop) = drop {
                at = drop.end;
                drops.push(drop);
            }
        }
        drops
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn skip(&self, mut at: usize, is_skipped: impl Fn(u8) -> bool) -> usize {
        while self.byte(at).is_some_and(&is_skipped) {
            at += 1;
        }
        at
    }

    /// The secret that follows a word, where the word announces one.
    fn secret_after(&self, word: Range<usize>) -> Option<Range<usize>> {
        let name = &self.lower[word.clone()];
        if matches!(name, "bearer" | "basic") && self.byte(word.end) == Some(b' ') {
            return self.value_at(self.skip(word.end, is_blank));
        }
        let is_header = name == "authorization" || name == "proxy-authorization";
        if !is_header && !self.redaction.is_secret(name) {
            return None;
        }
        let value = self.value_at(self.assigned_after(&word)?)?;
        // The scheme of a header stays, and what follows it goes when the scan comes to it.
        let is_scheme = matches!(&self.lower[value.clone()], "bearer" | "basic");
        if is_scheme { None } else { Some(value) }
    }

    /// Where the value of a key begins: after `=`, after a colon as in JSON, YAML and headers, after a blank if it is an option.
    fn assigned_after(&self, key: &Range<usize>) -> Option<usize> {
        let is_quoted = matches!(self.byte(key.end), Some(b'"' | b'\''));
        let end = key.end + usize::from(is_quoted);
        let sign = self.skip(end, is_blank);
        match self.byte(sign) {
            Some(b'=') => Some(self.skip(sign + 1, is_blank)).filter(|_| sign == end || is_quoted),
            Some(b':') => Some(self.skip(sign + 1, is_blank)).filter(|value| is_quoted || *value > sign + 1),
            Some(next) if sign > end && next != b'-' && self.byte(key.start) == Some(b'-') => Some(sign),
            _ => None,
        }
    }

    /// The value that begins there: up to its closing quote, or to the next blank or separator.
    fn value_at(&self, at: usize) -> Option<Range<usize>> {
        let quote = self.byte(at).filter(|b| matches!(b, b'"' | b'\''));
        let (start, end) = match quote {
            Some(quote) => (at + 1, self.skip(at + 1, |b| b != quote)),
            None => (at, self.skip(at, |b| !b.is_ascii_whitespace() && !matches!(b, b'"' | b'\'' | b'&' | b';'))),
        };
        (end > start).then_some(start..end)
    }

    /// The password of a URL whose `://` begins there.
    fn userinfo_after(&self, at: usize) -> Option<Range<usize>> {
        let authority = at + 3;
        if self.text.as_bytes().get(at..authority) != Some(b"://") {
            return None;
        }
        let end = self.skip(authority, |b| !b.is_ascii_whitespace() && !matches!(b, b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>'));
        let host = authority + self.text.as_bytes()[authority..end].iter().rposition(|b| *b == b'@')?;
        let password = authority + self.text.as_bytes()[authority..host].iter().position(|b| *b == b':')? + 1;
        (host > password).then_some(password..host)
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn drops_the_value_and_keeps_the_key() {
        let redaction = Redaction::default();
        for (text, expected) in [
            ("mysql --password=hunter2 -h db", "mysql --password=[redacted] -h db"),
            ("mysql --password hunter2 -h db", "mysql --password [redacted] -h db"),
            ("mysql --password -h db", "mysql --password -h db"),
            ("ann ALL=(ALL) NOPASSWD: /bin/sh", "ann ALL=(ALL) NOPASSWD: /bin/sh"),
            ("env GITHUB_TOKEN=ghp_1 make", "env GITHUB_TOKEN=[redacted] make"),
            ("curl -H Authorization: Bearer abc http://x", "curl -H Authorization: Bearer [redacted] http://x"),
            (r#"curl -H "Authorization: Basic dTpw" x"#, r#"curl -H "Authorization: Basic [redacted]" x"#),
            ("curl -H Authorization: abc x", "curl -H Authorization: [redacted] x"),
            ("psql postgres://joe:p@ss@db:5432/x?a=b", "psql postgres://joe:[redacted]@db:5432/x?a=b"),
            ("git clone ssh://git@host:22/x", "git clone ssh://git@host:22/x"),
            (r#"{"password": "a b", "user": "joe"}"#, r#"{"password": "[redacted]", "user": "joe"}"#),
            ("PASSWORD='a b' run", "PASSWORD='[redacted]' run"),
            ("https://x/?api_key=1&user=joe", "https://x/?api_key=[redacted]&user=joe"),
            ("docker login --password-stdin host", "docker login --password-stdin host"),
            ("POSTGRES_PASSWORD_FILE=/run/secrets/pg", "POSTGRES_PASSWORD_FILE=/run/secrets/pg"),
            ("registry/secret-store:1.2", "registry/secret-store:1.2"),
            ("sleep 10", "sleep 10"),
        ] {
            assert_eq!(redaction.text(text), expected);
        }
        assert_eq!(redaction.value("com.example.Secret", "x"), "[redacted]");
        assert_eq!(redaction.value("com.example.name", "x"), "x");
        assert_eq!(Redaction::new(["pin"]).text("--pin=1 --token=2"), "--pin=[redacted] --token=2");
    }

    #[test]
    fn a_hostile_megabyte_comes_back_bounded() {
        // Work that grew with the square of the length would not end within a test's patience.
        let redaction = Redaction::default();
        for pattern in ["password ", "password=\"", "://", "://a:", "bearer ", "--password ", "token\":", "aaaa", "@:", "=", "pässword="] {
            let text = pattern.repeat((1 << 20) / pattern.len());
            assert!(redaction.text(&text).len() <= text.len() * 12);
        }
    }

    proptest! {
        #[test]
        fn no_secret_gets_through(
            key in "(--|)[a-z]{0,5}(PASSWORD|password|Token|api_key)",
            separator in prop::sample::select(vec!["=", "=\"", "='", ": ", ":\t"]),
            secret in "[A-Z0-9]{6,40}",
            before in "[a-z \"]{0,20} ",
            after in "([ \"'][ -~]{0,20})?",
        ) {
            let text = format!("{before}{key}{separator}{secret}{after}");
            let kept = Redaction::default().text(&text).into_owned();
            prop_assert!(kept.contains(&key));
            prop_assert!(!kept.replacen(&key, "", 1).contains(&secret) || after.contains(&secret), "{kept}");
        }

        #[test]
        fn redacting_again_changes_nothing(text in r#"([a-z:/@="' -]|password|token|bearer |://|é){0,60}"#) {
            let once = Redaction::default().text(&text).into_owned();
            prop_assert_eq!(Redaction::default().text(&once), once.as_str());
        }

        #[test]
        fn any_text_is_taken_and_one_without_signs_is_untouched(text in any::<String>()) {
            let kept = Redaction::default().text(&text).into_owned();
            if !text.contains(['=', ':', ' ', '\t']) {
                prop_assert_eq!(kept, text);
            }
        }
    }
}
