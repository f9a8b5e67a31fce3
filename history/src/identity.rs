//! Who this host is: the record of `host_identity` and `host_identity_history`.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::{fact::Fact, redact::Redaction};

/// What a host is called, by itself, by its cloud, by its orchestrator. Texts are empty where nothing tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Identity {
    pub hostname: String,
    /// Of the firmware, lower case: what osquery calls the host by default.
    pub host_uuid: String,
    pub machine_id: String,
    /// Another after each boot.
    pub boot_id: String,
    /// The same over reboots; another in a clone, and in an instance of an image that was made of this host.
    pub incarnation_id: String,
    pub primary_ip: String,
    /// IPv4 first.
    pub ip_addresses: Vec<String>,
    pub mac_addresses: Vec<String>,
    /// The one that the default route goes through.
    pub primary_interface: String,
    pub cloud: Cloud,
    pub ecs_cluster: String,
    pub kubernetes_node: String,
    /// Runtimes that are here, comma-separated.
    pub container_runtime: String,
    pub os: String,
    pub kernel: String,
}

/// What the cloud tells of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cloud {
    /// `aws`, `gce`, `azure`.
    pub provider: String,
    pub account_id: String,
    pub region: String,
    pub availability_zone: String,
    pub instance_id: String,
    pub instance_type: String,
    pub image_id: String,
    pub instance_tags: BTreeMap<String, String>,
}

impl Fact for Identity {
    fn key(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.hostname)
    }

    fn clean(&mut self, redaction: &Redaction) {
        for (key, value) in &mut self.cloud.instance_tags {
            *value = redaction.value(key, value).into_owned();
        }
    }
}
