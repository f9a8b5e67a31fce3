//! What is told of the mounts of a namespace: changes of facts, and events.

use mayfly_history::{
    Change, Fact, Nanos,
    container::ContainerKey,
    mounted::{Mount, MountChange, MountEvent},
};
use tokio::time::timeout;

use super::{
    book::Turn,
    hardware::Behind,
    mountinfo::Line,
    namespace::{Known, Namespace},
};
use crate::{devices::LOOK_WITHIN, supervise::Site};

/// Who saw what is told here.
pub(super) const EVIDENCE: &str = "mounts";

impl Namespace {
    /// What is behind mounts that are new, each in its turn.
    pub(super) async fn behind(&self, lines: Vec<Line>) -> Vec<Behind> {
        let count = lines.len();
        if count == 0 {
            return Vec::new();
        }
        let lower = self.lower.clone();
        let look = tokio::task::spawn_blocking(move || lines.iter().map(|line| lower.behind(line)).collect());
        match timeout(LOOK_WITHIN, look).await {
            Ok(Ok(found)) => found,
            _ => {
                self.site.feed.complain("a device does not answer: the hardware behind some mounts stays unknown");
                vec![Behind::default(); count]
            }
        }
    }

    pub(super) fn mount(&self, line: Option<&Line>, known: &Known) -> Mount {
        let mount = Mount { mnt_namespace: known.inode.clone(), container: self.container.clone(), ..Mount::default() };
        let Some(line) = line else { return mount };
        let behind = known.behind.get(&line.id).cloned().unwrap_or_default();
        Mount {
            id: line.id,
            device: line.device.clone(),
            path: line.path.clone(),
            fs_type: line.fs_type.clone(),
            flags: line.flags.clone(),
            device_number: line.number.clone(),
            root: line.root.clone(),
            hardware: behind.hardware,
            fs_uuid: behind.fs_uuid,
            fs_label: behind.fs_label,
            ..mount
        }
    }

    /// Tells what happened, in its order.
    pub(super) async fn tell(&self, turns: Vec<Turn>, known: &mut Known) {
        let new = turns.iter().filter(|turn| turn.change == MountChange::Mount).filter_map(|turn| turn.line.clone()).collect();
        let mut behind = self.behind(new).await.into_iter();
        for Turn { at_ns, change, line, by } in turns {
            let id = line.as_ref().map(|line| line.id);
            if let Some(id) = id.filter(|_| change == MountChange::Mount) {
                known.behind.insert(id, behind.next().unwrap_or_default());
            }
            let mount = self.mount(line.as_ref(), known);
            if let Some(id) = id {
                self.push(change, &mount, at_ns);
                if change == MountChange::Unmount {
                    known.behind.remove(&id);
                }
            }
            // Fails only when the source stops.
            let _ = self.events.send(MountEvent { time_ns: at_ns, action: change, mount, by }).await;
        }
    }

    fn push(&self, change: MountChange, mount: &Mount, at_ns: Nanos) {
        let told = match change {
            MountChange::Unmount => {
                let (key, scope) = (mount.key().into_owned(), mount.scope().into_owned());
                Change::Ended { key, scope, at_ns, reason: "unmounted", evidence: EVIDENCE }
            }
            _ => Change::Holds { fact: mount.clone(), at_ns, evidence: EVIDENCE },
        };
        self.site.recorder.sinks().of().push(&self.site.feed, told);
    }

    pub(super) fn said(&self, what: &str) -> String {
        match &*self.container.container_id {
            "" => format!("the host {what}"),
            id => format!("container {id} {what}"),
        }
    }

    pub(super) fn list(&self, facts: Vec<Mount>, taken_ns: Nanos, blind_since: Option<Nanos>, evidence: &'static str) {
        list(&self.site, &self.container, facts, taken_ns, blind_since, evidence);
    }
}

/// Tells all mounts of a container, or of the host.
pub(super) fn list(
    site: &Site,
    container: &ContainerKey,
    facts: Vec<Mount>,
    taken_ns: Nanos,
    blind_since: Option<Nanos>,
    evidence: &'static str,
) {
    let group = Mount::list_of(container).into_owned();
    site.recorder.sinks().of().push(&site.feed, Change::Present { group, facts, taken_ns, blind_since, evidence });
}
