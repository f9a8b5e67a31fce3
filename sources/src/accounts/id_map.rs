//! What ids of a user namespace are to the host: `/proc/PID/uid_map` and `gid_map`.

/// A map of ids. Seen from the host, its lower ids are the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdMap {
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    length: u32,
}

impl IdMap {
    /// From lines `INSIDE OUTSIDE LENGTH`; `None` where a line is something else. The kernel writes at most 340.
    pub(crate) fn parse(lines: &str) -> Option<Self> {
        let range = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(|n| n.parse::<u32>().ok());
            let range = Range { inside: numbers.next()??, outside: numbers.next()??, length: numbers.next()?? };
            numbers.next().is_none().then_some(range)
        };
        lines.lines().take(340).map(range).collect::<Option<_>>().map(|ranges| Self { ranges })
    }

    /// The host's id of one inside; `None` where the namespace does not map it.
    pub(crate) fn outside(&self, inside: u32) -> Option<i64> {
        self.ranges.iter().find_map(|range| {
            let offset = inside.checked_sub(range.inside).filter(|offset| *offset < range.length)?;
            Some(i64::from(range.outside) + i64::from(offset))
        })
    }

    /// The map of the host's own namespace.
    pub(crate) fn identity() -> Self {
        Self { ranges: vec![Range { inside: 0, outside: 0, length: u32::MAX }] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_what_the_namespace_maps_and_nothing_else() {
        let map = IdMap::parse("         0     100000      65536\n     70000       1000          1\n").unwrap();
        let found = [0, 65_535, 65_536, 69_999, 70_000, 70_001, u32::MAX].map(|id| map.outside(id));
        assert_eq!(found, [Some(100_000), Some(165_535), None, None, Some(1000), None, None]);
        assert_eq!(IdMap::parse("         0          0 4294967295\n"), Some(IdMap::identity()));
        assert_eq!(IdMap::identity().outside(1000), Some(1000));
        assert_eq!(IdMap::parse("").unwrap().outside(0), None, "a namespace that has no map yet");
        for bad in ["0 0", "a 0 1", "0 0 1 1", "0 0 4294967296"] {
            assert_eq!(IdMap::parse(bad), None, "{bad}");
        }
    }
}
