//! Why the kernel cannot be listened to, and what would help.

use std::{error::Error, fs, io, path::Path};

use aya::{
    maps::{MapError, MapType},
    programs::ProgramError,
    sys::is_map_supported,
};
use rustix::io::Errno;

type Cause = Box<dyn Error + Send + Sync>;

/// Why the kernel cannot be listened to. Display says what was attempted; [`LoadError::remedy`] what would help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Neither with types nor, for that other reason, without.
    #[error("cannot read the kernel's type information (BTF; {reason}), and do without it")]
    NoBtf {
        reason: aya::BtfError,
        #[source]
        without: Box<LoadError>,
    },
    #[error("cannot read the format of the tracepoint {tracepoint} from tracefs")]
    Format {
        tracepoint: &'static str,
        #[source]
        reason: io::Error,
    },
    #[error("may not load BPF programs")]
    NotPermitted(#[source] Cause),
    #[error("the kernel is locked down and refuses BPF programs that read its memory")]
    LockedDown(#[source] Cause),
    #[error("the kernel has no BPF ring buffers")]
    NoRingBuffers(#[source] Cause),
    #[error("cannot use the BPF map {name}")]
    Map {
        name: &'static str,
        #[source]
        reason: MapError,
    },
    #[error("cannot load the probes")]
    Object(#[source] Box<aya::EbpfError>),
    #[error("cannot attach to the tracepoint {tracepoint}")]
    Program {
        tracepoint: &'static str,
        #[source]
        reason: Box<ProgramError>,
    },
}

/// What a kernel without BTF is to be given.
pub(crate) const WANTS_BTF: &str =
    "run a kernel built with CONFIG_DEBUG_INFO_BTF=y and mount sysfs, or set [ebpf] btf to a file with its BTF";

impl LoadError {
    /// What an operator can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoBtf { without, .. } => format!("{WANTS_BTF}; or {}", without.remedy()),
            Self::Format { .. } => "mount tracefs: mount -t tracefs tracefs /sys/kernel/tracing".into(),
            Self::NotPermitted(_) => "run as root, or with CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH".into(),
            Self::LockedDown(_) => "boot with lockdown=integrity or without lockdown".into(),
            Self::NoRingBuffers(_) => "run a kernel of 5.8 or newer".into(),
            Self::Map { .. } | Self::Object(_) | Self::Program { .. } => {
                "run a kernel of 5.12 or newer with BPF tracing and ring buffers".into()
            }
        }
    }

    /// Whether only the lack of type information is in the way, or nothing would help.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::NotPermitted(_) | Self::LockedDown(_) | Self::NoRingBuffers(_))
    }

    /// The error and its causes, in one line.
    pub(crate) fn explain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // The verifier's log is long.
            let text = error.to_string();
            line.push_str(": ");
            line.push_str(text.lines().next().unwrap_or_default());
            cause = error.source();
        }
        line
    }
}

/// Finds out what a failure is at bottom: the kernel says only that it may not be, or that something is not valid. `sysfs`: `/sys`.
pub(crate) fn diagnose<E: Error + Send + Sync + 'static>(reason: E, sysfs: &Path, otherwise: impl FnOnce(E) -> LoadError) -> LoadError {
    let has_ring_buffers = || is_map_supported(MapType::RingBuf).unwrap_or(true);
    diagnose_with(reason, sysfs, has_ring_buffers, otherwise)
}

fn diagnose_with<E: Error + Send + Sync + 'static>(
    reason: E,
    sysfs: &Path,
    has_ring_buffers: impl FnOnce() -> bool,
    otherwise: impl FnOnce(E) -> LoadError,
) -> LoadError {
    match cause_of(&reason) {
        Bottom::Rights if is_locked_down(sysfs) => LoadError::LockedDown(Box::new(reason)),
        Bottom::Rights => LoadError::NotPermitted(Box::new(reason)),
        // Not only the kind of map may be what is not valid, so it is asked.
        Bottom::Other if !has_ring_buffers() => LoadError::NoRingBuffers(Box::new(reason)),
        Bottom::Other => otherwise(reason),
    }
}

/// What is at the bottom of an error.
enum Bottom {
    Rights,
    Other,
}

fn cause_of(error: &(dyn Error + 'static)) -> Bottom {
    let mut cause = Some(error);
    let mut verified = true;
    while let Some(error) = cause {
        if let Some(ProgramError::LoadError { .. }) = error.downcast_ref() {
            verified = false;
        }
        match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error).map(Errno::from_raw_os_error) {
            Some(Errno::PERM) => return Bottom::Rights,
            // The verifier says the same of a program that it does not like.
            Some(Errno::ACCESS) if verified => return Bottom::Rights,
            _ => cause = error.source(),
        }
    }
    Bottom::Other
}

fn is_locked_down(sysfs: &Path) -> bool {
    fs::read_to_string(sysfs.join("kernel/security/lockdown")).is_ok_and(|modes| modes.contains("[confidentiality]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_map(errno: i32) -> MapError {
        MapError::CreateError { name: "ring".into(), io_error: io::Error::from_raw_os_error(errno) }
    }

    fn diagnosed(errno: i32, sysfs: &Path, has_ring_buffers: bool) -> LoadError {
        diagnose_with(of_map(errno), sysfs, || has_ring_buffers, |reason| LoadError::Map { name: "ring", reason })
    }

    #[test]
    fn tells_lockdown_missing_rights_and_missing_ring_buffers_apart() {
        const EPERM: i32 = 1;
        const EINVAL: i32 = 22;
        let sysfs = std::env::temp_dir().join(format!("mayfly-sysfs-{}", std::process::id()));
        fs::create_dir_all(sysfs.join("kernel/security")).unwrap();
        let mut found = Vec::new();
        for modes in ["[none] integrity confidentiality", "none [integrity] confidentiality", "none integrity [confidentiality]"] {
            fs::write(sysfs.join("kernel/security/lockdown"), modes).unwrap();
            found.push(diagnosed(EPERM, &sysfs, true).to_string());
        }
        fs::remove_dir_all(&sysfs).unwrap();
        found.extend(
            [diagnosed(EPERM, &sysfs, true), diagnosed(EINVAL, &sysfs, false), diagnosed(EINVAL, &sysfs, true)].map(|e| e.to_string()),
        );
        let (refused, locked) = ("may not load BPF programs", "the kernel is locked down and refuses BPF programs that read its memory");
        assert_eq!(found, [refused, refused, locked, refused, "the kernel has no BPF ring buffers", "cannot use the BPF map ring"]);
    }

    #[test]
    fn says_what_would_help_and_why_it_failed() {
        let error = diagnosed(22, Path::new("/nonexistent"), false);
        assert_eq!(error.remedy(), "run a kernel of 5.8 or newer");
        assert!(
            error.explain().starts_with("the kernel has no BPF ring buffers: ") && error.explain().contains("Invalid argument"),
            "{}",
            error.explain()
        );
    }
}
