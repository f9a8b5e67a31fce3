//! What the name service can be asked for by its id: a user, or a group.

use mayfly_history::{
    Fact,
    account::{Group, User},
    recorder::{Handle, SeenIds},
};

use super::{book::Book, files};

/// A user or a group, as the name service knows them.
pub(crate) trait Asked: Fact {
    /// What their ids are called.
    const ID: &'static str;
    /// What `getent` calls the list of them.
    const DATABASE: &'static str;
    /// Longest answer that is read: one line.
    const LONGEST: usize;

    /// Whom the program's answer tells of.
    fn parse(answer: &[u8]) -> Option<Self>;

    /// One of whom nothing is known, but that no file names it.
    fn stranger() -> Self;

    fn id(&self) -> Option<i64>;

    /// Whether a file names somebody of that id.
    fn is_named(book: &Book, id: u32) -> bool;

    /// Whether a file names this very one.
    fn is_in(&self, book: &Book) -> bool;

    /// The ids that records name.
    fn seen(recorder: &Handle) -> &SeenIds;
}

impl Asked for User {
    const ID: &'static str = "uid";
    const DATABASE: &'static str = "passwd";
    const LONGEST: usize = 16 << 10;

    fn parse(answer: &[u8]) -> Option<Self> {
        let (name, line) = files::passwd(answer, 1).entries.pop_first()?;
        Some(Self {
            uid: Some(line.uid.into()),
            gid: Some(line.gid.into()),
            name,
            description: line.description,
            directory: line.directory,
            shell: line.shell,
            ..Self::stranger()
        })
    }

    fn stranger() -> Self {
        Self { by_name_service: true, ..Self::default() }
    }

    fn id(&self) -> Option<i64> {
        self.uid
    }

    fn is_named(book: &Book, id: u32) -> bool {
        book.users.values().any(|user| user.uid == Some(id.into()))
    }

    fn is_in(&self, book: &Book) -> bool {
        book.users.get(&self.name).is_some_and(|of_file| of_file.uid == self.uid)
    }

    fn seen(recorder: &Handle) -> &SeenIds {
        recorder.seen_users()
    }
}

/// Its line names all members, which may be many.
impl Asked for Group {
    const ID: &'static str = "gid";
    const DATABASE: &'static str = "group";
    const LONGEST: usize = 64 << 10;

    fn parse(answer: &[u8]) -> Option<Self> {
        let (name, line) = files::group(answer, 1).entries.pop_first()?;
        Some(Self { gid: Some(line.gid.into()), name, members: line.members, ..Self::stranger() })
    }

    fn stranger() -> Self {
        Self { by_name_service: true, ..Self::default() }
    }

    fn id(&self) -> Option<i64> {
        self.gid
    }

    fn is_named(book: &Book, id: u32) -> bool {
        book.groups.values().any(|group| group.gid == Some(id.into()))
    }

    fn is_in(&self, book: &Book) -> bool {
        book.groups.get(&self.name).is_some_and(|of_file| of_file.gid == self.gid)
    }

    fn seen(recorder: &Handle) -> &SeenIds {
        recorder.seen_groups()
    }
}
