//! The mounts of a namespace as they are known, and what follows from a notice of the kernel or from another look at the table.

use std::collections::{BTreeMap, BTreeSet};

use mayfly_history::{
    Nanos,
    mounted::{MountChange, Mounter},
};

use super::{fanotify::Attachment, mountinfo::Line};

/// Mounts that were gone before they could be looked at, and of whose end no notice came.
const MOST_MISSED: usize = 1024;

/// What a notice told, and what could be learnt of it at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) at_ns: Nanos,
    pub(crate) unique: u64,
    pub(crate) became: Attachment,
    /// `None`: it is in the namespace no more.
    pub(crate) line: Option<Line>,
    pub(crate) by: Option<Mounter>,
}

/// One mount, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) at_ns: Nanos,
    pub(crate) change: MountChange,
    /// After it; of an unmount, before it. `None`: it was gone before anybody could look.
    pub(crate) line: Option<Line>,
    pub(crate) by: Option<Mounter>,
}

#[derive(Clone, Debug)]
struct Known {
    line: Line,
    /// The number that no other mount gets; the one in the line comes back. `None`: no notice told of it.
    unique: Option<u64>,
}

/// All mounts, by the number that the table has.
#[derive(Debug, Default)]
pub(crate) struct Book {
    mounts: BTreeMap<i64, Known>,
    missed: BTreeSet<u64>,
}

impl Book {
    pub(crate) fn lines(&self) -> impl Iterator<Item = &Line> {
        self.mounts.values().map(|known| &known.line)
    }

    /// Takes the table as it is, of which nothing is to be told.
    pub(crate) fn set(&mut self, table: BTreeMap<i64, Line>) {
        let old = std::mem::take(&mut self.mounts);
        let unique = |line: &Line| old.get(&line.id).filter(|known| is_same(&known.line, line))?.unique;
        self.mounts = table.into_iter().map(|(id, line)| (id, Known { unique: unique(&line), line })).collect();
    }

    /// Takes the table as it is, but not what it shows of these mounts.
    pub(crate) fn set_but<'i>(&mut self, mut table: BTreeMap<i64, Line>, doubted: impl Iterator<Item = &'i i64>) {
        for id in doubted {
            match self.mounts.get(id) {
                Some(known) => table.insert(*id, known.line.clone()),
                None => table.remove(id),
            };
        }
        self.set(table);
    }

    /// Takes which number of the table belongs to which that no other mount gets.
    pub(crate) fn name(&mut self, numbers: &[(i64, u64)]) {
        for (id, unique) in numbers {
            if let Some(known) = self.mounts.get_mut(id) {
                known.unique.get_or_insert(*unique);
            }
        }
    }

    /// What follows from a notice. `most`: mounts that the book may hold.
    pub(crate) fn hear(&mut self, notice: Notice, most: usize) -> Vec<Turn> {
        let Notice { at_ns, unique, became, line, by } = notice;
        let turn = |change, line: Option<Line>, by| Turn { at_ns, change, line, by };
        let known = self.mounts.iter().find(|(_, known)| known.unique == Some(unique)).map(|(id, _)| *id);
        match (became, line, known) {
            (Attachment::Detached, _, Some(id)) => {
                let gone = self.mounts.remove(&id).map(|known| known.line);
                vec![turn(MountChange::Unmount, gone, by)]
            }
            (Attachment::Detached, _, None) if self.missed.remove(&unique) => vec![turn(MountChange::Unmount, None, by)],
            (Attachment::Attached, None, None) => {
                if self.missed.len() >= MOST_MISSED {
                    self.missed.pop_first();
                }
                self.missed.insert(unique);
                vec![turn(MountChange::Mount, None, by)]
            }
            (Attachment::Moved, Some(line), Some(id)) => {
                let is_moved = self.mounts.get(&id).is_some_and(|known| known.line.path != line.path);
                self.mounts.insert(id, Known { line: line.clone(), unique: Some(unique) });
                if is_moved { vec![turn(MountChange::Move, Some(line), by)] } else { Vec::new() }
            }
            (Attachment::Attached, Some(line), None) => self.attach(line, unique, most).map_or_else(Vec::new, |(line, before)| {
                let unmount = before.map(|before| turn(MountChange::Unmount, Some(before), None));
                unmount.into_iter().chain([turn(MountChange::Mount, Some(line), by)]).collect()
            }),
            // Known from the table already, or for the table to tell.
            _ => Vec::new(),
        }
    }

    /// The mount, if it is news, and the one that had its number before and whose end nobody told.
    fn attach(&mut self, line: Line, unique: u64, most: usize) -> Option<(Line, Option<Line>)> {
        let before = self.mounts.get_mut(&line.id);
        if let Some(told) = before.filter(|known| known.unique.is_none() && is_same(&known.line, &line)) {
            told.unique = Some(unique);
            return None;
        }
        if self.mounts.len() >= most && !self.mounts.contains_key(&line.id) {
            return None;
        }
        let before = self.mounts.insert(line.id, Known { line: line.clone(), unique: Some(unique) });
        Some((line, before.map(|known| known.line)))
    }

    /// How the table differs: unmounts first, the uppermost before what it lay on.
    pub(crate) fn compare(&self, table: &BTreeMap<i64, Line>, at_ns: Nanos) -> Vec<Turn> {
        let turn = |change, line: &Line| Turn { at_ns, change, line: Some(line.clone()), by: None };
        let stays = |old: &Line| table.get(&old.id).is_some_and(|new| is_same(old, new));
        let gone = self.mounts.values().rev().map(|known| &known.line).filter(|old| !stays(old));
        let mut turns: Vec<_> = gone.map(|old| turn(MountChange::Unmount, old)).collect();
        for (id, new) in table {
            let change = match self.mounts.get(id).map(|known| &known.line).filter(|old| is_same(old, new)) {
                None => MountChange::Mount,
                Some(old) if old.path != new.path => MountChange::Move,
                Some(old) if old.flags != new.flags => MountChange::Remount,
                Some(_) => continue,
            };
            turns.push(turn(change, new));
        }
        turns
    }
}

