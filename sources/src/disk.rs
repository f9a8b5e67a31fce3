//! What a runtime's own files on disk tell where its daemon no longer can.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use mayfly_history::container::Details;

use crate::containerd::{MAX_SPEC, Spec};

/// The details in an OCI bundle's `config.json`, where there is one.
pub(crate) fn read_bundle(bundle: &Path) -> io::Result<Details> {
    let mut json = Vec::new();
    File::open(bundle.join("config.json"))?.take(MAX_SPEC as u64 + 1).read_to_end(&mut json)?;
    let spec = Spec::parse(&json).ok_or(io::ErrorKind::InvalidData)?;
    let mut details = Details::default();
    spec.tell(&mut details);
    Ok(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_of_a_bundle() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(read_bundle(bundle.path()).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(bundle.path().join("config.json"), r#"{"process": {"args": ["true"]}}"#).unwrap();
        assert_eq!(read_bundle(bundle.path()).unwrap().command.as_deref(), Some("true"));
        std::fs::write(bundle.path().join("config.json"), "{").unwrap();
        assert_eq!(read_bundle(bundle.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
