//! The name service, asked for users and for groups side by side: neither waits for the other.

use mayfly_history::account::{Group, User};
use tokio::time::Instant;

use super::{
    AccountsConfig,
    book::Book,
    name_service::{Answer, NameService},
};
use crate::supervise::Site;

/// What the name service said so far.
#[derive(Debug)]
pub(crate) struct Names {
    users: NameService<User>,
    groups: NameService<Group>,
}

/// An answer, of whichever kind.
#[derive(Debug)]
pub(crate) enum Answered {
    User(Answer<User>),
    Group(Answer<Group>),
}

impl Names {
    pub(crate) fn new(site: &Site, config: &AccountsConfig) -> Self {
        Self { users: NameService::new(site.clone(), config), groups: NameService::new(site.clone(), config) }
    }

    pub(crate) fn can_be_asked(&self) -> bool {
        self.users.can_be_asked()
    }

    /// Ends what the recorder before this one knew.
    pub(crate) fn begin(&mut self) {
        self.users.begin();
        self.groups.begin();
    }

    /// Takes the ids that records named. `book`: whom the files name.
    pub(crate) fn look(&mut self, book: &Book) {
        self.users.look(book);
        self.groups.look(book);
    }

    /// Asks again for those who were not asked for in a long while.
    pub(crate) fn look_again(&mut self, now: Instant) {
        self.users.look_again(now);
        self.groups.look_again(now);
    }

    /// When [`Self::look_again`] has something to do; `None`: never.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.users.due().into_iter().chain(self.groups.due()).min()
    }

    /// Waits for an answer, for ever where nothing was asked.
    pub(crate) async fn answer(&mut self) -> Answered {
        tokio::select! {
            user = self.users.answer() => Answered::User(user),
            group = self.groups.answer() => Answered::Group(group),
        }
    }

    /// Takes what was answered.
    pub(crate) fn take(&mut self, answered: Answered) {
        match answered {
            Answered::User(user) => self.users.take(user),
            Answered::Group(group) => self.groups.take(group),
        }
    }
}
