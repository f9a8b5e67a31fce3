//! `groups_history`.

use mayfly_history::{HistoryTable, account::Group, bigint, text};

use crate::{account::signed, history::History, json, who};

pub(crate) static TABLE: History<Group> = History::pushed(&GROUPS_HISTORY);

/// The groups, past and present.
pub static GROUPS_HISTORY: HistoryTable<Group> = HistoryTable {
    name: "groups_history",
    doc: "The groups of the host and of containers, past and present. Of a container, ids are what the host's kernel sees. Groups that only the name service knows (`evidence = nss`: SSSD, systemd) are here from the first process of the host that showed them.",
    columns: &[
        bigint(
            "gid",
            |g: &Group| g.gid,
            "Group id, as the host's kernel sees it; NULL in a container whose user namespace does not map it.",
        )
        .index(),
        bigint("gid_signed", |g| signed(g.gid), "The group id as 32 signed bits."),
        text("groupname", |g| Some(g.name.as_str().into()), "Name of the group."),
        text(
            "members",
            |g| Some(json::array(&g.members)),
            "JSON array of the members' names, sorted, without those whose primary group it is.",
        ),
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
            "Who could become root by sudo at that time.",
            "SELECT groupname, members, complete FROM groups_history\n\
             WHERE groupname IN ('sudo', 'wheel') AND container_id = '' AND as_of = '2025-01-31T10:00:00Z';",
        ),
        (
            "How the members of a group changed.",
            "SELECT members, valid_from, valid_to, ended_reason FROM groups_history WHERE groupname = 'docker' ORDER BY valid_from;",
        ),
    ],
};
