//! Where a statement ends.

/// Whether the input is a whole: nothing, a dot command, or SQL up to a `;` that is no part of a text or a comment.
pub(super) fn is_whole(input: &str) -> bool {
    let input = input.trim();
    if input.is_empty() || input.starts_with('.') {
        return true;
    }
    let mut ended = false;
    let mut rest = input;
    while let Some(c) = rest.chars().next() {
        let (skip, close) = match c {
            '\'' | '"' | '`' => (1, &rest[..1]),
            '[' => (1, "]"),
            '-' if rest.starts_with("--") => (2, "\n"),
            '/' if rest.starts_with("/*") => (2, "*/"),
            _ => {
                ended = if c.is_whitespace() { ended } else { c == ';' };
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        // A doubled quote ends one text and begins the next: the sum is the same.
        match rest[skip..].find(close) {
            Some(end) => rest = &rest[skip + end + close.len()..],
            None if close == "\n" => return ended,
            None => return false,
        }
        ended &= skip == 2;
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_at_a_semicolon_outside_of_text_and_comment() {
        for whole in
            ["", " ", ".tables", "SELECT 1;", "SELECT ';' ;", "SELECT 1; -- why", "SELECT 1; /* why */ ", "SELECT 'it''s';", "SELECT [;];"]
        {
            assert!(is_whole(whole), "{whole}");
        }
        for part in
            ["SELECT", "SELECT ';", "SELECT 1 -- ;", "SELECT 1; /* ", "SELECT \";\"", "SELECT 1; SELECT", "SELECT 'it''s", "SELECT '容';'"]
        {
            assert!(!is_whole(part), "{part}");
        }
    }
}
