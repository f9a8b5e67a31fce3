//! Which tables are served: our own, and the histories of those of osquery's that can be followed.

use std::collections::BTreeSet;

use mayfly_history::chain;
use mayfly_tables::{FollowError, Followed, Table};

use super::ServeOptions;
use crate::{
    line::Refusal,
    manager::{Manager, ManagerError},
    sql::captured,
};

/// The tables that are to be followed, as far as they can be.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) followed: Vec<&'static Followed>,
    /// Those that cannot, each with the reason.
    pub(super) refused: Vec<(String, Refusal)>,
}

/// Why a table is not followed, or not known to be fit for it.
enum Declined {
    Table(Refusal),
    Manager(ManagerError),
}

impl Choice {
    /// The tables that can be followed now, as osquery describes them, and those that cannot, with the reason.
    pub(super) fn of(options: &ServeOptions, manager: &Manager, there: &BTreeSet<String>) -> Result<Self, ManagerError> {
        let mut choice = Self::default();
        for name in &options.follow {
            match follow(options, manager, there, name) {
                Ok(table) => choice.followed.push(table),
                Err(Declined::Table(why)) => choice.refused.push((name.clone(), why)),
                Err(Declined::Manager(ManagerError::Refused { message, .. })) => {
                    choice.refused.push((name.clone(), Refusal::Unfit(format!("osquery does not describe it: {message}"))));
                }
                Err(Declined::Manager(error)) => return Err(error),
            }
        }
        Ok(choice)
    }

    /// Whether the same tables are followed.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.followed.len() == other.followed.len() && self.followed.iter().zip(&other.followed).all(|(a, b)| std::ptr::eq(*a, *b))
    }
}

fn follow(options: &ServeOptions, manager: &Manager, there: &BTreeSet<String>, name: &str) -> Result<&'static Followed, Declined> {
    if options.tables.iter().any(|own| own.schema().name == name) {
        return Err(Declined::Table(Refusal::Unfit("it is a table of Mayfly's own".into())));
    }
    if !there.contains(name) {
        return Err(Declined::Table(Refusal::Absent));
    }
    let core = manager.describe(name).map_err(Declined::Manager)?;
    Followed::of(&core).map_err(|error| {
        Declined::Table(match error {
            FollowError::Native { history } => Refusal::Native { history },
            other => Refusal::Unfit(chain(&other)),
        })
    })
}

/// The tables that we serve. One whose name is taken would refuse us all: those are left out.
pub(super) fn free_tables(options: &ServeOptions, taken: &BTreeSet<String>, followed: &[&'static Followed]) -> Vec<&'static dyn Table> {
    let mut all: Vec<&'static dyn Table> = options.tables.to_vec();
    // What was captured of tables that are gone is still there to be asked.
    for &table in followed.iter().chain(&captured(&options.state_dir)) {
        if all.iter().all(|other| other.schema().name != table.schema().name) {
            all.push(table);
        }
    }
    let (free, clashing): (Vec<&'static dyn Table>, Vec<_>) = all.into_iter().partition(|table| !taken.contains(table.schema().name));
    if !clashing.is_empty() {
        let names: Vec<_> = clashing.iter().map(|table| table.schema().name).collect();
        let names = names.join(", ");
        tracing::error!(tables = names, "osquery has tables of these names already; left ours out");
        options.feed.complain(format!("left out, since osquery has tables of these names already: {names}"));
    }
    free
}
