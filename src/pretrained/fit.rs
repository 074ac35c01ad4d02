//! Whether the weights of two checkpoints belong together.

use crate::checkpoint::Checkpoint;
use candle_core::Tensor;
use std::path::PathBuf;

/// Why the weights of two checkpoints do not belong together.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// A tensor has another shape.
    #[error(
        "{}: tensor \"{tensor}\": expected shape {expected:?}, as in {}, found {found:?}; use \
         checkpoints of one architecture",
        .path.display(), .first.display()
    )]
    Shape {
        /// The checkpoint.
        path: PathBuf,
        /// The checkpoint that it is compared with.
        first: PathBuf,
        /// The first tensor that differs.
        tensor: String,
        /// The other's shape.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor is missing.
    #[error(
        "{}: expected tensor \"{tensor}\", as in {}, found none; use checkpoints of one architecture",
        .path.display(), .first.display()
    )]
    Missing {
        /// The checkpoint.
        path: PathBuf,
        /// The checkpoint that it is compared with.
        first: PathBuf,
        /// The first missing tensor.
        tensor: String,
    },
    /// A tensor that the other checkpoint does not have.
    #[error(
        "{}: expected the tensors of {}, found \"{tensor}\" as well; use checkpoints of one architecture",
        .path.display(), .first.display()
    )]
    Extra {
        /// The checkpoint.
        path: PathBuf,
        /// The checkpoint that it is compared with.
        first: PathBuf,
        /// The first such tensor.
        tensor: String,
    },
    /// Equal tensors, but another computation: other heads, another activation and the like.
    #[error(
        "{}: its tensors fit {}, but the two compute different functions (such as another number of \
         heads, activation or ε); use checkpoints of one architecture",
        .path.display(), .first.display()
    )]
    Computation {
        /// The checkpoint.
        path: PathBuf,
        /// The checkpoint that it is compared with.
        first: PathBuf,
    },
    /// Other classes, or in another order.
    #[error(
        "{}: expected the classes of {}, in the same order; class {class} is \"{found}\" here and \
         \"{expected}\" there; use checkpoints that were fine-tuned on one data set",
        .path.display(), .first.display()
    )]
    Classes {
        /// The checkpoint.
        path: PathBuf,
        /// The checkpoint that it is compared with.
        first: PathBuf,
        /// The first class that differs.
        class: usize,
        /// The other's name.
        expected: String,
        /// Its name.
        found: String,
    },
    /// Images are prepared in another way.
    #[error(
        "{}: expected preprocessing {expected}, as in {}, found {found}; use checkpoints with the same \
         preprocessing, or set it with options",
        .path.display(), .first.display()
    )]
    Preprocessing {
        /// The checkpoint.
        path: PathBuf,
        /// The checkpoint that it is compared with.
        first: PathBuf,
        /// The other's preprocessing.
        expected: String,
        /// Its preprocessing.
        found: String,
    },
}

/// Checks that `other` can be averaged with `first`.
///
/// # Misfits
/// [`Misfit`], with the first difference.
pub fn check_same(first: &Checkpoint, other: &Checkpoint) -> Result<(), Misfit> {
    fitting(first, other, |_, _| Counterpart::Own)?;
    if first.config != other.config {
        return Err(other_computation(first, other));
    }
    if first.preprocess != other.preprocess {
        return Err(preprocessing(first, other));
    }
    match differing_class(first, other) {
        None => Ok(()),
        Some((class, expected, found)) => Err(Misfit::Classes {
            path: other.path.clone(),
            first: first.path.clone(),
            class,
            expected,
            found,
        }),
    }
}

/// Why two checkpoints compute different functions although `other` has all tensors of `first`.
pub(super) fn other_computation(first: &Checkpoint, other: &Checkpoint) -> Misfit {
    let (path, of) = (other.path.clone(), first.path.clone());
    let own = first.network.params();
    let extra = |name: &str| own.iter().all(|param| param.name != name);
    match other.network.params().iter().find(|param| extra(&param.name)) {
        Some(param) => Misfit::Extra { path, first: of, tensor: param.name.clone() },
        None => Misfit::Computation { path, first: of },
    }
}

pub(super) fn preprocessing(first: &Checkpoint, other: &Checkpoint) -> Misfit {
    let words =
        |c: &Checkpoint| c.preprocess.as_ref().map_or("not stated".into(), |p| p.to_string());
    let (path, of) = (other.path.clone(), first.path.clone());
    Misfit::Preprocessing { path, first: of, expected: words(first), found: words(other) }
}

/// A note if the order of a checkpoint's classes is not known to be that of the first.
pub fn unknown_classes(first: &Checkpoint, other: &Checkpoint) -> Option<String> {
    let [a, b] = [first, other].map(|c| c.class_names.is_some());
    let unnamed = if a { other } else { first };
    (a != b).then(|| {
        format!(
            "{}: its classes have no names; they are assumed to be in the same order as in the \
             other checkpoint",
            unnamed.path.display()
        )
    })
}

/// What stands for a tensor of `first` in `other`.
pub(super) enum Counterpart {
    /// The tensor of its name.
    Own,
    /// That tensor in another form.
    Changed(Tensor),
    /// Nothing.
    None,
}

/// The tensors of `other` under the indices of `first`, as `form` chooses by index and tensor.
pub(super) fn fitting(
    first: &Checkpoint,
    other: &Checkpoint,
    form: impl Fn(usize, &Tensor) -> Counterpart,
) -> Result<Vec<(usize, Tensor)>, Misfit> {
    let mut out = Vec::new();
    for (i, (name, own)) in first.weights.iter().enumerate() {
        let (path, of) = (other.path.clone(), first.path.clone());
        let tensor = name.to_owned();
        let Some(found) = other.weights.get(name) else {
            match form(i, own) {
                Counterpart::None => continue,
                _ => return Err(Misfit::Missing { path, first: of, tensor }),
            }
        };
        let found = match form(i, found) {
            Counterpart::None => continue,
            Counterpart::Own => found.clone(),
            Counterpart::Changed(changed) => changed,
        };
        if found.dims() != own.dims() {
            let (expected, found) = (own.dims().to_vec(), found.dims().to_vec());
            return Err(Misfit::Shape { path, first: of, tensor, expected, found });
        }
        out.push((i, found));
    }
    Ok(out)
}

/// The first class whose names differ, if both state them.
pub(super) fn differing_class(a: &Checkpoint, b: &Checkpoint) -> Option<(usize, String, String)> {
    let (Some(a), Some(b)) = (&a.class_names, &b.class_names) else { return None };
    let differing = a.iter().zip(b).position(|(a, b)| a != b);
    let class = differing.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))?;
    let name = |names: &[String]| names.get(class).cloned().unwrap_or_else(|| "none".into());
    Some((class, name(a), name(b)))
}
