//! Containers whose first process exists and waits before its exec.

use std::{collections::HashMap, os::fd::OwnedFd};

use mayfly_history::container::{ContainerEvent, ContainerKey, Run};

use crate::{
    docker::Keeper,
    netns::{self, Addresses},
    process::Process,
};

/// More than this do not wait at once.
const MOST: usize = 1024;

/// What was read of each first process while it waited; it goes with the start.
#[derive(Debug)]
pub(crate) struct Parking {
    /// Of the daemon that tells the pids.
    keeper: Keeper,
    waiting: HashMap<ContainerKey, Parked>,
}

#[derive(Debug)]
struct Parked {
    run: Run,
    on_host_network: bool,
    /// A namespace without addresses yet. Some clients connect it between the task's creation and its start; held, it can be read
    /// even when the process has gone by then.
    netns: Option<OwnedFd>,
}

impl Parking {
    pub(crate) fn new(keeper: Keeper) -> Self {
        Self { keeper, waiting: HashMap::new() }
    }

    /// Reads what the kernel knows of a process that waits.
    pub(crate) async fn park(&mut self, key: ContainerKey, pid: i64) {
        // Gone already: the start will have its pid, and nothing more.
        let Ok(process) = Process::open(pid) else { return };
        let run = process.run();
        if !self.keeper.may_tell(&run, &key.container_id) {
            return;
        }
        let mut parked = Parked { run, on_host_network: process.on_host_network(), netns: None };
        if !parked.on_host_network
            && let Ok(netns) = process.netns()
        {
            parked.netns = Some(netns);
            parked.read_addresses().await;
        }
        if self.waiting.len() < MOST || self.waiting.contains_key(&key) {
            self.waiting.insert(key, parked);
        }
    }

    /// Whether a container's process was read.
    pub(crate) fn holds(&self, key: &ContainerKey) -> bool {
        self.waiting.contains_key(key)
    }

    /// Adds what was read to the start of the process.
    pub(crate) async fn start(&mut self, event: &mut ContainerEvent) {
        let Some(mut parked) = self.waiting.remove(&event.key) else { return self.doubt(event) };
        let told = std::mem::take(&mut event.details.run);
        if told.pid.is_some() && told.pid != parked.run.pid {
            event.details.run = told;
            return self.doubt(event);
        }
        parked.read_addresses().await;
        if parked.run.ip_addresses.is_empty() {
            parked.run.ip_addresses = told.ip_addresses;
        }
        if parked.on_host_network {
            event.details.network_mode = Some("host".into());
        }
        event.details.run = Run { started_ns: told.started_ns, ..parked.run };
    }

    /// Drops a pid that nothing proves.
    pub(crate) fn doubt(&self, event: &mut ContainerEvent) {
        event.details.run.pid = event.details.run.pid.filter(|_| self.keeper == Keeper::Root);
    }

    /// Forgets a container.
    pub(crate) fn leave(&mut self, key: &ContainerKey) {
        self.waiting.remove(key);
    }
}

impl Parked {
    async fn read_addresses(&mut self) {
        let Some(Ok(netns)) = self.netns.as_ref().map(OwnedFd::try_clone) else { return };
        match netns::addresses(netns).await {
            Ok(Addresses { ip, mac }) if !ip.is_empty() => {
                self.run.ip_addresses = ip;
                self.run.mac_addresses = mac;
                self.netns = None;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "cannot read the addresses"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_untrusted_daemons_pid_is_not_believed() {
        let key = ContainerKey { container_id: "a".repeat(64).into(), runtime_namespace: "moby".into(), endpoint: "unix:///x".into() };
        for keeper in [Keeper::Root, Keeper::User(1000), Keeper::Unknown] {
            let mut parking = Parking::new(keeper);
            parking.park(key.clone(), std::process::id().into()).await;
            assert_eq!(parking.holds(&key), keeper == Keeper::Root);
        }
    }
}
