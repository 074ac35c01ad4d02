//! Files without a head.

use super::layout::Family;
use super::names::Names;
use super::{Entry, Header, Layout, TensorDtype};

/// The header with a head for so many classes, as wide as the features: the last norm, or twice that
/// in DINOv2.
pub(super) fn with_head(names: &Names, header: &Header, classes: usize) -> Header {
    let (head, norms) = match names.layout.family() {
        Family::ConvNext => ("head.fc", ["head.norm.weight", "norm.weight"]),
        Family::Vit | Family::Mixer => ("head", ["norm.weight", "fc_norm.weight"]),
    };
    let canonical = |entry: &Entry| names.part(&entry.name).map(|part| part.canonical.clone());
    let find = |name: &str| header.entries.iter().find(|e| canonical(e).as_deref() == Some(name));
    // A Vision Transformer without a last norm is as wide as its embedding.
    let last = norms.into_iter().chain(["patch_embed.proj.weight"]).find_map(find);
    let width = last.and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    let width = match names.layout {
        Layout::TransformersDinov2 => width.saturating_mul(2),
        _ => width,
    };
    let mut out = header.clone();
    for (tensor, shape) in [("weight", vec![classes, width]), ("bias", vec![classes])] {
        for name in names.of(&format!("{head}.{tensor}")) {
            out.entries.push(Entry {
                name,
                dtype: TensorDtype::F32.name().into(),
                shape: shape.clone(),
                span: (usize::MAX, usize::MAX),
            });
        }
    }
    out.packed()
}
