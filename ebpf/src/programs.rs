//! What the living processes execute: an exit, a connection or a kill tells only the pid.

use std::{borrow::Cow, collections::HashMap, fs, path::Path, sync::Arc};

/// Processes that are remembered; beyond, those that are gone unseen are looked for.
const MOST: usize = 65_536;

/// Path of the program of each process in sight.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    paths: HashMap<u32, Arc<str>>,
}

impl Programs {
    /// Learns the processes that run now.
    pub(crate) fn learn_existing(&mut self) {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && let Ok(path) = fs::read_link(entry.path().join("exe"))
                && let Some(path) = path.to_str()
            {
                self.paths.insert(pid, path.into());
            }
        }
    }

    /// Notes that a process executed `path`.
    pub(crate) fn executed(&mut self, pid: u32, path: Arc<str>) {
        if self.paths.len() >= MOST {
            self.paths.retain(|pid, _| Path::new(&format!("/proc/{pid}")).exists());
        }
        if self.paths.len() < MOST {
            self.paths.insert(pid, path);
        }
    }

    /// The program of a process, or an empty text.
    pub(crate) fn path(&self, pid: u32) -> Arc<str> {
        self.paths.get(&pid).cloned().unwrap_or_default()
    }

    /// Forgets a process. One that never executed anything runs its parent's program, if that bears the same name still;
    /// else its name must do.
    pub(crate) fn exited(&mut self, pid: u32, parent: u32, comm: Cow<'_, str>) -> Arc<str> {
        if let Some(path) = self.paths.remove(&pid) {
            return path;
        }
        let named_alike = |path: &&Arc<str>| {
            let name = path.rsplit('/').next().unwrap_or_default();
            // The kernel keeps fifteen bytes of the name.
            !comm.is_empty() && name.as_bytes().get(..15).unwrap_or(name.as_bytes()) == comm.as_bytes()
        };
        self.paths.get(&parent).filter(named_alike).cloned().unwrap_or_else(|| comm.as_ref().into())
    }
}
