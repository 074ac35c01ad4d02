//! What can be wrong with a checkpoint, and what to do about it.

use std::path::{Path, PathBuf};

/// Every way in which reading or writing a checkpoint can fail.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Neither a `.safetensors` file nor a folder that holds one.
    #[error(
        "{path}: expected a .safetensors file or a folder with model.safetensors, found {found}; \
         other formats can be turned into safetensors with safetensors.torch.save_file"
    )]
    NotACheckpoint {
        /// What was given.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
    /// The safetensors header is damaged.
    #[error(
        "{path}: {place}: expected {expected}, found {found}; the file is cut short, damaged or \
         not safetensors: fetch it or write it again"
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// Which part of the header.
        place: String,
        /// What a sound file has there.
        expected: String,
        /// What this one has.
        found: String,
    },
    /// A tensor of a type that is not a weight's.
    #[error(
        "{path}: tensor `{tensor}`: expected F32, F16, BF16 or F64, found {found}; \
         dequantise or cast the checkpoint first"
    )]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The checkpoint's own name.
        tensor: String,
        /// Type in the header.
        found: String,
    },
    /// The names fit no layout.
    #[error(
        "{path}: expected the tensor names of a Vision Transformer, found {found}; the nearest \
         layout is {layout}, with {matching} of {total} names"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The first few names.
        found: String,
        /// Layout with the most names in common.
        layout: &'static str,
        /// How many names it knows.
        matching: usize,
        /// How many there are.
        total: usize,
    },
    /// The model ends before a classifier.
    #[error(
        "{path}: there is no classifier: this is a bare backbone in the layout of {layout}, which \
         has no logits to diagnose; fine-tune one on it first (transformers: \
         ViTForImageClassification.from_pretrained(FOLDER, num_labels=N); timm: \
         create_model(NAME, num_classes=N))"
    )]
    NoClassifier {
        /// The file.
        path: PathBuf,
        /// Its layout.
        layout: &'static str,
    },
    /// A folder whose tensors are spread over several files.
    #[error(
        "{path}: the checkpoint is spread over several files ({index}); planish reads one: load it \
         with its library and save it whole, as in \
         save_pretrained(FOLDER, max_shard_size=\"100GB\")"
    )]
    Sharded {
        /// The folder.
        path: PathBuf,
        /// The list of its parts.
        index: &'static str,
    },
    /// Tensors are missing, left over or of the wrong shape.
    #[error("{path}: the tensors do not make a Vision Transformer in {layout}'s layout{report}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The nearest layout.
        layout: &'static str,
        /// The lists.
        report: Box<Mismatch>,
    },
    /// A configuration that is not JSON.
    #[error("{place}: not valid JSON: {source}; mend or remove it")]
    Json {
        /// File, or key in a file's metadata.
        place: String,
        /// The parser's answer.
        source: serde_json::Error,
    },
    /// A configuration value of the wrong type, or one that planish cannot serve.
    #[error("{place}: `{key}`: expected {expected}, found {found}; {remedy}")]
    Setting {
        /// File, key in a file's metadata, or flag.
        place: String,
        /// The key.
        key: String,
        /// What is understood.
        expected: String,
        /// What stands there.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A configuration that states another model, or another treatment of images, than planish
    /// computes. The tensors need not show it.
    #[error("{place}: `{key}` is {found}: {means}; planish computes {computes}; {remedy}")]
    NotComputed {
        /// File, or key in a file's metadata.
        place: Box<str>,
        /// The key.
        key: Box<str>,
        /// What stands there.
        found: Box<str>,
        /// What that says of the model or of the images.
        means: Box<str>,
        /// What planish computes instead.
        computes: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Configuration and tensors disagree.
    #[error(
        "{place} says {key} = {stated}, but the tensors of {path} say {shown} ({tensor}); \
         correct the configuration or take the file that belongs to it"
    )]
    Contradiction {
        /// The checkpoint.
        path: PathBuf,
        /// Configuration file, metadata key or flag.
        place: Box<str>,
        /// The setting.
        key: &'static str,
        /// Its value there.
        stated: Box<str>,
        /// What the tensors say.
        shown: Box<str>,
        /// Which tensors say so.
        tensor: &'static str,
    },
    /// Nothing says how many attention heads there are.
    #[error(
        "{path}: the number of attention heads cannot be read off the tensors, and no config.json \
         states it; {suggestion}"
    )]
    HeadsUnknown {
        /// The checkpoint.
        path: PathBuf,
        /// The flag to give, with the usual value if there is one.
        suggestion: String,
    },
    /// The patch grid does not follow from the position embedding.
    #[error(
        "{path}: the position embedding has {rows} rows, of which {prefix} may belong to tokens \
         that are no patches: expected a square grid of patches; give the size with \
         --image-size HEIGHTxWIDTH"
    )]
    Grid {
        /// The checkpoint.
        path: PathBuf,
        /// Rows of the position embedding.
        rows: usize,
        /// Class, distillation and register tokens.
        prefix: usize,
    },
    /// A changed weight does not fit the type it is stored in.
    #[error(
        "tensor `{tensor}` holds a value that {dtype} cannot hold; convert the checkpoint to F32 \
         before training it"
    )]
    Overflow {
        /// The checkpoint's own name.
        tensor: String,
        /// Stored type.
        dtype: &'static str,
    },
    /// The checkpoint's file is not what it was when it was read.
    #[error("{path}: changed on disk since it was read; run the command again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The output cannot be written.
    #[error("cannot write {path}: {reason}; choose another --out")]
    Output {
        /// Where it should go.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A tensor name the checkpoint does not have.
    #[error("no tensor is called `{name}`{}", .nearest.as_ref()
        .map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownTensor {
        /// What was asked for.
        name: String,
        /// The closest name there is.
        nearest: Option<String>,
    },
    /// A model that the target format cannot express.
    #[error("{reason}; train from a model that timm can build")]
    Inexpressible {
        /// What stands in the way.
        reason: String,
    },
    /// Class names that do not go with the head.
    #[error(
        "expected {expected} class names, one for each class of the head, found {found}; give a name \
         for each class, or none"
    )]
    ClassNames {
        /// Classes of the head.
        expected: usize,
        /// Names.
        found: usize,
    },
    /// A file that is not replaced, or a patch that is not applied.
    #[error(transparent)]
    Refused(#[from] super::Refused),
    /// Weights that do not fit the architecture.
    #[error(transparent)]
    Model(#[from] crate::vit::Error),
    /// An operation on a tensor failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }
}

/// How the tensors of a file differ from those of its layout.
#[derive(Debug, Default)]
pub struct Mismatch {
    /// Names the model needs and the file lacks.
    pub missing: Vec<String>,
    /// Names the model has no use for.
    pub unexpected: Vec<String>,
    /// Name, expected shape, found shape.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Puts the checkpoint's own names in the place of canonical ones.
    pub(super) fn rename(&mut self, own: impl Fn(&str) -> String) {
        let names = self.missing.iter_mut().chain(&mut self.unexpected);
        for name in names.chain(self.misshapen.iter_mut().map(|(name, ..)| name)) {
            *name = own(name);
        }
    }

    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

/// A list is cut after this many entries; their number is always given.
const SHOWN: usize = 12;

/// The first few of a list, and how many more there are.
pub(super) fn few(list: &[String]) -> String {
    let mut out = list.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if list.len() > SHOWN {
        out.push_str(&format!(" and {} more", list.len() - SHOWN));
    }
    out
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shapes: Vec<String> = self
            .misshapen
            .iter()
            .map(|(name, want, got)| format!("{name} (expected {want:?}, found {got:?})"))
            .collect();
        for (what, list) in [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of the wrong shape", &shapes),
        ] {
            if !list.is_empty() {
                write!(f, "; {} {what}: {}", list.len(), few(list))?;
            }
        }
        Ok(())
    }
}
