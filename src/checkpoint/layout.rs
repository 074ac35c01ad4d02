//! Layouts: the tensor names that each library uses for the same model.
//!
//! To add one: a file next to `torchvision.rs` with its table of names, a variant here, and a line
//! in each `match`.

use super::spelling::Spelling;
use super::{clip, convnext, dinov2, mixer, timm, torchvision, transformers};

/// The library whose tensor names a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `timm`'s `VisionTransformer`. Its names are the canonical names.
    Timm,
    /// transformers with the module names of version 5: `vit.layers.0.attention.q_proj.weight`.
    Transformers,
    /// transformers with the names of version 4, which version 5 still writes:
    /// `vit.encoder.layer.0.attention.attention.query.weight`.
    TransformersOld,
    /// torchvision.
    Torchvision,
    /// `timm`'s `MlpMixer`. Its names are the canonical names.
    TimmMixer,
    /// `timm`'s `ConvNeXt`. Its names are the canonical names.
    TimmConvNext,
    /// transformers' ConvNeXt and ConvNeXt V2.
    TransformersConvNext,
    /// transformers' DINOv2, with or without registers.
    TransformersDinov2,
    /// The vision tower of transformers' SigLIP.
    TransformersSiglip,
    /// The vision tower of transformers' CLIP.
    TransformersClip,
}

/// The networks that a layout can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Vision Transformers.
    Vit,
    /// MLP-Mixers.
    Mixer,
    /// ConvNeXts.
    ConvNext,
}

/// The canonical tensor of a file's tensor: it is part `index` of `count`, stacked along the first
/// dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayoutPart {
    /// Canonical name.
    pub canonical: String,
    /// Index of the part.
    pub index: usize,
    /// Number of parts.
    pub count: usize,
}

impl LayoutPart {
    /// A canonical tensor that is not split.
    pub fn whole(canonical: String) -> LayoutPart {
        LayoutPart { canonical, index: 0, count: 1 }
    }
}

impl Layout {
    /// All layouts; the first wins a tie.
    pub const ALL: [Layout; 10] = [
        Layout::Timm,
        Layout::Transformers,
        Layout::TransformersOld,
        Layout::Torchvision,
        Layout::TimmMixer,
        Layout::TimmConvNext,
        Layout::TransformersConvNext,
        Layout::TransformersDinov2,
        // Before CLIP, whose files hold all names of SigLIP's.
        Layout::TransformersSiglip,
        Layout::TransformersClip,
    ];

