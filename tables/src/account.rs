//! Columns that the tables of accounts share.

use mayfly_history::account::{AccountEvent, Group, User};
use mayfly_history::container::ContainerKey;

use crate::who::OfWhom;

impl OfWhom for User {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

impl OfWhom for Group {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

impl OfWhom for AccountEvent {
    fn whose(&self) -> &ContainerKey {
        &self.container
    }
}

/// What core shows beside an id: its 32 bits, signed.
pub(crate) fn signed(id: Option<i64>) -> Option<i64> {
    let id = u32::try_from(id?).ok()?;
    Some(id.cast_signed().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_past_half_of_them_is_negative() {
        let ids = [Some(0), Some(1000), Some(4_294_967_294), None].map(signed);
        assert_eq!(ids, [Some(0), Some(1000), Some(-2), None]);
    }
}
