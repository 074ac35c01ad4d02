//! Files without a head.

use super::layout::Family;
use super::names::Names;
use super::{Entry, Header, TensorDtype};

/// The header with a head for so many classes, as wide as the last norm.
pub(super) fn with_head(names: &Names, header: &Header, classes: usize) -> Header {
    let (head, norms) = match names.layout.family() {
        Family::ConvNext => ("head.fc", ["head.norm.weight", "norm.weight"]),
        Family::Vit | Family::Mixer => ("head", ["norm.weight", "fc_norm.weight"]),
    };
    let canonical = |entry: &Entry| names.part(&entry.name).map(|part| part.canonical.clone());
    let last =
        header.entries.iter().find(|e| norms.iter().any(|n| canonical(e).as_deref() == Some(n)));
    let width = last.and_then(|norm| norm.shape.first().copied()).unwrap_or(0);
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