    /// The library's name, and which of its spellings.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Timm => "timm",
            Layout::Transformers => "transformers (new names)",
            Layout::TransformersOld => "transformers (old names)",
            Layout::Torchvision => "torchvision",
            Layout::TimmMixer => "timm (MLP-Mixer)",
            Layout::TimmConvNext => "timm (ConvNeXt)",
            Layout::TransformersConvNext => "transformers (ConvNeXt)",
            Layout::TransformersDinov2 => "transformers (DINOv2)",
            Layout::TransformersSiglip => "transformers (SigLIP)",
            Layout::TransformersClip => "transformers (CLIP)",
        }
    }

    /// The networks it holds.
    pub(super) fn family(self) -> Family {
        match self {
            Layout::TimmMixer => Family::Mixer,
            Layout::TimmConvNext | Layout::TransformersConvNext => Family::ConvNext,
            _ => Family::Vit,
        }
    }

    /// Whether this is one of transformers' spellings.
    pub(super) fn is_transformers(self) -> bool {
        matches!(
            self,
            Layout::Transformers
                | Layout::TransformersOld
                | Layout::TransformersConvNext
                | Layout::TransformersDinov2
                | Layout::TransformersSiglip
                | Layout::TransformersClip
        )
    }

    /// The library's other spelling. A file may mix both.
    pub(super) fn sibling(self) -> Option<Layout> {
        match self {
            Layout::Transformers => Some(Layout::TransformersOld),
            Layout::TransformersOld => Some(Layout::Transformers),
            _ => None,
        }
    }

    fn spelling(self) -> Option<&'static Spelling> {
        match self {
            Layout::Transformers => Some(&transformers::NEW),
            Layout::TransformersOld => Some(&transformers::OLD),
            Layout::Torchvision => Some(&torchvision::SPELLING),
            Layout::TransformersDinov2 => Some(&dinov2::SPELLING),
            Layout::TransformersSiglip => Some(&clip::SIGLIP),
            Layout::TransformersClip => Some(&clip::CLIP),
            _ => None,
        }
    }

    /// The part for a name without wrappers; `None` if the layout has no such name.
    pub(super) fn part(self, name: &str) -> Option<LayoutPart> {
        match self {
            Layout::Timm => timm::part(name),
            Layout::Transformers => transformers::part(&transformers::NEW, name),
            Layout::TransformersOld => transformers::part(&transformers::OLD, name),
            Layout::Torchvision => torchvision::part(name),
            Layout::TimmMixer => mixer::part(name),
            Layout::TimmConvNext => convnext::part(name),
            Layout::TransformersConvNext => {
                convnext::transformers_part(&name[transformers::root(name).len()..])
            }
            Layout::TransformersDinov2 => dinov2::part(name),
            Layout::TransformersSiglip => clip::part(&clip::SIGLIP, name),
            Layout::TransformersClip => clip::part(&clip::CLIP, name),
        }
    }

    /// Whether a name without wrappers belongs to the layout but is not used by a classifier.
    pub(super) fn ignores(self, name: &str) -> bool {
        match self {
            Layout::TransformersSiglip | Layout::TransformersClip => clip::is_ignored(self, name),
            // Token for masked patches, in pretraining only.
            Layout::Timm => name == "mask_token",
            _ => self.is_transformers() && transformers::is_ignored(name),
        }
    }

    /// The layout's usual names, without wrappers and root, of the tensors that make up the
    /// canonical tensor when stacked along the first dimension.
    pub(super) fn names(self, canonical: &str) -> Vec<String> {
        let convnext = || convnext::transformers_name(canonical);
        match self.spelling() {
            None if self == Layout::TransformersConvNext => {
                vec![convnext().unwrap_or_else(|| canonical.to_string())]
            }
            None => vec![canonical.to_string()],
            Some(spelling) => spelling.names(canonical),
        }
    }

    /// The canonical shape of a tensor that files may store with more or fewer dimensions of size 1;
    /// `None` for others.
    pub(super) fn canonical_shape(self, canonical: &str, shape: &[usize]) -> Option<Vec<usize>> {
        match self {
            Layout::TransformersSiglip | Layout::TransformersClip => {
                clip::canonical_shape(canonical, shape)
            }
            _ if self.family() == Family::ConvNext && convnext::is_squeezed(canonical) => {
                Some(shape.iter().copied().filter(|&n| n != 1).collect())
            }
            _ => None,
        }
    }

    /// ε of the library's layer norms.
    pub(super) fn eps(self) -> f64 {
        match self {
            Layout::TransformersDinov2 | Layout::TransformersSiglip => 1e-6,
            Layout::TransformersClip => 1e-5,
            _ if self.is_transformers() => 1e-12,
            _ => crate::models::arch::TIMM_EPS,
        }
    }

    /// The layout that matches most of the names, and the number of matches.
    pub(super) fn nearest(names: &[&str]) -> (Layout, usize) {
        let knows =
            |layout: Layout, name: &str| layout.part(name).is_some() || layout.ignores(name);
        let count = |layout: Layout| names.iter().filter(|n| knows(layout, n)).count();
        let scored = Layout::ALL.map(|layout| (layout, count(layout)));
        // `max_by_key` returns the last maximum; in reverse order that is the first.
        scored.into_iter().rev().max_by_key(|&(_, n)| n).unwrap_or((Layout::Timm, 0))
    }
}
