//! Brace ranges and lists in names of files, as shells and webdataset have them: `train-{000..012}.tar`, `{a,b}.tar`.

/// Most names that a pattern may stand for.
const MOST: usize = 1 << 20;

/// The names that a pattern stands for, in order; the pattern itself if it has no range or list. `None` for more than
/// 2²⁰ names.
pub(super) fn expand(pattern: &str) -> Option<Vec<String>> {
    let Some((before, inside, after)) = first_braces(pattern) else {
        return Some(vec![pattern.to_owned()]);
    };
    let (items, rest) = (items(inside)?, expand(after)?);
    if items.len().checked_mul(rest.len())? > MOST {
        return None;
    }
    let each =
        items.iter().flat_map(|item| rest.iter().map(move |end| format!("{before}{item}{end}")));
    Some(each.collect())
}

/// The text before, inside and after the first braces that hold a range or a list.
fn first_braces(pattern: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(open) = pattern[from..].find('{').map(|at| from + at) {
        let close = open + pattern[open..].find('}')?;
        let inside = &pattern[open + 1..close];
        if inside.contains(',') || range(inside).is_some() {
            return Some((&pattern[..open], inside, &pattern[close + 1..]));
        }
        from = open + 1;
    }
    None
}

fn items(inside: &str) -> Option<Vec<String>> {
    let Some((first, last, width)) = range(inside) else {
        return Some(inside.split(',').map(str::to_owned).collect());
    };
    if first.abs_diff(last) >= MOST as u64 {
        return None;
    }
    let name = |n: u64| format!("{n:0width$}");
    Some(match first <= last {
        true => (first..=last).map(name).collect(),
        false => (last..=first).rev().map(name).collect(),
    })
}

/// The ends of `000..012` and the number of digits, which is kept if one of them begins with 0.
fn range(inside: &str) -> Option<(u64, u64, usize)> {
    let (first, last) = inside.split_once("..")?;
    let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) {
        true => text.parse::<u64>().ok(),
        false => None,
    };
    let padded = [first, last].iter().any(|text| text.len() > 1 && text.starts_with('0'));
    let width = if padded { first.len().max(last.len()) } else { 0 };
    Some((number(first)?, number(last)?, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that bash gives.
    #[test]
    fn ranges_and_lists_are_those_of_the_shell() {
        for (pattern, names) in [
            ("a.tar", &["a.tar"][..]),
            ("t-{08..11}.tar", &["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
            ("{0..2}", &["0", "1", "2"]),
            ("{2..0}", &["2", "1", "0"]),
            ("{000..1}", &["000", "001"]),
            ("{a,b}-{1..2}", &["a-1", "a-2", "b-1", "b-2"]),
            ("{x}/{1..2}", &["{x}/1", "{x}/2"]),
            ("{..}", &["{..}"]),
            ("{1..", &["{1.."]),
        ] {
            assert_eq!(expand(pattern).unwrap(), names, "{pattern}");
        }
        assert_eq!(expand("{0..99999999999}"), None);
        assert_eq!(expand("{0..9999}{0..9999}"), None);
        assert_eq!(expand("{0..99999999999999999999999}").unwrap().len(), 1);
    }
}
