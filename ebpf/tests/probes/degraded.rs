//! What is told where the probes cannot be loaded, and what is left out where the configuration says so.

use std::process::Command;

use crate::probing::{Probing, everything};
use mayfly_ebpf::{EbpfConfig, follow};
use mayfly_history::{
    Feed,
    process::{KernelStream, ProcessAction},
};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// A kernel that has neither BTF nor tracefs where they should be.
fn without_btf() -> EbpfConfig {
    EbpfConfig { btf: Some("/nonexistent".into()), sysfs: "/nonexistent".into(), ..everything() }
}

/// Leaves this thread only some of its rights.
fn keep_only(rights: CapabilitySet) {
    set_capabilities(None, CapabilitySets { effective: rights, permitted: rights, inheritable: CapabilitySet::empty() }).unwrap();
}

fn assert_disabled(feed: &Feed, error: &str, remedy: &str) {
    let status = feed.status();
    assert_eq!(status.state, "disabled", "{status:?}");
    assert!(status.last_error.starts_with(error) && status.hint.starts_with(remedy), "{status:?}");
}

#[test]
fn the_process_connector_tells_of_processes_where_there_is_neither_btf_nor_tracefs() {
    let Some(mut probing) = Probing::start_without_probes(&without_btf()) else { return };
    assert_disabled(&probing.feed, "cannot read the kernel's type information", "run a kernel built with CONFIG_DEBUG_INFO_BTF=y");
    let hint = probing.feed.status().hint;
    assert!(hint.contains("mount tracefs") && hint.ends_with("the process connector tells of processes only"), "{hint}");
    // Long enough alive to be asked.
    let mut child = Command::new("/bin/sh").args(["-c", "read word; exit 7"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = i64::from(child.id());
    let exec = probing.process(|e| e.action == ProcessAction::Exec && e.pid == Some(pid));
    assert_eq!(exec.source, KernelStream::Connector);
    assert_eq!(*exec.path, *std::fs::canonicalize("/bin/sh").unwrap().to_str().unwrap());
    assert_eq!((exec.cmdline.as_str(), exec.uid, exec.parent), ("/bin/sh -c read word; exit 7", Some(0), Some(std::process::id().into())));
    assert!((mayfly_history::now() - exec.time_ns).abs() < 60_000_000_000, "{exec:?}");
    drop(child.stdin.take());
    child.wait().unwrap();
    let exit = probing.process(|e| e.action == ProcessAction::Exit && e.pid == Some(pid));
    assert_eq!((exit.exit_code, exit.signal, &*exit.path), (Some(7), None, &*exec.path));
    assert!(exit.duration_ms.is_some() && exit.time_ns >= exec.time_ns, "{exit:?}");
}

#[test]
fn says_which_rights_are_missing_and_falls_back_where_the_others_suffice() {
    // What the kernel can do is found out once in a process, so that the others must not see this one's lack of rights.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["degraded::falls_back_without_rights", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run by the test above, as a process of its own"]
fn falls_back_without_rights() {
    keep_only(CapabilitySet::NET_ADMIN | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::SYS_PTRACE);
    let Some(mut probing) = Probing::start_without_probes(&everything()) else { return };
    assert_disabled(&probing.feed, "may not load BPF programs", "run as root, or with CAP_BPF, CAP_PERFMON and CAP_DAC_READ_SEARCH");
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let pid = i64::from(child.id());
    child.wait().unwrap();
    let exit = probing.process(|e| e.action == ProcessAction::Exit && e.pid == Some(pid));
    assert_eq!((exit.source, exit.exit_code), (KernelStream::Connector, Some(0)));
}

#[test]
fn says_that_the_kernel_is_locked_down() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["degraded::is_locked_out", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "run by the test above, as a process of its own"]
fn is_locked_out() {
    let sysfs = std::env::temp_dir().join(format!("mayfly-locked-{}", std::process::id()));
    std::fs::create_dir_all(sysfs.join("kernel/security")).unwrap();
    std::fs::write(sysfs.join("kernel/security/lockdown"), "none integrity [confidentiality]\n").unwrap();
    // To a program a lockdown looks like a lack of rights.
    keep_only(CapabilitySet::NET_ADMIN | CapabilitySet::DAC_READ_SEARCH);
    let (feed, sinks) = Probing::sinks(false);
    let follower = follow(&EbpfConfig { sysfs: sysfs.clone(), ..everything() }, feed.clone(), sinks).unwrap();
    std::fs::remove_dir_all(sysfs).unwrap();
    assert_disabled(&feed, "the kernel is locked down", "boot with lockdown=integrity or without lockdown");
    if let Some(follower) = follower {
        follower.stop();
    }
}

#[test]
fn says_so_where_there_is_no_connector_either() {
    let (feed, sinks) = Probing::sinks(false);
    // The kernel has one in its first network namespace only.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    assert!(follow(&without_btf(), feed.clone(), sinks).unwrap().is_none());
    assert_disabled(&feed, "cannot read the kernel's type information", "run a kernel built with CONFIG_DEBUG_INFO_BTF=y");
    assert!(!feed.status().hint.contains("connector"));
}

#[test]
fn is_off_where_the_configuration_says_so() {
    let (feed, sinks) = Probing::sinks(false);
    assert!(follow(&EbpfConfig { enabled: false, ..everything() }, feed.clone(), sinks).unwrap().is_none());
    assert_disabled(&feed, "", "set `enabled = true` in [ebpf]");
}

#[test]
fn leaves_out_paths_and_users_with_their_exits() {
    use std::os::unix::process::CommandExt;
    let folder = std::env::temp_dir().join(format!("mayfly-excluded-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let copy = |name: &str| {
        let path = folder.join(name).to_str().unwrap().to_owned();
        std::fs::copy("/bin/true", &path).unwrap();
        path
    };
    let (whole, longer, begun) = (copy("exact"), copy("exactly"), copy("agent-7"));
    let config = EbpfConfig {
        exclude_paths: vec![whole.clone(), format!("{}/agent-*", folder.display())],
        exclude_uids: vec![54_321],
        ..everything()
    };
    let Some(mut probing) = Probing::start(&config) else { return };
    let run = |command: &mut Command| {
        let mut child = command.spawn().unwrap();
        child.wait().unwrap();
        i64::from(child.id())
    };
    let left_out = [run(&mut Command::new(&whole)), run(&mut Command::new(&begun)), run(Command::new("/bin/true").uid(54_321))];
    // Neither a longer path nor another user of a program that is left out for one.
    let told = run(&mut Command::new(&longer));
    let last = run(Command::new("/bin/true").uid(54_320));
    let events = probing.processes_until(|e| e.action == ProcessAction::Exit && e.pid == Some(last));
    let of = |pid| events.iter().filter(|e| e.pid == Some(pid)).map(|e| e.action.as_str()).collect::<Vec<_>>();
    for pid in left_out {
        assert_eq!(of(pid), [""; 0], "{events:#?}");
    }
    assert_eq!((of(told), of(last)), (vec!["exec", "exit"], vec!["exec", "exit"]));
    std::fs::remove_dir_all(folder).unwrap();
}
