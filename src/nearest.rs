//! Suggests the name a user probably meant.

/// Longer names are never typos of a known name.
const LONGEST: usize = 256;

/// Levenshtein distance in bytes: the fewest insertions, deletions and substitutions.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The name in `known` with the least Levenshtein distance to `wanted`; the first one on ties.
pub(crate) fn nearest<'a>(
    wanted: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if wanted.len() > LONGEST {
        return None;
    }
    known
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .min_by_key(|name| distance(wanted.as_bytes(), name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(distance(b"kitten", b"sitting"), 3);
        assert_eq!(distance(b"", b"abc"), 3);
        assert_eq!(distance(b"head", b"head"), 0);
    }

    #[test]
    fn finds_the_closest_name() {
        assert_eq!(nearest("haed", ["embed", "norm", "head"]), Some("head"));
        assert_eq!(nearest("x", []), None);
    }
}
