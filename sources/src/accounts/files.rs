//! The lines of passwd, group and shadow. A container writes its own: nothing in them is believed beyond its form.

use std::collections::BTreeMap;

/// What a file held, and how many of its lines were none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines<T> {
    /// By name. Of several lines of one name, the first, as `getpwnam` finds it.
    pub(crate) entries: BTreeMap<String, T>,
    /// Lines that the C library does not understand either, and those past the most that are kept.
    pub(crate) rejected: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PasswdLine {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) description: String,
    pub(crate) directory: String,
    pub(crate) shell: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GroupLine {
    pub(crate) gid: u32,
    /// Sorted, each once.
    pub(crate) members: Vec<String>,
}

/// `name:password:uid:gid:gecos:directory:shell`
pub(crate) fn passwd(content: &[u8], most: usize) -> Lines<PasswdLine> {
    lines(content, most, |fields| {
        let [_, uid, gid, description, directory, shell] = fields.try_into().ok()?;
        let text = |field: &str| field.to_owned();
        Some(PasswdLine { uid: id(uid)?, gid: id(gid)?, description: text(description), directory: text(directory), shell: text(shell) })
    })
}

/// `name:password:gid:member,member`
pub(crate) fn group(content: &[u8], most: usize) -> Lines<GroupLine> {
    lines(content, most, |fields| {
        let [_, gid, members] = fields.try_into().ok()?;
        let mut members: Vec<_> = members.split(',').map(str::trim).filter(|m| !m.is_empty()).map(str::to_owned).collect();
        members.sort_unstable();
        members.dedup();
        Some(GroupLine { gid: id(gid)?, members })
    })
}

/// `name:hash:days since 1970 of the last change:…`: that day, and nothing else of the line.
pub(crate) fn shadow(content: &[u8], most: usize) -> Lines<Option<i64>> {
    lines(content, most, |fields| {
        let day = fields.get(1)?;
        if day.is_empty() { Some(None) } else { day.parse().ok().map(Some) }
    })
}

/// Hands each line's fields after the name to `parse`. Comments, blank lines and those that only refer to NIS are none.
fn lines<T>(content: &[u8], most: usize, parse: impl Fn(&[&str]) -> Option<T>) -> Lines<T> {
    let mut lines = Lines { entries: BTreeMap::new(), rejected: 0 };
    for line in content.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '+', '-']) {
            continue;
        }
        let mut fields = line.trim_end_matches('\r').split(':');
        let name = fields.next().unwrap_or_default();
        // The longest line of these files has nine fields.
        let fields: Vec<_> = fields.take(9).collect();
        match parse(&fields).filter(|_| !name.is_empty()) {
            Some(_) if lines.entries.contains_key(name) => {}
            Some(entry) if lines.entries.len() < most => drop(lines.entries.insert(name.to_owned(), entry)),
            _ => lines.rejected += 1,
        }
    }
    lines
}

/// An id in decimal digits; the last one, -1, is none.
fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_users_and_counts_what_is_none() {
        let file = b"root:x:0:0:root:/root:/bin/bash\n# comment\n\n+::::::\njoe:x:1000:100:Joe,,,:/home/joe:\n\
            short:x:1:1\nnegative:x:-1:0:::\nhuge:x:4294967295:0:::\n:x:1:1:::\njoe:x:7:7:::\nmany:x:1:1::::::\n";
        let users = passwd(file, 100);
        assert_eq!(users.entries.keys().collect::<Vec<_>>(), ["joe", "root"]);
        assert_eq!(users.rejected, 5);
        let joe = &users.entries["joe"];
        assert_eq!(
            (joe.uid, joe.gid, joe.description.as_str(), joe.directory.as_str(), joe.shell.as_str()),
            (1000, 100, "Joe,,,", "/home/joe", "")
        );
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let file: String = (0..1000).map(|n| format!("u{n}:x:{n}:{n}:::\n")).collect();
        let users = passwd(file.as_bytes(), 10);
        assert_eq!((users.entries.len(), users.rejected), (10, 990));
    }

    #[test]
    fn sorts_members_so_that_their_order_is_no_change() {
        let groups = group(b"wheel:x:10:joe,ann,,joe\nempty:x:11:\nno:x:\n", 100);
        assert_eq!(groups.entries["wheel"].members, ["ann", "joe"]);
        assert_eq!(groups.entries["empty"], GroupLine { gid: 11, members: vec![] });
        assert_eq!(groups.rejected, 1);
    }

    #[test]
    fn keeps_the_day_of_a_password_and_never_its_hash() {
        let days = shadow(b"root:$6$salt$hash:19000:0:99999:7:::\nnew:!::0:99999:7:::\nbad:x:soon:::::::\n", 100);
        assert_eq!((days.entries["root"], days.entries["new"], days.rejected), (Some(19000), None, 1));
        assert!(!format!("{days:?}").contains("hash"));
    }
}
