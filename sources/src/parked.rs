//! Containers whose first process exists and waits before its exec.

use std::{collections::HashMap, os::fd::OwnedFd};

use mayfly_history::container::{ContainerEvent, ContainerKey, Run};

use crate::{
    netns::{self, Addresses},
    process::Process,
};

/// More than this do not wait at once.
const MOST: usize = 1024;

/// What was read of each first process while it waited; it goes with the start.
#[derive(Debug, Default)]
pub(crate) struct Parking(HashMap<ContainerKey, Parked>);

#[derive(Debug)]
struct Parked {
    run: Run,
    on_host_network: bool,
    /// A namespace without addresses yet. Some clients connect it between the task's creation and its start; held, it can be read
    /// even when the process has gone by then.
    netns: Option<OwnedFd>,
}

impl Parking {
    /// Reads what the kernel knows of a process that waits.
    pub(crate) async fn park(&mut self, key: ContainerKey, pid: i64) {
        // Gone already: the start will have its pid, and nothing more.
        let Ok(process) = Process::open(pid) else { return };
        let mut parked = Parked { run: process.run(), on_host_network: process.on_host_network(), netns: None };
        if !parked.on_host_network
            && let Ok(netns) = process.netns()
        {
            parked.netns = Some(netns);
            parked.read_addresses().await;
        }
        if self.0.len() < MOST || self.0.contains_key(&key) {
            self.0.insert(key, parked);
        }
    }

    /// Whether a container's process was read.
    pub(crate) fn holds(&self, key: &ContainerKey) -> bool {
        self.0.contains_key(key)
    }

    /// Adds what was read to the start of the process.
    pub(crate) async fn start(&mut self, event: &mut ContainerEvent) {
        let Some(mut parked) = self.0.remove(&event.key) else { return };
        let told = std::mem::take(&mut event.details.run);
        if told.pid.is_some() && told.pid != parked.run.pid {
            event.details.run = told;
            return;
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

    /// Forgets a container.
    pub(crate) fn leave(&mut self, key: &ContainerKey) {
        self.0.remove(key);
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
