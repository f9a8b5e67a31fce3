//! What captures cost.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{host::Host, peer::until};

/// What following the default set costs on a host where nothing happens: printed, and held against what is promised.
#[test]
fn an_idle_host_costs_next_to_nothing() {
    let prove = std::env::var_os("MAYFLY_PROVE").is_some();
    let mut host = Host::new();
    host.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let real =
        ["interface_addresses", "routes", "kernel_modules", "deb_packages", "etc_hosts", "crontab", "sudoers", "authorized_keys", "users"];
    host.osqueryd.ask(&json!({"do": "have", "tables": real, "root": "/"}));
    let rows: Vec<_> = (0..300).map(|n| [format!("name-{n}"), n.to_string()]).collect();
    // The rest of the default set, 300 rows each, which is more than most have.
    for table in [
        "interface_details",
        "arp_cache",
        "dns_resolvers",
        "listening_ports",
        "iptables",
        "known_hosts",
        "logged_in_users",
        "systemd_units",
        "startup_items",
        "apt_sources",
        "docker_images",
        "docker_networks",
        "docker_volumes",
        "os_version",
        "kernel_info",
        "system_info",
        "usb_devices",
        "pci_devices",
        "disk_encryption",
    ] {
        host.put(table, &[("name", "TEXT", 8), ("size", "BIGINT", 8)], json!(rows));
    }
    host.start(&["default"], "interval_seconds = 10\ncpu_percent = 100\n");
    let running = "SELECT count(*) FROM recorder_sources WHERE source = 'tables' AND state = 'running' AND endpoint NOT IN ('', 'users')";
    until("all are followed", || host.texts(running) == ["27"]);
    let size = |host: &Host| -> u64 {
        let files = ["history.db", "history.db-wal"].map(|name| host.place.state_dir().join("osquery").join(name));
        files.iter().map(|file| std::fs::metadata(file).map_or(0, |file| file.len())).sum()
    };
    until("its state was written", || {
        host.texts("SELECT state FROM recorder_sources WHERE source = 'tables' AND endpoint = ''") == ["running"]
    });
    let asked = |host: &mut Host| -> u64 {
        host.osqueryd.ask(&json!({"do": "asked"}))["asked"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
    };
    let (size_before, cpu_before, asked_before, began) = (size(&host), host.cpu(), asked(&mut host), Instant::now());
    let lasts = Duration::from_secs(if prove { 120 } else { 25 });
    std::thread::sleep(lasts);
    let (grown, cpu, captures) = (size(&host).saturating_sub(size_before), host.cpu() - cpu_before, asked(&mut host) - asked_before);
    let share = cpu.as_secs_f64() / began.elapsed().as_secs_f64();
    println!("captures of {captures} tables in {lasts:?}: {:.2} % of a core, {grown} bytes", 100.0 * share);
    assert!(captures >= 27, "each was captured at least once more");
    // The usual interval is ninety times as long as this one.
    assert!(share < 0.25, "{share}");
    assert!(grown < 64 << 10, "{grown} bytes for captures that found nothing");
}
