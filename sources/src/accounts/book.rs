//! The accounts of one root, and what differs between two looks at them.

use std::{collections::BTreeMap, mem};

use mayfly_history::{
    Nanos,
    account::{AccountAction, AccountEvent, Group, User},
    container::ContainerKey,
};
use serde_json::Value;

use super::{
    files::{GroupLine, Lines, PasswdLine},
    id_map::IdMap,
};

/// Users and groups by name, and when each password was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) users: BTreeMap<String, User>,
    pub(crate) groups: BTreeMap<String, Group>,
    /// Days since 1970, from shadow.
    pub(crate) passwords: BTreeMap<String, Option<i64>>,
}

/// Whose accounts they are, and what their ids are to the host.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) container: ContainerKey,
    pub(crate) uids: IdMap,
    pub(crate) gids: IdMap,
}

impl Owner {
    pub(crate) fn host() -> Self {
        Self { container: ContainerKey::default(), uids: IdMap::identity(), gids: IdMap::identity() }
    }

    pub(crate) fn users(&self, lines: Lines<PasswdLine>) -> BTreeMap<String, User> {
        let user = |(name, line): (String, PasswdLine)| {
            let user = User {
                uid: self.uids.outside(line.uid),
                gid: self.gids.outside(line.gid),
                name: name.clone(),
                description: line.description,
                directory: line.directory,
                shell: line.shell,
                container: self.container.clone(),
                by_name_service: false,
            };
            (name, user)
        };
        lines.entries.into_iter().map(user).collect()
    }

    pub(crate) fn groups(&self, lines: Lines<GroupLine>) -> BTreeMap<String, Group> {
        let group = |(name, line): (String, GroupLine)| {
            let group = Group {
                gid: self.gids.outside(line.gid),
                name: name.clone(),
                members: line.members,
                container: self.container.clone(),
                by_name_service: false,
            };
            (name, group)
        };
        lines.entries.into_iter().map(group).collect()
    }
}

/// One name, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn<T> {
    pub(crate) before: Option<T>,
    pub(crate) after: Option<T>,
}

/// The names that differ, in order.
pub(crate) fn turns<T: Clone + PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<Turn<T>> {
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, old)| Turn { before: Some(old.clone()), after: None });
    let here = after.iter().filter(|(name, new)| before.get(*name) != Some(new));
    let here = here.map(|(name, new)| Turn { before: before.get(name).cloned(), after: Some(new.clone()) });
    // Who left goes first: their id may be somebody else's at once.
    gone.chain(here).collect()
}

/// Fields that differ.
type Changed = BTreeMap<&'static str, (Value, Value)>;

