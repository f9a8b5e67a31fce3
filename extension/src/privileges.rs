//! What a root process gives up before it reads its first byte of input.

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// What recording needs, each with its use; all else is dropped for good.
const KEPT: [(CapabilitySet, &str); 10] = [
    (CapabilitySet::DAC_OVERRIDE, "connect to sockets of rootless runtimes"),
    (CapabilitySet::DAC_READ_SEARCH, "read runtimes' files and /proc of any user"),
    (CapabilitySet::SYS_PTRACE, "read /proc/PID/ns of containers"),
    (CapabilitySet::SYS_ADMIN, "enter network namespaces to read their addresses"),
    (CapabilitySet::NET_BROADCAST, "hear netlink of all network namespaces"),
    (CapabilitySet::NET_ADMIN, "list addresses in all network namespaces"),
    (CapabilitySet::NET_RAW, "read DHCP packets"),
    (CapabilitySet::BPF, "load eBPF programs"),
    (CapabilitySet::SYS_NICE, "look at a process that mounts before it ends"),
    (CapabilitySet::PERFMON, "attach eBPF programs to tracepoints"),
];

/// The capabilities that this process has now, as their kernel names, comma-separated.
pub(crate) fn held() -> String {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    effective.iter_names().map(|(name, _)| format!("CAP_{name}")).collect::<Vec<_>>().join(",")
}

/// What is missing of that, and what for.
pub(crate) fn missing() -> Vec<(String, &'static str)> {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let lacks = |(capability, _): &&(CapabilitySet, &str)| !effective.contains(*capability);
    let name = |capability: CapabilitySet| capability.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    KEPT.iter().filter(lacks).map(|(capability, use_)| (name(*capability), *use_)).collect()
}

/// Drops every capability that recording does not need, from the bounding set too, and forbids to gain any by exec. Call it
/// while the process has one thread: the sets belong to threads. A step that the kernel refuses is logged and left.
pub(crate) fn drop_unneeded() {
    let kept = KEPT.iter().fold(CapabilitySet::empty(), |set, (capability, _)| set | *capability);
    let refuse = |what: &'static str| move |error: rustix::io::Errno| tracing::warn!(%error, what, "cannot drop a privilege");
    for capability in CapabilitySet::all().iter() {
        if !kept.contains(capability) {
            // Fails without CAP_SETPCAP: then the permitted set below is all that there is to drop.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let _ = clear_ambient_capability_set();
    if let Err(error) = set_no_new_privs(true) {
        refuse("no_new_privs")(error);
    }
    match capabilities(None) {
        Ok(had) => {
            let permitted = had.permitted & kept;
            let sets = CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
            if let Err(error) = set_capabilities(None, sets) {
                refuse("capabilities")(error);
            }
        }
        Err(error) => refuse("capabilities")(error),
    }
}
