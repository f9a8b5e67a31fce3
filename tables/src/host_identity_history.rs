//! `host_identity_history`.

use mayfly_history::{HistoryTable, identity::Identity, text};

use crate::{history::History, json};

pub(crate) static TABLE: History<Identity> = History::pushed(&HOST_IDENTITY_HISTORY);

/// Who this host was.
pub static HOST_IDENTITY_HISTORY: HistoryTable<Identity> = HistoryTable {
    name: "host_identity_history",
    doc: "What this host was called at a past time: by itself, its cloud and its orchestrator.",
    columns: &[
        text("hostname", |i: &Identity| Some((&*i.hostname).into()), "Name of the host.").index(),
        text("host_uuid", |i| Some((&*i.host_uuid).into()), "Uuid of the firmware, lower case: osquery's default host identifier."),
        text("machine_id", |i| Some((&*i.machine_id).into()), "Id of the installation, from /etc/machine-id."),
        text("boot_id", |i| Some((&*i.boot_id).into()), "Id of this boot."),
        text(
            "incarnation_id",
            |i| Some((&*i.incarnation_id).into()),
            "The same over reboots; another one in a clone, and in an instance of an image that was made of this host.",
        ),
        text("primary_ip", |i| Some((&*i.primary_ip).into()), "First address of the primary interface."),
        text("ip_addresses", |i| Some(json::array(&i.ip_addresses)), "JSON array of the addresses of its network cards, IPv4 first."),
        text("mac_addresses", |i| Some(json::array(&i.mac_addresses)), "JSON array of the hardware addresses of its network cards."),
        text("primary_interface", |i| Some((&*i.primary_interface).into()), "Interface that the default route goes through."),
        text("cloud_provider", |i| Some((&*i.cloud.provider).into()), "`aws`, `gce` or `azure`; empty elsewhere."),
        text("account_id", |i| Some((&*i.cloud.account_id).into()), "AWS account, Google project or Azure subscription."),
        text("region", |i| Some((&*i.cloud.region).into()), "Region of the cloud."),
        text("availability_zone", |i| Some((&*i.cloud.availability_zone).into()), "Zone within the region."),
        text("instance_id", |i| Some((&*i.cloud.instance_id).into()), "Id of the instance in its cloud."),
        text("instance_type", |i| Some((&*i.cloud.instance_type).into()), "Type or size of the instance."),
        text("image_id", |i| Some((&*i.cloud.image_id).into()), "Image that the instance was made from."),
        text("instance_tags", |i| Some(json::object(&i.cloud.instance_tags)), "JSON object of the instance's tags; secrets are redacted."),
        text("ecs_cluster", |i| Some((&*i.ecs_cluster).into()), "Amazon ECS cluster that the host belongs to."),
        text("kubernetes_node", |i| Some((&*i.kubernetes_node).into()), "Name of the Kubernetes node that the host is."),
        text("container_runtime", |i| Some((&*i.container_runtime).into()), "Container runtimes whose sockets are here, comma-separated."),
        text("os", |i| Some((&*i.os).into()), "Name and version of the system."),
        text("kernel", |i| Some((&*i.kernel).into()), "Release of the kernel."),
    ],
    witnesses: &["identity"],
    examples: &[
        (
            "Under which name and address the host was known at that time.",
            "SELECT hostname, primary_ip, instance_id, complete FROM host_identity_history WHERE as_of = '2025-01-31T10:00:00Z';",
        ),
        (
            "When this installation became another instance.",
            "SELECT incarnation_id, instance_id, datetime(min(valid_from), 'unixepoch') AS since FROM host_identity_history GROUP BY 1, 2;",
        ),
    ],
};