fn differing<const N: usize>(fields: [(&'static str, Value, Value); N]) -> Changed {
    fields.into_iter().filter(|(_, old, new)| old != new).map(|(name, old, new)| (name, (old, new))).collect()
}

/// The event that tells a turn of a user.
pub(crate) fn user_event(turn: &Turn<User>, time_ns: Nanos) -> Option<AccountEvent> {
    let (action, changed) = match (&turn.before, &turn.after) {
        (None, Some(_)) => (AccountAction::UserAdded, Changed::new()),
        (Some(_), None) => (AccountAction::UserRemoved, Changed::new()),
        (Some(old), Some(new)) => {
            let text = |text: &str| Value::from(text);
            let changed = differing([
                ("uid", old.uid.into(), new.uid.into()),
                ("gid", old.gid.into(), new.gid.into()),
                ("description", text(&old.description), text(&new.description)),
                ("directory", text(&old.directory), text(&new.directory)),
                ("shell", text(&old.shell), text(&new.shell)),
            ]);
            (AccountAction::UserChanged, changed)
        }
        (None, None) => return None,
    };
    let user = turn.after.as_ref().or(turn.before.as_ref())?;
    Some(AccountEvent {
        time_ns,
        action,
        uid: user.uid,
        gid: user.gid,
        username: user.name.clone(),
        groupname: String::new(),
        changed,
        container: user.container.clone(),
    })
}

/// The event that tells a turn of a group.
pub(crate) fn group_event(turn: &Turn<Group>, time_ns: Nanos) -> Option<AccountEvent> {
    let (action, changed) = match (&turn.before, &turn.after) {
        (None, Some(_)) => (AccountAction::GroupAdded, Changed::new()),
        (Some(_), None) => (AccountAction::GroupRemoved, Changed::new()),
        (Some(old), Some(new)) => {
            let changed =
                differing([("gid", old.gid.into(), new.gid.into()), ("members", old.members.clone().into(), new.members.clone().into())]);
            (AccountAction::GroupChanged, changed)
        }
        (None, None) => return None,
    };
    let group = turn.after.as_ref().or(turn.before.as_ref())?;
    Some(AccountEvent {
        time_ns,
        action,
        uid: None,
        gid: group.gid,
        username: String::new(),
        groupname: group.name.clone(),
        changed,
        container: group.container.clone(),
    })
}

/// The events of users whose password was set since the last look. Shadow names a day, so that a second change on one day is no difference.
pub(crate) fn password_events(book: &Book, after: &BTreeMap<String, Option<i64>>, time_ns: Nanos) -> Vec<AccountEvent> {
    let changed = after.iter().filter_map(|(name, new)| {
        let old = book.passwords.get(name).filter(|old| *old != new)?;
        let user = book.users.get(name)?;
        let mut event = user_event(&Turn { before: Some(user.clone()), after: Some(user.clone()) }, time_ns)?;
        event.changed.insert("password_changed_day", ((*old).into(), (*new).into()));
        Some(event)
    });
    changed.collect()
}

impl Book {
    /// Puts another look at the users in place of the last; what differs.
    pub(crate) fn turn_users(&mut self, users: BTreeMap<String, User>) -> Vec<Turn<User>> {
        let before = mem::replace(&mut self.users, users);
        turns(&before, &self.users)
    }

    /// The same for the groups.
    pub(crate) fn turn_groups(&mut self, groups: BTreeMap<String, Group>) -> Vec<Turn<Group>> {
        let before = mem::replace(&mut self.groups, groups);
        turns(&before, &self.groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::files;

    fn users(text: &str) -> BTreeMap<String, User> {
        Owner::host().users(files::passwd(text.as_bytes(), 100))
    }

    #[test]
    fn tells_who_left_before_who_came_and_what_changed() {
        let mut book = Book { users: users("a:x:1:1::/:\nb:x:2:2::/:/bin/sh\n"), ..Book::default() };
        let events: Vec<_> =
            book.turn_users(users("b:x:2:3::/:/bin/bash\nc:x:1:1::/:\n")).iter().filter_map(|turn| user_event(turn, 7)).collect();
        let told: Vec<_> = events.iter().map(|e| (e.action.as_str(), e.username.as_str(), e.uid, e.changed_json())).collect();
        let changed = r#"{"gid":{"new":3,"old":2},"shell":{"new":"/bin/bash","old":"/bin/sh"}}"#.to_owned();
        assert_eq!(
            told,
            [("user_removed", "a", Some(1), None), ("user_changed", "b", Some(2), Some(changed)), ("user_added", "c", Some(1), None)]
        );
        assert!(book.turn_users(users("c:x:1:1::/:\nb:x:2:3::/:/bin/bash\n")).is_empty(), "the order of lines is no change");
    }

    #[test]
    fn tells_of_members() {
        let groups = |text: &str| Owner::host().groups(files::group(text.as_bytes(), 100));
        let mut book = Book { groups: groups("w:x:10:a\n"), ..Book::default() };
        let turns = book.turn_groups(groups("w:x:10:b,a\n"));
        let event = group_event(&turns[0], 7).unwrap();
        assert_eq!(
            (event.action, event.changed_json().unwrap().as_str()),
            (AccountAction::GroupChanged, r#"{"members":{"new":["a","b"],"old":["a"]}}"#)
        );
    }

    #[test]
    fn a_password_that_is_set_changes_its_user() {
        let book = Book { users: users("a:x:1:1:::\n"), passwords: [("a".into(), Some(1)), ("b".into(), None)].into(), ..Book::default() };
        let events = password_events(&book, &[("a".into(), Some(2)), ("b".into(), Some(3)), ("new".into(), Some(3))].into(), 7);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].changed_json().unwrap(), r#"{"password_changed_day":{"new":2,"old":1}}"#);
    }

    #[test]
    fn a_containers_ids_are_told_as_the_hosts_kernel_sees_them() {
        let map = IdMap::parse("0 100000 1000").unwrap();
        let key = ContainerKey { container_id: "c".into(), ..ContainerKey::default() };
        let owner = Owner { container: key.clone(), uids: map.clone(), gids: map };
        let users = owner.users(files::passwd(b"root:x:0:0:::\nnobody:x:65534:7:::\n", 10));
        assert_eq!((users["root"].uid, users["nobody"].uid, users["nobody"].gid), (Some(100_000), None, Some(100_007)));
        assert_eq!(users["root"].container, key);
    }
}
