//! The tensors of a checkpoint that is not one safetensors file.

use super::locate::{Format, format};
use super::view::View;
use super::{Checkpoint, Entry, Header};
use std::collections::HashMap;
use std::path::Path;

/// A tensor and where its bytes lie.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    /// Its name.
    pub name: String,
    /// Type of its elements, as safetensors spells it.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Its bytes: the concatenation of these.
    pub views: Vec<View>,
}

/// The tensors of one model.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    /// The tensors; each name once.
    pub tensors: Vec<StoredTensor>,
    /// Metadata, as of a safetensors file.
    pub metadata: Vec<(String, String)>,
    /// Key of the model, if the file may have several.
    pub chosen: Option<String>,
}

impl Contents {
    /// Bytes of all tensors; `None` if the number overflows.
    pub fn size(&self) -> Option<u64> {
        let views = self.tensors.iter().flat_map(|tensor| &tensor.views);
        views.map(|view| view.len() as u64).try_fold(0u64, u64::checked_add)
    }

    /// The header of a safetensors file with these tensors, and their places by name.
    pub fn into_header(self) -> (Header, HashMap<String, Vec<View>>) {
        let mut at = 0;
        let mut entries = Vec::new();
        let mut places = HashMap::new();
        for StoredTensor { name, dtype, shape, views } in self.tensors {
            let end = at + views.iter().map(View::len).sum::<usize>();
            entries.push(Entry { name: name.clone(), dtype, shape, span: (at, end) });
            places.insert(name, views);
            at = end;
        }
        (Header { metadata: self.metadata, entries, data_start: 0 }, places)
    }
}

impl Checkpoint {
    /// The format of its file, if it is not one safetensors file.
    pub(super) fn foreign_format(&self) -> Option<Format> {
        format(&self.path).filter(|&format| format != Format::Safetensors)
    }

    /// A note if the file at `path`, written from this checkpoint, has another format.
    pub fn format_note(&self, path: &Path) -> Option<String> {
        let format = self.foreign_format()?;
        let (path, own) = (path.display(), self.path.display());
        let (names, rest) = match format {
            Format::Torch => {
                ("", "; other values in that file, such as an optimizer's, are not copied")
            }
            Format::Numpy => (" with timm's tensor names", ""),
            _ => ("", ""),
        };
        let format = format.name();
        Some(format!("{path}: written as one safetensors file{names}; {own} is {format}{rest}"))
    }
}
