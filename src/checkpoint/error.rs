//! Errors of reading and writing checkpoints.

use std::path::{Path, PathBuf};

/// An error of reading or writing a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that contradict each other.
    #[error(transparent)]
    Options(#[from] crate::options::Error),
    /// The operating system reported an error.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// File or folder.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// Not a file or folder of a known format.
    #[error(
        "{path}: expected a checkpoint (.safetensors, .pth, .pt, .bin, .ckpt, .npz) or a folder with \
         model.safetensors or pytorch_model.bin, found {found}; convert other formats with \
         safetensors.torch.save_file"
    )]
    NotACheckpoint {
        /// The path that was given.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// A Git LFS pointer in place of the weights.
    #[error(
        "{path}: found a Git LFS pointer instead of the weights: the repository was cloned without \
         Git LFS; run `git lfs install` and `git lfs pull` in its folder"
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A path that does not exist, nor a downloaded model of this name.
    #[error(
        "{path}: expected a file, a folder or a model in the Hugging Face cache {cache}, found {found} \
         there; check the path, or download the model: hf download {id}"
    )]
    NotCached {
        /// The path that was given.
        path: PathBuf,
        /// The cache's folder.
        cache: PathBuf,
        /// The repository id.
        id: String,
        /// What was found.
        found: String,
    },
    /// A peft adapter without the model that it changes.
    #[error(
        "{path}: expected a whole model, found a peft adapter ({found}); give its base as the \
         checkpoint, and the adapter's folder as `adapter`"
    )]
    Adapter {
        /// The folder or file.
        path: PathBuf,
        /// What shows that it is one.
        found: String,
    },
    /// A file with several models, such as the trained weights and their average.
    #[error(
        "{path}: expected one model, found {count}: {found}; choose one with `weights` (model, ema, \
         or its key)"
    )]
    SeveralModels {
        /// The file.
        path: PathBuf,
        /// Their number.
        count: String,
        /// Their keys.
        found: String,
    },
    /// The model that was asked for is not in the file, or is not the only one of its kind.
    #[error(
        "{path}: expected one model that fits `weights` = \"{wanted}\", found {found}; give the key of \
         one of these, or omit `weights` if there is only one"
    )]
    NoSuchModel {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The keys of the models.
        found: String,
    },
    /// The safetensors header is damaged.
    #[error(
        "{path}: {place}: expected {expected}, found {found}; the file is cut short, damaged or \
         not safetensors: download or write it again"
    )]
    Header {
        /// The file.
        path: PathBuf,
        /// Which part of the header.
        place: String,
        /// The expected content.
        expected: String,
        /// The content found.
        found: String,
    },
    /// A file of another format than safetensors is damaged.
    #[error(
        "{path}: {place}: expected {expected}, found {found}; the file is cut short, damaged or was \
         not written by {writer}: download or write it again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part of the file.
        place: Box<str>,
        /// The expected content.
        expected: Box<str>,
        /// The content found.
        found: Box<str>,
        /// What writes such files.
        writer: &'static str,
    },
    /// A pickle that needs Python's code.
    #[error(
        "{path}: expected tensors and plain containers, found the Python object \"{name}\"; planish \
         runs no code of a checkpoint: if you trust the file, load it in Python and save only the \
         weights, as in torch.save(model.state_dict(), FILE)"
    )]
    PythonObject {
        /// The file.
        path: PathBuf,
        /// Module and name of the object.
        name: String,
    },
    /// A command that needs one safetensors file.
    #[error(
        "{path}: expected one safetensors file, found {found}; convert the checkpoint with \
         safetensors.torch.save_file, or tune it with `out`"
    )]
    OnlySafetensors {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// A tensor whose type is not a supported weight type.
    #[error(
        "{path}: tensor \"{tensor}\": expected F32, F16, BF16 or F64, found {found}; \
         dequantize or cast the checkpoint first"
    )]
    Dtype {
        /// The file.
        path: PathBuf,
        /// Tensor name in the file.
        tensor: String,
        /// Type in the header.
        found: String,
    },
    /// The tensor names match no layout.
    #[error(
        "{path}: expected the tensor names of a supported network, found {found}; the nearest \
         layout is {layout}, with {matching} of {total} names; leave other tensors aside with \
         `ignore`, or change names with `rename`"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The first few names.
        found: String,
        /// Layout that matches most names.
        layout: &'static str,
        /// Number of names that it matches.
        matching: usize,
        /// Number of names.
        total: usize,
    },
    /// The model has no classifier.
    #[error(
        "{path}: no classifier found: this is a bare backbone in the {layout} layout, without \
         logits; fine-tune a classifier on it first (transformers: \
         AutoModelForImageClassification.from_pretrained(FOLDER, num_labels=N); timm: \
         create_model(NAME, num_classes=N))"
    )]
    NoClassifier {
        /// The file.
        path: PathBuf,
        /// Its layout.
        layout: &'static str,
    },
    /// The folder of an adapter where a whole checkpoint was expected.
    #[error(
        "{path}: expected a whole checkpoint, found a peft adapter: give its base{} as the checkpoint \
         and this folder as `adapter`",
        .base.as_ref().map(|base| format!(" ({base})")).unwrap_or_default()
    )]
    IsAdapter {
        /// The folder.
        path: PathBuf,
        /// The base that the adapter names.
        base: Option<String>,
    },
    /// Not the folder of an adapter.
    #[error(
        "{path}: expected the folder of a peft adapter, with adapter_config.json and \
         adapter_model.safetensors, found {found}; peft writes one with \
         model.save_pretrained(FOLDER)"
    )]
    NotAnAdapter {
        /// The path that was given.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// An adapter of another checkpoint.
    #[error(
        "{path}: the adapter was trained on checkpoint {expected}, this one is {found}; use the base \
         that it was trained on"
    )]
    OtherBase {
        /// The adapter's folder.
        path: PathBuf,
        /// Digest of the checkpoint that it was trained on.
        expected: String,
        /// Digest of this checkpoint.
        found: String,
    },
    /// An adapter for modules that the network does not have.
    #[error(
        "{path}: the adapter is for other modules than those of a network in the {layout} layout; it \
         names {found}; use the base that it was trained on"
    )]
    AdapterModules {
        /// The adapter's folder.
        path: PathBuf,
        /// The base's layout.
        layout: &'static str,
        /// The first few modules.
        found: String,
    },
    /// An adapter that lacks tensors.
    #[error("{path}: the adapter is not complete: {found}; save it again with peft")]
    AdapterTensors {
        /// The adapter's folder.
        path: PathBuf,
        /// What is missing.
        found: String,
    },
    /// An adapter whose shapes do not fit the base.
    #[error(
        "{path}: the adapter does not fit this base: {found}; use the base that it was trained on"
    )]
    AdapterShapes {
        /// The adapter's folder.
        path: PathBuf,
        /// The modules, with both shapes.
        found: String,
    },
    /// A module that peft has no adapter for.
    #[error(
        "peft has no adapter for {module} in the {layout} layout: set `merge` to write a whole \
         checkpoint, or leave the module out of `targets`"
    )]
    NoAdapterFormat {
        /// Canonical name of the module.
        module: String,
        /// The layout.
        layout: &'static str,
    },
    /// A base that is no classifier, even with the adapter's head.
    #[error(
        "{path}: the adapter and this base do not form a classifier{}",
        if *.head { "" } else { ", and the adapter stores no head (peft: \
            modules_to_save=[\"classifier\"])" }
    )]
    AdapterBase {
        /// The adapter's folder.
        path: PathBuf,
        /// Whether the adapter stores a head.
        head: bool,
        /// What is wrong with the base.
        source: Box<Error>,
    },
    /// Tensors are missing, unexpected or of the wrong shape.
    #[error("{path}: the tensors do not form a complete network in the {layout} layout{report}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The nearest layout.
        layout: &'static str,
        /// The differences.
        report: Box<Mismatch>,
    },
    /// A configuration that is not valid JSON.
    #[error("{place}: not valid JSON: {source}; fix or remove it")]
    Json {
        /// File, or key in a file's metadata.
        place: String,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// An option that does not fit the checkpoint.
    #[error("`{option}`: expected {expected}, found {found}; {remedy}")]
    Option {
        /// The option.
        option: &'static str,
        /// What the checkpoint requires.
        expected: String,
        /// What was given.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A configuration value of the wrong type, or one that planish does not support.
    #[error("{place}: \"{key}\": expected {expected}, found {found}; {remedy}")]
    Setting {
        /// File, key in a file's metadata, or option.
        place: String,
        /// The key.
        key: String,
        /// What is supported.
        expected: String,
        /// What was found.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// A configuration that describes a different model or different image preprocessing than
    /// planish computes. This may not be visible in the tensors.
    #[error("{place}: \"{key}\" is {found}: {means}; planish supports {computes}; {remedy}")]
    NotComputed {
        /// File, or key in a file's metadata.
        place: Box<str>,
        /// The key.
        key: Box<str>,
        /// What was found.
        found: Box<str>,
        /// What that says about the model or the images.
        means: Box<str>,
        /// What planish computes instead.
        computes: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Configuration and tensors contradict each other.
    #[error(
        "{place} says {key} = {stated}, but the tensors of {path} say {shown} ({tensor}); \
         correct the configuration or use the matching file"
    )]
    Contradiction {
        /// The checkpoint.
        path: PathBuf,
        /// Configuration file, metadata key or option.
        place: Box<str>,
        /// The setting.
        key: &'static str,
        /// Its value there.
        stated: Box<str>,
        /// The value that the tensors show.
        shown: Box<str>,
        /// The tensors that show it.
        tensor: &'static str,
    },
    /// The number of attention heads is unknown.
    #[error(
        "{path}: the number of attention heads cannot be read from the tensors, and no config.json \
         states it; {suggestion}"
    )]
    HeadsUnknown {
        /// The checkpoint.
        path: PathBuf,
        /// The option to give, with the usual value if there is one.
        suggestion: String,
    },
    /// The patch grid does not follow from the position embedding.
    #[error(
        "{path}: the position embedding has {rows} rows, of which {prefix} may belong to \
         class or register tokens: expected a square grid of patches; give the size with \
         `image_size` (HEIGHTxWIDTH)"
    )]
    Grid {
        /// The checkpoint.
        path: PathBuf,
        /// Rows of the position embedding.
        rows: usize,
        /// Class, distillation and register tokens.
        prefix: usize,
    },
    /// A trained weight is out of range for its stored type.
    #[error(
        "tensor \"{tensor}\" has a value out of range for {dtype}; convert the checkpoint to F32 \
         before training it"
    )]
    Overflow {
        /// Tensor name in the file.
        tensor: String,
        /// Stored type.
        dtype: &'static str,
    },
    /// Weights that are NaN or infinite.
    #[error(
        "{path}: NaN or infinite weights in {tensors}; training probably diverged: use an earlier checkpoint", path = .path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Names of the tensors in the file.
        tensors: String,
    },
    /// The file has changed since it was read.
    #[error("{path}: changed on disk since it was read; run the command again")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The output cannot be written.
    #[error("cannot write {path}: {reason}; choose another `out`")]
    Output {
        /// The output path.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// An unknown tensor name.
    #[error("there is no tensor \"{name}\"{}", .nearest.as_ref()
        .map(|n| format!("; did you mean \"{n}\"?")).unwrap_or_default())]
    UnknownTensor {
        /// The name asked for.
        name: String,
        /// The closest existing name.
        nearest: Option<String>,
    },
    /// A model that the target format cannot express.
    #[error("{reason}; train from a model that timm can build")]
    Inexpressible {
        /// The reason.
        reason: String,
    },
    /// The number of class names differs from the number of classes.
    #[error(
        "expected {expected} class names, one per class of the head, found {found}; name \
         every class, or none"
    )]
    ClassNames {
        /// Number of classes of the head.
        expected: usize,
        /// Number of names.
        found: usize,
    },
    /// A file that cannot be replaced, or a patch that cannot be applied.
    #[error(transparent)]
    Refused(#[from] super::Refused),
    /// Weights that do not fit the architecture.
    #[error(transparent)]
    Model(#[from] crate::models::Error),
    /// A tensor operation failed.
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

/// Differences between the tensors of a file and those of its layout.
#[derive(Debug, Default)]
pub struct Mismatch {
    /// Tensors that the model needs and the file does not have.
    pub missing: Vec<String>,
    /// Tensors that the model does not use.
    pub unexpected: Vec<String>,
    /// Name, expected shape, found shape.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// Replaces canonical names by the names in the file.
    pub(super) fn rename(&mut self, own: impl Fn(&str) -> String) {
        let names = self.missing.iter_mut().chain(&mut self.unexpected);
        for name in names.chain(self.misshapen.iter_mut().map(|(name, ..)| name)) {
            *name = own(name);
        }
    }

    /// Whether there are no differences.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }
}

/// Lists are cut after this many entries; the total is always given.
const SHOWN: usize = 12;
/// Names in lists are cut after this many characters.
const LONGEST_SHOWN: usize = 200;

/// The first entries of a list, and the number of further ones.
pub(super) fn few(list: &[String]) -> String {
    let short = |name: &String| match name.char_indices().nth(LONGEST_SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.clone(),
    };
    let mut out = list.iter().take(SHOWN).map(short).collect::<Vec<_>>().join(", ");
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