/// Whether it is one mount still: its number may have come back.
fn is_same(old: &Line, new: &Line) -> bool {
    (&old.number, &old.root, &old.fs_type, &old.device) == (&new.number, &new.root, &new.fs_type, &new.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::mountinfo::parse;

    fn book(table: &str) -> Book {
        let mut book = Book::default();
        book.set(parse(table, 100).0);
        book
    }

    fn told(turns: Vec<Turn>) -> Vec<(&'static str, String, Option<i64>)> {
        let path = |turn: &Turn| turn.line.as_ref().map_or_else(|| "?".into(), |line| line.path.clone());
        turns.iter().map(|turn| (turn.change.as_str(), path(turn), turn.by.as_ref().map(|by| by.pid))).collect()
    }

    fn notice(became: Attachment, unique: u64, line: &str) -> Notice {
        let by = Some(Mounter { pid: 7, path: "/bin/mount".into(), uid: Some(0) });
        Notice { at_ns: 5, unique, became, line: parse(line, 1).0.into_values().next(), by }
    }

    use Attachment::{Attached, Detached, Moved};

    #[test]
    fn the_table_tells_mounts_moves_remounts_and_unmounts() {
        let before = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /a rw - ext4 /dev/b rw\n3 2 8:3 / /a/b rw - ext4 /dev/c rw\n\
            4 1 8:4 / /c rw - ext4 /dev/d rw\n5 1 8:5 / /d rw - ext4 /dev/e rw\n";
        let after = "1 0 8:1 / / rw - ext4 /dev/a rw\n3 1 8:9 / /new rw - xfs /dev/f rw\n4 1 8:4 / /moved rw - ext4 /dev/d rw\n\
            5 1 8:5 / /d ro - ext4 /dev/e rw\n";
        let compared = |after| told(book(before).compare(&parse(after, 100).0, 1));
        let turn = |change: &'static str, path: &str| (change, path.to_owned(), None);
        let expected =
            [turn("unmount", "/a/b"), turn("unmount", "/a"), turn("mount", "/new"), turn("move", "/moved"), turn("remount", "/d")];
        assert_eq!(compared(after), expected);
        assert!(compared(before).is_empty());
    }

    #[test]
    fn a_mount_that_is_undone_at_once_is_told_with_who_did_it_and_the_table_adds_nothing() {
        let stick = "9 1 8:17 / /media rw - vfat /dev/sdb1 rw";
        let root = "1 0 8:1 / / rw - ext4 /dev/a rw";
        let mut book = book(root);
        let mut heard = Vec::new();
        // The same number, the same place, the same device: three mounts all the same.
        for unique in [100, 101, 102] {
            heard.extend(book.hear(notice(Attached, unique, stick), 100));
            heard.extend(book.hear(notice(Detached, unique, ""), 100));
        }
        let expected = ["mount", "unmount"].repeat(3).into_iter().map(|change| (change, "/media".to_owned(), Some(7)));
        assert_eq!(told(heard), expected.collect::<Vec<_>>());
        assert!(book.compare(&parse(root, 9).0, 6).is_empty());
    }

    #[test]
    fn one_that_nobody_could_look_at_is_told_without_a_name() {
        let mut book = book("");
        let mut heard = book.hear(notice(Attached, 100, ""), 100);
        heard.extend(book.hear(notice(Detached, 100, ""), 100));
        assert_eq!(told(heard), [("mount", "?".into(), Some(7)), ("unmount", "?".into(), Some(7))]);
        assert!(book.hear(notice(Detached, 100, ""), 100).is_empty(), "it is told once");
    }

    #[test]
    fn what_the_table_told_first_is_not_told_again() {
        let table = "9 1 8:17 / /media rw - vfat /dev/sdb1 rw\n";
        let mut book = book(table);
        assert!(book.hear(notice(Attached, 100, table), 100).is_empty());
        assert_eq!(told(book.hear(notice(Detached, 100, ""), 100)), [("unmount", "/media".into(), Some(7))]);
    }

    #[test]
    fn mounts_that_were_there_are_known_by_the_number_that_no_other_gets() {
        let mut book = book("9 1 8:17 / /media rw - vfat /dev/sdb1 rw\n");
        book.name(&[(9, 50), (10, 51)]);
        assert_eq!(told(book.hear(notice(Moved, 50, "9 1 8:17 / /mnt rw - vfat /dev/sdb1 rw"), 100)), [("move", "/mnt".into(), Some(7))]);
        assert!(book.hear(notice(Detached, 51, ""), 100).is_empty(), "another's");
        assert_eq!(told(book.hear(notice(Detached, 50, ""), 100)), [("unmount", "/mnt".into(), Some(7))]);
    }

    #[test]
    fn what_is_doubted_stays_to_be_told() {
        let after = "1 0 8:1 / / ro - ext4 /dev/a rw\n3 1 8:3 / /new rw - ext4 /dev/c rw\n";
        let mut book = book("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /old rw - ext4 /dev/b rw\n");
        book.name(&[(2, 50)]);
        book.set_but(parse(after, 100).0, [2, 3].iter());
        let turn = |change: &'static str, path: &str| (change, path.to_owned(), None);
        assert_eq!(told(book.compare(&parse(after, 100).0, 1)), [turn("unmount", "/old"), turn("mount", "/new")]);
        assert_eq!(told(book.hear(notice(Detached, 50, ""), 100)), [("unmount", "/old".into(), Some(7))]);
    }

    #[test]
    fn a_number_that_came_back_ends_the_mount_that_had_it() {
        let mut book = book("9 1 8:17 / /media rw - vfat /dev/sdb1 rw\n");
        book.name(&[(9, 50)]);
        let heard = book.hear(notice(Attached, 60, "9 1 8:33 / /media rw - vfat /dev/sdc1 rw"), 100);
        assert_eq!(told(heard), [("unmount", "/media".into(), None), ("mount", "/media".into(), Some(7))]);
        assert!(book.hear(notice(Attached, 61, "10 1 8:1 / / rw - ext4 /dev/a rw"), 1).is_empty(), "there is a bound");
    }
}
