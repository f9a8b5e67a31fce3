//! The `consumer` column of event tables: who reads, and what it has seen.

use mayfly_history::Eid;

/// What a query says with `consumer = '…'`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader<'a> {
    /// `'*'`: everything, without a cursor.
    Everything,
    /// `'NAME'`: what NAME has not acknowledged. `'NAME@EID'`: the same, after it acknowledges EID.
    Named { name: &'a str, acknowledges: Option<Eid> },
}

/// Bytes of a consumer's name, at most.
const LONGEST_NAME: usize = 128;

/// Reads the column's value; an error is the sentence that is shown to who asked.
pub(super) fn parse(value: &str) -> Result<Reader<'_>, String> {
    if value == "*" {
        return Ok(Reader::Everything);
    }
    let (name, acknowledges) = match value.rsplit_once('@') {
        None => (value, None),
        Some((name, eid)) => (name, Some(eid.parse().map_err(|error| format!("consumer = 'NAME@EID': {error}"))?)),
    };
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(['@', '*']) {
        return Err(format!("consumer must be '*', 'NAME' or 'NAME@EID', with a NAME of 1 to {LONGEST_NAME} bytes without '@' and '*'"));
    }
    Ok(Reader::Named { name, acknowledges })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_three_forms_and_refuses_the_rest() {
        assert_eq!(parse("*"), Ok(Reader::Everything));
        assert_eq!(parse("siem"), Ok(Reader::Named { name: "siem", acknowledges: None }));
        let eid = Eid { generation: 1_700_000_000, sequence: 9 };
        assert_eq!(parse(&format!("siem@{eid}")), Ok(Reader::Named { name: "siem", acknowledges: Some(eid) }));
        for wrong in ["", "@", "siem@", "siem@7", "a@b@c", "**", &"n".repeat(129)] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
