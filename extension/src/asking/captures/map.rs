//! What tells that a table may have changed: events of ours, and files.

/// Events of which table tell of which of osquery's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events {
    /// One of our event tables.
    pub(super) table: &'static str,
    /// Only events with these values tell: column, value.
    pub(super) only: &'static [(&'static str, &'static str)],
    pub(super) tell_of: &'static [&'static str],
}

/// Where a file is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// This file, also when another one takes its name.
    File(&'static str),
    /// All files in a folder, and in those that are in it.
    Folder(&'static str),
    /// All files in this folder of each user's home.
    Homes(&'static str),
}

/// Changes of which files tell of which tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Files {
    pub(super) place: Place,
    pub(super) tell_of: &'static [&'static str],
}

impl Files {
    /// As `evidence` names it.
    pub(super) const fn name(&self) -> &'static str {
        match self.place {
            Place::File(name) | Place::Folder(name) | Place::Homes(name) => name,
        }
    }
}

const fn events(table: &'static str, tell_of: &'static [&'static str]) -> Events {
    Events { table, only: &[], tell_of }
}

/// Those of containers tell nothing.
const fn on_host(table: &'static str, tell_of: &'static [&'static str]) -> Events {
    Events { table, only: &[("container_id", "")], tell_of }
}

const fn file(path: &'static str, tell_of: &'static [&'static str]) -> Files {
    Files { place: Place::File(path), tell_of }
}

const fn folder(path: &'static str, tell_of: &'static [&'static str]) -> Files {
    Files { place: Place::Folder(path), tell_of }
}

const fn homes(path: &'static str, tell_of: &'static [&'static str]) -> Files {
    Files { place: Place::Homes(path), tell_of }
}

/// What each kind of event tells. Tables that are not followed do not matter.
pub(super) static EVENTS: &[Events] = &[
    on_host("account_events", &["authorized_keys", "known_hosts", "logged_in_users", "shadow", "sudoers", "user_groups", "user_ssh_keys"]),
    on_host(
        "ip_lease_events",
        &["arp_cache", "dns_resolvers", "interface_addresses", "interface_details", "interface_ipv6", "listening_ports", "routes"],
    ),
    events(
        "container_lifecycle_events",
        &[
            "arp_cache",
            "docker_container_labels",
            "docker_container_mounts",
            "docker_container_networks",
            "docker_container_ports",
            "docker_containers",
            "docker_networks",
            "docker_volumes",
            "interface_details",
            "iptables",
            "listening_ports",
            "lxd_instances",
        ],
    ),
    events("container_image_events", &["docker_image_history", "docker_image_labels", "docker_image_layers", "docker_images"]),
    on_host("mount_events", &["disk_encryption", "kernel_modules"]),
    events("device_events", &["block_devices", "disk_encryption", "kernel_modules", "pci_devices", "usb_devices"]),
    Events { table: "container_socket_events", only: &[("action", "listen")], tell_of: &["listening_ports", "process_open_sockets"] },
];

const PACKAGES: &[&str] = &["deb_packages"];
const RPM_PACKAGES: &[&str] = &["rpm_package_files", "rpm_packages"];
const UNITS: &[&str] = &["startup_items", "systemd_units"];
const CRON: &[&str] = &["crontab"];
const LOGINS: &[&str] = &["logged_in_users"];
const RESOLVER: &[&str] = &["dns_resolvers"];
const SUDO: &[&str] = &["sudoers"];
const SSH: &[&str] = &["authorized_keys", "known_hosts", "ssh_configs", "user_ssh_keys"];

/// What each file tells.
pub(super) static FILES: &[Files] = &[
    file("/etc/hosts", &["etc_hosts"]),
    file("/etc/resolv.conf", RESOLVER),
    folder("/run/systemd/resolve", RESOLVER),
    folder("/run/resolvconf", RESOLVER),
    file("/etc/sudoers", SUDO),
    folder("/etc/sudoers.d", SUDO),
    file("/etc/shadow", &["shadow"]),
    file("/etc/protocols", &["etc_protocols"]),
    file("/etc/services", &["etc_services"]),
    file("/etc/os-release", &["os_version"]),
    file("/usr/lib/os-release", &["os_version"]),
    file("/etc/hostname", &["system_info"]),
    file("/run/utmp", LOGINS),
    folder("/run/systemd/sessions", LOGINS),
    folder("/etc/ssh", SSH),
    homes(".ssh", SSH),
    file("/etc/crontab", CRON),
    folder("/etc/cron.d", CRON),
    folder("/var/spool/cron", CRON),
    file("/var/lib/dpkg/status", PACKAGES),
    file("/var/lib/rpm/rpmdb.sqlite", RPM_PACKAGES),
    file("/var/lib/rpm/Packages", RPM_PACKAGES),
    file("/usr/lib/sysimage/rpm/rpmdb.sqlite", RPM_PACKAGES),
    file("/etc/apt/sources.list", &["apt_sources"]),
    folder("/etc/apt/sources.list.d", &["apt_sources"]),
    folder("/etc/yum.repos.d", &["yum_sources"]),
    folder("/etc/systemd/system", UNITS),
    folder("/run/systemd/system", UNITS),
    folder("/run/systemd/transient", UNITS),
    // A link for each unit that runs.
    folder("/run/systemd/units", UNITS),
    folder("/usr/lib/systemd/system", UNITS),
    folder("/etc/init.d", &["startup_items"]),
    folder("/etc/xdg/autostart", &["startup_items"]),
];

/// What tells of this table, as `evidence` names it.
pub(super) fn tellers(table: &str) -> impl Iterator<Item = &'static str> {
    let events = EVENTS.iter().filter(move |events| events.tell_of.contains(&table)).map(|events| events.table);
    events.chain(FILES.iter().filter(move |files| files.tell_of.contains(&table)).map(Files::name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_teller_is_there_once_and_tells_of_something() {
        let names: Vec<_> = EVENTS.iter().map(|events| events.table).chain(FILES.iter().map(Files::name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        for told in EVENTS.iter().map(|events| events.tell_of).chain(FILES.iter().map(|files| files.tell_of)) {
            assert!(!told.is_empty() && told.is_sorted() && told.iter().all(|table| !table.ends_with("_events")), "{told:?}");
        }
    }

    #[test]
    fn what_tells_is_an_event_table_or_an_absolute_path() {
        for events in EVENTS {
            let table = mayfly_tables::find(events.table).expect(events.table);
            let has = |column: &str| table.schema().stored().any(|stored| stored.name == column);
            assert!(events.only.iter().all(|(column, _)| has(column)), "{}", events.table);
        }
        for files in FILES {
            let absolute = files.name().starts_with('/');
            assert_eq!(absolute, !matches!(files.place, Place::Homes(_)), "{}", files.name());
        }
    }

    #[test]
    fn tellers_of_a_table_are_found() {
        assert_eq!(tellers("etc_hosts").collect::<Vec<_>>(), ["/etc/hosts"]);
        assert!(tellers("authorized_keys").any(|teller| teller == "account_events"));
        assert_eq!(tellers("pci_tables_of_the_moon").count(), 0);
    }
}
