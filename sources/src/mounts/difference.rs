//! What differs between two looks at the mounts of a namespace.

use std::collections::BTreeMap;

use mayfly_history::mounted::MountChange;

use super::mountinfo::Line;

/// One mount, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) change: MountChange,
    /// After it; of an unmount, before it.
    pub(crate) line: Line,
}

/// What happened, as far as it can be seen: unmounts first, the uppermost before what it lay on.
pub(crate) fn turns(before: &BTreeMap<i64, Line>, after: &BTreeMap<i64, Line>) -> Vec<Turn> {
    let mut turns = Vec::new();
    for (id, old) in before.iter().rev() {
        if after.get(id).is_none_or(|new| !is_same(old, new)) {
            turns.push(Turn { change: MountChange::Unmount, line: old.clone() });
        }
    }
    for (id, new) in after {
        let change = match before.get(id).filter(|old| is_same(old, new)) {
            None => MountChange::Mount,
            Some(old) if old.path != new.path => MountChange::Move,
            Some(old) if old.flags != new.flags => MountChange::Remount,
            Some(_) => continue,
        };
        turns.push(Turn { change, line: new.clone() });
    }
    turns
}

/// Whether it is one mount still: its number may have come back.
fn is_same(old: &Line, new: &Line) -> bool {
    (&old.number, &old.root, &old.fs_type, &old.device) == (&new.number, &new.root, &new.fs_type, &new.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::mountinfo::parse;

    fn told(before: &str, after: &str) -> Vec<(&'static str, String)> {
        let turns = turns(&parse(before, 100).0, &parse(after, 100).0);
        turns.into_iter().map(|turn| (turn.change.as_str(), turn.line.path)).collect()
    }

    #[test]
    fn tells_mounts_moves_remounts_and_unmounts() {
        let before = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /a rw - ext4 /dev/b rw\n3 2 8:3 / /a/b rw - ext4 /dev/c rw\n\
            4 1 8:4 / /c rw - ext4 /dev/d rw\n5 1 8:5 / /d rw - ext4 /dev/e rw\n";
        let after = "1 0 8:1 / / rw - ext4 /dev/a rw\n3 1 8:9 / /new rw - xfs /dev/f rw\n4 1 8:4 / /moved rw - ext4 /dev/d rw\n\
            5 1 8:5 / /d ro - ext4 /dev/e rw\n";
        let path = |text: &str| text.to_owned();
        assert_eq!(
            told(before, after),
            [
                ("unmount", path("/a/b")),
                ("unmount", path("/a")),
                ("mount", path("/new")),
                ("move", path("/moved")),
                ("remount", path("/d"))
            ]
        );
        assert!(told(before, before).is_empty());
    }
}
