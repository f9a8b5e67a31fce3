//! Which incarnation of a host this is.

use std::hash::{DefaultHasher, Hash, Hasher};

use mayfly_history::identity::Identity;
use serde::{Deserialize, Serialize};

/// What tells one host from another that began as its copy. Kept from one recorder to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Incarnation {
    pub(crate) id: String,
    machine_id: String,
    host_uuid: String,
    instance_id: String,
    root_filesystem: String,
}

impl Incarnation {
    fn parts(&self) -> [&String; 4] {
        [&self.machine_id, &self.host_uuid, &self.instance_id, &self.root_filesystem]
    }

    /// This host's, after `before`: the same, unless something that does not change in a host's life is known to be another. An image keeps
    /// the files of the host it was made of, among them what was kept here, but gets an instance, a firmware or a filesystem of its own.
    pub(crate) fn after(before: Option<&Self>, identity: &Identity, root_filesystem: &str) -> Self {
        let mut now = Self {
            id: String::new(),
            machine_id: identity.machine_id.clone(),
            host_uuid: identity.host_uuid.clone(),
            instance_id: identity.cloud.instance_id.clone(),
            root_filesystem: root_filesystem.to_owned(),
        };
        let differ = |(old, new): (&&String, &&String)| !old.is_empty() && !new.is_empty() && old != new;
        match before.filter(|before| !before.parts().iter().zip(now.parts().iter()).any(differ)) {
            Some(before) => {
                // What is not told this time is what it was.
                let keep = |new: &mut String, old: &String| {
                    if new.is_empty() {
                        new.clone_from(old);
                    }
                };
                keep(&mut now.machine_id, &before.machine_id);
                keep(&mut now.host_uuid, &before.host_uuid);
                keep(&mut now.instance_id, &before.instance_id);
                keep(&mut now.root_filesystem, &before.root_filesystem);
                now.id.clone_from(&before.id);
            }
            None => {
                let half = |salt: u8| {
                    let mut hasher = DefaultHasher::new();
                    (salt, now.parts(), &identity.boot_id).hash(&mut hasher);
                    hasher.finish()
                };
                now.id = format!("{:016x}{:016x}", half(0), half(1));
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use mayfly_history::identity::Cloud;

    use super::*;

    fn identity(machine_id: &str, host_uuid: &str, instance_id: &str, boot_id: &str) -> Identity {
        let text = |text: &str| text.to_owned();
        Identity {
            machine_id: text(machine_id),
            host_uuid: text(host_uuid),
            boot_id: text(boot_id),
            cloud: Cloud { instance_id: text(instance_id), ..Cloud::default() },
            ..Identity::default()
        }
    }

    #[test]
    fn lasts_over_reboots_and_begins_anew_in_a_clone() {
        let first = Incarnation::after(None, &identity("m", "u", "i-1", "b1"), "fs");
        assert_eq!(first.id.len(), 32);
        let id = |identity: &Identity, root: &str| Incarnation::after(Some(&first), identity, root).id;
        assert_eq!(id(&identity("m", "u", "i-1", "b2"), "fs"), first.id, "a reboot");
        assert_eq!(id(&identity("m", "u", "", "b2"), ""), first.id, "a service that does not answer");
        for (clone, root) in [
            (identity("m", "u", "i-2", "b2"), "fs"),
            (identity("m", "u2", "", "b2"), "fs"),
            (identity("m2", "u", "i-1", "b2"), "fs"),
            (identity("m", "u", "i-1", "b2"), "fs2"),
        ] {
            assert_ne!(id(&clone, root), first.id, "{clone:?}");
        }
        let siblings = ["b2", "b3"].map(|boot| id(&identity("m", "u", "i-2", boot), "fs"));
        assert_ne!(siblings[0], siblings[1], "two that know themselves by their boot alone");
    }

    #[test]
    fn what_was_not_told_once_is_not_forgotten() {
        let first = Incarnation::after(None, &identity("m", "u", "i-1", "b1"), "fs");
        let silent = Incarnation::after(Some(&first), &identity("m", "u", "", "b2"), "fs");
        assert_eq!(silent, first);
    }
}
