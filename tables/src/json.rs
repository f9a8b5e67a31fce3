//! JSON columns: compact, keys sorted, and always JSON, so that `json_each` works on every row.

use std::{borrow::Cow, collections::BTreeMap};

/// An object; `{}` where nothing is known.
pub(crate) fn object(map: &BTreeMap<String, String>) -> Cow<'static, str> {
    if map.is_empty() {
        return Cow::Borrowed("{}");
    }
    serde_json::to_string(map).map_or(Cow::Borrowed("{}"), Cow::Owned)
}

/// An array in the order given; `[]` where nothing is known.
pub(crate) fn array(list: &[String]) -> Cow<'static, str> {
    if list.is_empty() {
        return Cow::Borrowed("[]");
    }
    serde_json::to_string(list).map_or(Cow::Borrowed("[]"), Cow::Owned)
}
