//! A recorder and its sources, started and stopped as one; `record` and an autoloaded extension both run it.

use std::{io, path::Path};

use mayfly_ebpf::KernelSinks;
use mayfly_history::chain;
use mayfly_history::recorder::{Recorder, RecorderError, RecorderOptions};
use mayfly_sources::Sources;

use crate::{config::Loaded, privileges};

/// Why recording could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("cannot start the recorder in {dir}")]
    Recorder {
        dir: String,
        #[source]
        reason: RecorderError,
    },
    #[error("cannot start the sources")]
    Sources(#[source] io::Error),
    #[error("cannot follow the kernel's probes")]
    Kernel(#[source] io::Error),
}

/// Recording, until it is stopped or dropped: it never outlives the lock that its caller holds.
#[derive(Debug)]
pub(crate) struct Recording {
    kernel: Option<mayfly_ebpf::Follower>,
    sources: Option<Sources>,
    recorder: Option<Recorder>,
}

impl Recording {
    /// Opens the store and starts every source. The caller holds the lock of `state_dir`.
    pub(crate) fn start(loaded: &Loaded, state_dir: &Path) -> Result<Self, RecordingError> {
        let options = RecorderOptions {
            state_dir: state_dir.to_owned(),
            redaction: loaded.config.redaction(),
            store: loaded.config.store.clone(),
            notes: notes(loaded, state_dir),
        };
        let recorder = Recorder::start(mayfly_tables::declarations(), options)
            .map_err(|reason| RecordingError::Recorder { dir: state_dir.display().to_string(), reason })?;
        report(loaded, &recorder);
        let handle = recorder.handle();
        let mut sinks = KernelSinks::of(&handle);
        // Who mounts is put to what the source of mounts sees; without it nobody would take it.
        let mounts = &loaded.config.mounts;
        sinks.mounts = (mounts.enabled && mounts.who).then(|| handle.sinks().of());
        let feed = handle.feed("ebpf", "");
        let mut recording = Self { kernel: None, sources: None, recorder: Some(recorder) };
        recording.sources = Some(mayfly_sources::start(loaded.config.sources(), handle).map_err(RecordingError::Sources)?);
        recording.kernel = mayfly_ebpf::follow(&loaded.config.ebpf, feed, sinks).map_err(RecordingError::Kernel)?;
        Ok(recording)
    }

    /// Stops the sources, writes what waits, closes the store.
    pub(crate) fn stop(mut self) -> Result<(), RecorderError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), RecorderError> {
        if let Some(kernel) = self.kernel.take() {
            kernel.stop();
        }
        if let Some(sources) = self.sources.take() {
            sources.stop();
        }
        self.recorder.take().map_or(Ok(()), Recorder::stop)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(error = chain(&error), "cannot close the history in order");
        }
    }
}

/// What `recorder_info` says of this process.
fn notes(loaded: &Loaded, state_dir: &Path) -> Vec<(String, String)> {
    let btf = Path::new("/sys/kernel/btf/vmlinux").exists();
    [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("state_dir", state_dir.display().to_string()),
        ("config_path", loaded.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default()),
        ("kernel_btf", if btf { "1" } else { "0" }.to_owned()),
        ("capabilities", privileges::held()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Shows what is wrong with the configuration where an operator looks: stderr and `recorder_sources`.
fn report(loaded: &Loaded, recorder: &Recorder) {
    if loaded.errors.is_empty() {
        return;
    }
    let errors: Vec<_> = loaded.errors.iter().map(|e| chain(e)).collect();
    let path = loaded.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    recorder.handle().feed("config", &path).failed(errors.join("; "), "these lines are left out; mayfly check shows them again");
}
