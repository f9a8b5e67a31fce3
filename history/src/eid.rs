//! The name of one stored event, ordered as the events are.

use std::{fmt, str::FromStr};

/// Event id: the generation of the store (the UNIX second it was begun) and a sequence number within it.
///
/// As text it is 20 digits, so that the order of the text is the order of the events, also after a corrupt file was set
/// aside and numbering began anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Eid {
    /// UNIX second at which the generation began; at most 10 digits.
    pub generation: u32,
    /// Counts from 1 within the store's file; at most 10 digits.
    pub sequence: u64,
}

impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}{:010}", self.generation, self.sequence)
    }
}

/// The text was not 20 decimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not an event id (20 digits): {0:?}")]
pub struct NotAnEid(pub String);

impl FromStr for Eid {
    type Err = NotAnEid;

    fn from_str(text: &str) -> Result<Self, NotAnEid> {
        let refuse = || NotAnEid(text.chars().take(40).collect());
        if text.len() != 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse());
        }
        let (generation, sequence) = text.split_at(10);
        Ok(Self { generation: generation.parse().map_err(|_| refuse())?, sequence: sequence.parse().map_err(|_| refuse())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_order_is_event_order_and_round_trips() {
        let older = Eid { generation: 1_700_000_000, sequence: 9 };
        let newer = Eid { generation: 1_700_000_001, sequence: 1 };
        assert!(older < newer && older.to_string() < newer.to_string());
        assert_eq!(older.to_string().parse::<Eid>().unwrap(), older);
        assert!("1700000000000000000x".parse::<Eid>().is_err());
        assert!("99999999990000000001".parse::<Eid>().is_err(), "a generation past u32 is refused, not wrapped");
    }
}
