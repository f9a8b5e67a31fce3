//! Who did it: the calls that the kernel's probes tell, put to the changes that the table of mounts shows.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use mayfly_history::{
    Nanos, Sink,
    mount::{MountAction, MountCall},
    mounted::{Mount, MountChange, MountEvent, Mounter},
};

/// The probes are drained a moment after the table of mounts is known to have changed.
const WAIT: Duration = Duration::from_millis(150);
/// A call that no change was seen of is kept so long, before and after.
const KEPT: Nanos = 2_000_000_000;
const MOST: usize = 4096;

/// Changes that wait for their calls, and calls that may still find their change.
#[derive(Debug)]
pub(crate) struct Calls {
    sink: Sink<MountCall>,
    heard: VecDeque<MountCall>,
    waiting: VecDeque<(Instant, MountEvent)>,
    /// There are probes.
    listens: bool,
}

impl Calls {
    pub(crate) fn new(sink: Sink<MountCall>) -> Self {
        Self { sink, heard: VecDeque::new(), waiting: VecDeque::new(), listens: false }
    }

    /// Takes a change that was seen.
    pub(crate) fn wait(&mut self, event: MountEvent) {
        let until = Instant::now() + if self.listens { WAIT } else { Duration::ZERO };
        self.waiting.push_back((until, event));
    }

    /// Whether some change waits.
    pub(crate) fn are_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The changes whose caller is known, or not waited for any longer; in the order in which they were seen.
    pub(crate) fn settle(&mut self, now_ns: Nanos) -> Vec<MountEvent> {
        let calls = self.sink.drain(usize::MAX);
        self.listens |= !calls.is_empty();
        for received in calls {
            // It is no row of a table: what becomes of it is told by the change.
            received.feed.count_stored(received.item.time_ns, 0);
            if received.item.result == 0 && self.heard.len() < MOST {
                self.heard.push_back(received.item);
            }
        }
        self.heard.retain(|call| now_ns.saturating_sub(call.time_ns) < KEPT);
        for (_, event) in &mut self.waiting {
            if event.by.is_none() {
                event.by = self.heard.iter().rev().find(|call| did(call, event)).map(mounter);
            }
        }
        let now = Instant::now();
        let mut settled = Vec::new();
        while let Some((_, event)) = self.waiting.pop_front_if(|(until, event)| event.by.is_some() || *until <= now) {
            settled.push(event);
        }
        settled
    }
}

fn mounter(call: &MountCall) -> Mounter {
    Mounter { pid: call.pid, path: call.path.clone(), uid: call.uid }
}

/// Whether a call did that: it names the place, in that namespace, at that time. Nothing is guessed from nearness alone.
fn did(call: &MountCall, event: &MountEvent) -> bool {
    let Mount { path, mnt_namespace, .. } = &event.mount;
    let is_action = match event.action {
        MountChange::Mount => matches!(call.action, MountAction::Mount),
        MountChange::Unmount => matches!(call.action, MountAction::Unmount),
        MountChange::Move => matches!(call.action, MountAction::Move),
        MountChange::Remount => matches!(call.action, MountAction::Remount),
    };
    let target = call.target.trim_end_matches('/');
    let below = path.strip_prefix(target);
    // A tree goes with the mount that it lies on.
    let is_place =
        below == Some("") || path == &call.target || (event.action == MountChange::Unmount && below.is_some_and(|b| b.starts_with('/')));
    let is_time = call.time_ns.abs_diff(event.time_ns) < KEPT.unsigned_abs();
    is_action && is_place && is_time && call.mnt_namespace.is_some_and(|inode| inode.to_string() == *mnt_namespace)
}

#[cfg(test)]
mod tests {
    use mayfly_history::{Feed, container::ContainerKey, sink::Bell};

    use super::*;

    fn call(action: MountAction, target: &str, result: i64) -> MountCall {
        MountCall {
            time_ns: 1,
            action,
            pid: 7,
            path: "/bin/mount".into(),
            uid: Some(0),
            cgroup_id: None,
            mnt_namespace: Some(9),
            source: String::new(),
            target: target.into(),
            fs_type: String::new(),
            flags: 0,
            result,
            container: ContainerKey::default(),
        }
    }

    fn event(action: MountChange, path: &str) -> MountEvent {
        let mount = Mount { path: path.into(), mnt_namespace: "9".into(), ..Mount::default() };
        MountEvent { time_ns: 2, action, mount, by: None }
    }

    #[test]
    fn a_change_finds_the_call_that_names_its_place_and_no_other() {
        let (sink, feed) = (Sink::new(64, Bell::default()), Feed::new("ebpf", ""));
        let mut calls = Calls::new(sink.clone());
        calls.wait(event(MountChange::Mount, "/early"));
        assert_eq!(calls.settle(3).len(), 1, "without probes nothing waits");
        for call in [
            call(MountAction::Mount, "/failed", -16),
            call(MountAction::Mount, "/mnt/", 0),
            call(MountAction::Unmount, "/tree", 0),
            MountCall { mnt_namespace: Some(8), ..call(MountAction::Mount, "/elsewhere", 0) },
        ] {
            sink.push(&feed, call);
        }
        calls.settle(3);
        for (action, path, found) in [
            (MountChange::Mount, "/mnt", true),
            (MountChange::Unmount, "/mnt", false),
            (MountChange::Unmount, "/tree/below", true),
            (MountChange::Unmount, "/treetop", false),
            (MountChange::Mount, "/tree/below", false),
            (MountChange::Mount, "/failed", false),
            (MountChange::Mount, "/elsewhere", false),
        ] {
            calls.waiting.clear();
            calls.wait(event(action, path));
            let settled = calls.settle(3);
            assert_eq!(settled.first().is_some_and(|e| e.by.is_some()), found, "{action:?} {path}");
        }
        assert!(calls.are_awaited(), "the last one waits for its call");
        assert_eq!(feed.status().events, 4);
    }
}
