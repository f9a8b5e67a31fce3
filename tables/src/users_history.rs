//! `users_history`.

use mayfly_history::{HistoryTable, account::User, bigint, text};

use crate::{account::signed, history::History, who};

pub(crate) static TABLE: History<User> = History::pushed(&USERS_HISTORY);

/// The users, past and present.
pub static USERS_HISTORY: HistoryTable<User> = HistoryTable {
    name: "users_history",
    doc: "The users of the host and of containers, past and present. Of a container, ids are what the host's kernel sees, as in its processes' events. Users whom only the name service knows (`evidence = nss`: SSSD, systemd) are here from the first process that showed them.",
    columns: &[
        bigint("uid", |u: &User| u.uid, "User id, as the host's kernel sees it; NULL in a container whose user namespace does not map it.")
            .index(),
        bigint("gid", |u| u.gid, "Id of the user's primary group, seen likewise."),
        bigint("uid_signed", |u| signed(u.uid), "The user id as 32 signed bits."),
        bigint("gid_signed", |u| signed(u.gid), "The group id as 32 signed bits."),
        text("username", |u| Some(u.name.as_str().into()), "Name of the user."),
        text("description", |u| Some(u.description.as_str().into()), "The user's GECOS field."),
        text("directory", |u| Some(u.directory.as_str().into()), "The user's home directory."),
        text("shell", |u| Some(u.shell.as_str().into()), "The user's shell."),
        text("uuid", |_| None, "Empty: users have none on Linux."),
        who::container_id().plain(),
        who::container_name(),
        who::image(),
        who::pod_name(),
        who::pod_namespace(),
        who::runtime_namespace(),
        who::endpoint(),
    ],
    witnesses: &["accounts"],
    examples: &[
        (
            "Who had this uid at that time, on the host and in each container.",
            "SELECT username, shell, container_name, complete FROM users_history WHERE uid = 1000 AND as_of = '2025-01-31T10:00:00Z';",
        ),
        (
            "Processes with the name that their user had then, also in containers.",
            "SELECT e.time, e.path, u.username FROM container_process_events e\n\
             LEFT JOIN users_history u ON u.uid = e.uid AND u.container_id = e.container_id AND u.as_of = e.time_ns;",
        ),
    ],
};
