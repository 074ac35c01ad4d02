//! Tables of the tensor names of a library, and the canonical (timm's) names.

use super::layout::LayoutPart;

/// A module inside a block: its name and the canonical one, each without `weight` and `bias`; then
/// the index of the part of the canonical tensor, and the number of parts.
type Inside = (&'static str, &'static str, usize, usize);

/// A library's names. If several denote the same tensor, the first is the usual one.
pub(super) struct Spelling {
    /// Whole names outside the blocks, each with its canonical name.
    pub tokens: &'static [(&'static str, &'static str)],
    /// Modules outside the blocks, without `weight` and `bias`, each with its canonical name.
    pub modules: &'static [(&'static str, &'static str)],
    /// Whole names inside a block, each with its canonical name.
    pub scales: &'static [(&'static str, &'static str)],
    /// Prefix of a block's index.
    pub block: &'static str,
    /// Modules inside a block.
    pub inside: &'static [Inside],
}

/// The index at the start of `DIGITS.REST`, without leading zeros, and the rest.
pub(super) fn index(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let index: usize = digits.parse().ok()?;
    (index.to_string() == digits).then_some((index, rest))
}

impl Spelling {
    /// The part for a name; `None` if the library has no such name.
    pub fn part(&self, name: &str) -> Option<LayoutPart> {
        if let Some((_, canonical)) = self.tokens.iter().find(|(own, _)| *own == name) {
            return Some(LayoutPart::whole(canonical.to_string()));
        }
        let stem = |own: &str| name.strip_prefix(own).filter(|rest| is_parameter(rest));
        if let Some((canonical, rest)) =
            self.modules.iter().find_map(|(own, canonical)| Some((canonical, stem(own)?)))
        {
            return Some(LayoutPart::whole(format!("{canonical}{rest}")));
        }
        let (block, inner) = index(name.strip_prefix(self.block)?)?;
        if let Some((_, canonical)) = self.scales.iter().find(|(own, _)| *own == inner) {
            return Some(LayoutPart::whole(format!("blocks.{block}.{canonical}")));
        }
        self.inside.iter().find_map(|&(own, canonical, index, count)| {
            let rest = inner.strip_prefix(own).filter(|rest| is_parameter(rest))?;
            Some(LayoutPart {
                canonical: format!("blocks.{block}.{canonical}{rest}"),
                index,
                count,
            })
        })
    }

    /// The usual names of a canonical tensor's parts, in stacking order; the canonical name if the
    /// library has none.
    pub fn names(&self, canonical: &str) -> Vec<String> {
        if let Some((own, _)) = self.tokens.iter().find(|(_, known)| *known == canonical) {
            return vec![own.to_string()];
        }
        let stem = |known: &str| canonical.strip_prefix(known).filter(|rest| is_parameter(rest));
        if let Some((own, rest)) =
            self.modules.iter().find_map(|(own, known)| Some((own, stem(known)?)))
        {
            return vec![format!("{own}{rest}")];
        }
        let mut out: Vec<String> = Vec::new();
        if let Some((block, inner)) = canonical.strip_prefix("blocks.").and_then(index) {
            if let Some((own, _)) = self.scales.iter().find(|(_, known)| *known == inner) {
                return vec![format!("{}{block}.{own}", self.block)];
            }
            let mut parts = 0;
            for &(own, known, index, count) in self.inside {
                let rest = inner.strip_prefix(known).filter(|rest| is_parameter(rest));
                let next = index == out.len() && (parts == 0 || count == parts);
                if let (Some(rest), true) = (rest, next) {
                    out.push(format!("{}{block}.{own}{rest}", self.block));
                    parts = count;
                }
            }
        }
        if out.is_empty() { vec![canonical.to_string()] } else { out }
    }
}

/// Whether a name ends here, at a weight or a bias.
pub(super) fn is_parameter(rest: &str) -> bool {
    rest == "weight" || rest == "bias"
}
