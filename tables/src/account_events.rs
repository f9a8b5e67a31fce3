//! `account_events`.

use mayfly_history::{EventTable, account::AccountEvent, bigint, text};

use crate::{events::Events, who};

pub(crate) static TABLE: Events<AccountEvent> = Events::pushed(&ACCOUNT_EVENTS);

/// What happened to users and groups.
pub static ACCOUNT_EVENTS: EventTable<AccountEvent> = EventTable {
    name: "account_events",
    doc: "What happened to users and groups, on the host and in containers that run: who was added, removed, changed.",
    columns: &[
        text(
            "action",
            |e| Some(e.action.as_str().into()),
            "`user_added`, `user_removed`, `user_changed`, `group_added`, `group_removed` or `group_changed`.",
        ),
        bigint("uid", |e| e.uid, "User id, as the host's kernel sees it; NULL for groups, and where no id of the host stands for it."),
        bigint("gid", |e| e.gid, "Id of the group; of a user, that of the primary group; seen likewise."),
        text("username", |e| Some(e.username.as_str().into()), "Name of the user; empty for groups."),
        text("groupname", |e| Some(e.groupname.as_str().into()), "Name of the group; empty for users."),
        text(
            "changed",
            |e| e.changed_json().map(Into::into),
            "JSON object of the fields that differ, each with its `new` and `old` value; a password shows as the day it was set, in days since 1970.",
        ),
        who::container_id(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    examples: &[
        (
            "Accounts that came and went today.",
            "SELECT datetime(time, 'unixepoch') AS at, action, username, uid, container_name FROM account_events\n\
             WHERE time > unixepoch('now', 'start of day');",
        ),
        (
            "Who became a member of a group that may do everything.",
            "SELECT time, groupname, json_extract(changed, '$.members.new') AS members FROM account_events\n\
             WHERE action = 'group_changed' AND groupname IN ('root', 'sudo', 'wheel', 'docker');",
        ),
    ],
};
