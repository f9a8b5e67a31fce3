//! Users and groups: of the host, of containers, and those that only the name service knows.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    container::ContainerKey,
    fact::Fact,
    record::Record,
    sink::{Pushed, hash},
    time::Nanos,
};

/// A user: the record of `users_history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct User {
    /// As the host's kernel sees it. `None`: of a container whose user namespace does not map it, so that no process can have it.
    pub uid: Option<i64>,
    /// The primary group's, seen likewise.
    pub gid: Option<i64>,
    pub name: String,
    /// The GECOS field.
    pub description: String,
    pub directory: String,
    pub shell: String,
    /// Whose passwd file names it; an empty id is the host's.
    pub container: ContainerKey,
    /// From the name service, not from a file: it is in nobody's list.
    pub by_name_service: bool,
}

/// A group: the record of `groups_history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// As the host's kernel sees it; `None` as in [`User::uid`].
    pub gid: Option<i64>,
    pub name: String,
    /// The names that the file lists, sorted; users whose primary group it is are not among them.
    pub members: Vec<String>,
    /// Whose group file names it; an empty id is the host's.
    pub container: ContainerKey,
    /// As in [`User::by_name_service`].
    #[serde(default)]
    pub by_name_service: bool,
}

/// `account_events.action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccountAction {
    UserAdded,
    UserRemoved,
    UserChanged,
    GroupAdded,
    GroupRemoved,
    GroupChanged,
}

impl AccountAction {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserAdded => "user_added",
            Self::UserRemoved => "user_removed",
            Self::UserChanged => "user_changed",
            Self::GroupAdded => "group_added",
            Self::GroupRemoved => "group_removed",
            Self::GroupChanged => "group_changed",
        }
    }
}

/// What happened to a user or a group: the record of `account_events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountEvent {
    pub time_ns: Nanos,
    pub action: AccountAction,
    pub uid: Option<i64>,
    pub gid: Option<i64>,
    pub username: String,
    pub groupname: String,
    /// Of `*_changed`: each field that differs, with its value before and after.
    pub changed: BTreeMap<&'static str, (Value, Value)>,
    pub container: ContainerKey,
}

impl AccountEvent {
    /// `{"shell":{"new":"/bin/sh","old":"/bin/bash"}}`; `None` where nothing changed.
    pub fn changed_json(&self) -> Option<String> {
        let fields = self.changed.iter().map(|(name, (old, new))| ((*name).to_owned(), serde_json::json!({"new": new, "old": old})));
        (!self.changed.is_empty()).then(|| Value::Object(fields.collect()).to_string())
    }
}

/// The list of those that are in no file.
const NAME_SERVICE: Cow<'static, str> = Cow::Borrowed("name service");

/// The list that a container's accounts stand in, or the host's.
fn list_of(container: &ContainerKey) -> Cow<'static, str> {
    if container.container_id.is_empty() {
        return Cow::Borrowed("host");
    }
    Cow::Owned(format!("{} {} {}", container.endpoint, container.runtime_namespace, container.container_id))
}

fn text_of(id: Option<i64>) -> Cow<'static, str> {
    Cow::Owned(id.map(|id| id.to_string()).unwrap_or_default())
}

/// Several names may have one id.
impl Fact for User {
    fn key(&self) -> Cow<'_, str> {
        text_of(self.uid)
    }

    fn scope(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {}", self.name, self.group()))
    }

    fn group(&self) -> Cow<'_, str> {
        if self.by_name_service { NAME_SERVICE } else { list_of(&self.container) }
    }
}

impl Fact for Group {
    fn key(&self) -> Cow<'_, str> {
        text_of(self.gid)
    }

    fn scope(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {}", self.name, self.group()))
    }

    fn group(&self) -> Cow<'_, str> {
        if self.by_name_service { NAME_SERVICE } else { list_of(&self.container) }
    }
}

impl Pushed for AccountEvent {
    fn share(&self) -> u64 {
        hash(&(&self.container, &self.username, &self.groupname))
    }
}

impl Record for AccountEvent {
    fn time_ns(&self) -> Nanos {
        self.time_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_both_values_with_sorted_keys() {
        let changed = [("shell", ("/bin/sh".into(), "/bin/zsh".into())), ("gid", (1.into(), Value::Null))];
        let event = AccountEvent {
            time_ns: 1,
            action: AccountAction::UserChanged,
            uid: Some(1),
            gid: None,
            username: "joe".into(),
            groupname: String::new(),
            changed: changed.into(),
            container: ContainerKey::default(),
        };
        assert_eq!(event.changed_json().unwrap(), r#"{"gid":{"new":null,"old":1},"shell":{"new":"/bin/zsh","old":"/bin/sh"}}"#);
        assert_eq!(AccountEvent { changed: BTreeMap::new(), ..event }.changed_json(), None);
    }
}
