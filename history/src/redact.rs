//! Keeps secrets out of the store: labels, commands and command lines pass here before they are recorded.

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
        Self { keys: keys.into_iter().map(|k| k.into().to_ascii_lowercase()).collect() }
    }
}
