//! Layouts: the tensor names that a library gives to the same model.
//!
//! To add one: a file beside `torchvision.rs` with its table of names, a variant here, and a line
//! in each `match`.

use super::spelling::Spelling;
use super::{timm, torchvision, transformers};

/// Whose names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `timm`'s `VisionTransformer`: the canonical names themselves.
    Timm,
    /// transformers, as version 5 names its modules: `vit.layers.0.attention.q_proj.weight`.
    Transformers,
    /// transformers as it was, and as it still saves:
    /// `vit.encoder.layer.0.attention.attention.query.weight`.
    TransformersOld,
    /// torchvision.
    Torchvision,
}

/// Where a file's tensor belongs: part `index` of `count`, stacked along the first dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Canonical name.
    pub canonical: String,
    /// Which part.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl Part {
    /// A canonical tensor that is not split.
    pub fn whole(canonical: String) -> Part {
        Part { canonical, index: 0, count: 1 }
    }
}

impl Layout {
    /// All layouts, in the order in which equals are preferred.
    pub const ALL: [Layout; 4] =
        [Layout::Timm, Layout::Transformers, Layout::TransformersOld, Layout::Torchvision];

    /// The library's name, and which of its spellings.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Timm => "timm",
            Layout::Transformers => "transformers (new names)",
            Layout::TransformersOld => "transformers (old names)",
            Layout::Torchvision => "torchvision",
        }
    }

    /// Whether it is one of transformers' spellings.
    pub(super) fn is_transformers(self) -> bool {
        matches!(self, Layout::Transformers | Layout::TransformersOld)
    }

    /// The library's other spelling, under which single names may stand in the same file.
    pub(super) fn sibling(self) -> Option<Layout> {
        match self {
            Layout::Transformers => Some(Layout::TransformersOld),
            Layout::TransformersOld => Some(Layout::Transformers),
            Layout::Timm | Layout::Torchvision => None,
        }
    }

    fn spelling(self) -> Option<&'static Spelling> {
        match self {
            Layout::Timm => None,
            Layout::Transformers => Some(&transformers::NEW),
            Layout::TransformersOld => Some(&transformers::OLD),
            Layout::Torchvision => Some(&torchvision::SPELLING),
        }
    }

    /// Where a name without wrappers belongs; none if the layout has no such name.
    pub(super) fn part(self, name: &str) -> Option<Part> {
        match self {
            Layout::Timm => timm::part(name),
            Layout::Transformers => transformers::part(&transformers::NEW, name),
            Layout::TransformersOld => transformers::part(&transformers::OLD, name),
            Layout::Torchvision => torchvision::part(name),
        }
    }

    /// Whether a name without wrappers is the layout's, but of no use to a classifier.
    pub(super) fn ignores(self, name: &str) -> bool {
        self.is_transformers() && transformers::is_ignored(name)
    }

    /// The layout's usual names, without wrappers and root, whose tensors stacked along the first
    /// dimension make the canonical tensor.
    pub(super) fn names(self, canonical: &str) -> Vec<String> {
        match self.spelling() {
            None => vec![canonical.to_string()],
            Some(spelling) => spelling.names(canonical),
        }
    }

    /// ε of the library's layer norms.
    pub(super) fn eps(self) -> f64 {
        match self.is_transformers() {
            true => 1e-12,
            false => crate::vit::arch::TIMM_EPS,
        }
    }

    /// The layout that knows most of the names, and how many.
    pub(super) fn nearest(names: &[&str]) -> (Layout, usize) {
        let knows =
            |layout: Layout, name: &str| layout.part(name).is_some() || layout.ignores(name);
        let count = |layout: Layout| names.iter().filter(|n| knows(layout, n)).count();
        let scored = Layout::ALL.map(|layout| (layout, count(layout)));
        // The last maximum is the first in the reverse order.
        scored.into_iter().rev().max_by_key(|&(_, n)| n).unwrap_or((Layout::Timm, 0))
    }
}
