//! Checks that checkpoints can be merged.

use crate::checkpoint::Checkpoint;
use crate::models::Weights;
use std::path::PathBuf;

/// Why checkpoints cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor has another shape.
    #[error(
        "{}: tensor \"{tensor}\": expected shape {expected:?}, as in {}, found {found:?}; merge \
         checkpoints of one architecture and image size",
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
        "{}: expected tensor \"{tensor}\", as in {}, found none; merge checkpoints of one architecture",
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
    /// Equal tensors, but another computation: other heads, another activation and the like.
    #[error(
        "{}: its tensors fit {}, but the two compute different functions (such as another number of \
         heads, activation or ε); merge checkpoints of one architecture",
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
         \"{expected}\" there; merge checkpoints that were fine-tuned on one data set",
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
        "{}: prepares images in another way ({found}) than {} ({expected}); merge checkpoints with \
         the same preprocessing, or set it with options",
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
    /// Too few or too many checkpoints.
    #[error("the method {method} merges {expected}, found {found}")]
    Count {
        /// The method.
        method: &'static str,
        /// How many it merges.
        expected: &'static str,
        /// How many were given.
        found: usize,
    },
}

/// Checks that `other` can be averaged with `first`.
///
/// # Errors
/// [`Error`], with the first difference.
pub(super) fn check_same(first: &Checkpoint, other: &Checkpoint) -> Result<(), Error> {
    fitting(first, other, |_| false)?;
    if first.config != other.config {
        return Err(Error::Computation { path: other.path.clone(), first: first.path.clone() });
    }
    if first.preprocess != other.preprocess {
        return Err(preprocessing(first, other));
    }
    match differing_class(first, other) {
        None => Ok(()),
        Some((class, expected, found)) => Err(Error::Classes {
            path: other.path.clone(),
            first: first.path.clone(),
            class,
            expected,
            found,
        }),
    }
}

/// The pretrained weights under the tuned model's parameters, the indices of those that have a
/// counterpart, and whether the head is one of them. The head has none if it has other classes.
///
/// # Errors
/// [`Error`] for any other difference.
pub(super) fn towards(
    tuned: &Checkpoint,
    pretrained: &Checkpoint,
) -> Result<(Weights, Vec<usize>, bool), Error> {
    let head = tuned.network.blocks().pop().map_or(Vec::new(), |head| head.tensors);
    let is_head = |i: usize| head.contains(&i);
    let names_differ = differing_class(tuned, pretrained).is_some();
    let same_head = !names_differ
        && head.iter().all(|&i| {
            let own = tuned.weights.tensor(i);
            let name = &tuned.weights.names()[i];
            pretrained.weights.get(name).is_some_and(|other| other.dims() == own.dims())
        });
    let found = fitting(tuned, pretrained, |i| is_head(i) && !same_head)?;
    if tuned.config.clone().with_classes(1) != pretrained.config.clone().with_classes(1) {
        return Err(Error::Computation {
            path: pretrained.path.clone(),
            first: tuned.path.clone(),
        });
    }
    // Another crop or filter does not matter, but weights for another normalisation do.
    let moments = |c: &Checkpoint| c.preprocess.as_ref().map(|p| (p.mean.clone(), p.std.clone()));
    if let (Some(own), Some(other)) = (moments(tuned), moments(pretrained))
        && own != other
    {
        return Err(preprocessing(tuned, pretrained));
    }
    let moved: Vec<usize> = found.iter().map(|(i, _)| *i).collect();
    Ok((tuned.weights.with(&found), moved, same_head))
}

fn preprocessing(first: &Checkpoint, other: &Checkpoint) -> Error {
    let words =
        |c: &Checkpoint| c.preprocess.as_ref().map_or("not stated".into(), |p| p.to_string());
    let (path, of) = (other.path.clone(), first.path.clone());
    Error::Preprocessing { path, first: of, expected: words(first), found: words(other) }
}

/// A note if the order of a checkpoint's classes is not known to be that of the first.
pub(super) fn unknown_classes(first: &Checkpoint, other: &Checkpoint) -> Option<String> {
    let [a, b] = [first, other].map(|c| c.class_names.is_some());
    let unnamed = if a { other } else { first };
    (a != b).then(|| {
        format!(
            "{}: its classes have no names; they are assumed to be in the order of the other \
             checkpoint's",
            unnamed.path.display()
        )
    })
}

/// The tensors of `other` under the indices of `first`, but for those to `skip`.
fn fitting(
    first: &Checkpoint,
    other: &Checkpoint,
    skip: impl Fn(usize) -> bool,
) -> Result<Vec<(usize, candle_core::Tensor)>, Error> {
    let mut out = Vec::new();
    for (i, (name, own)) in first.weights.iter().enumerate() {
        if skip(i) {
            continue;
        }
        let (path, of) = (other.path.clone(), first.path.clone());
        let tensor = name.to_owned();
        match other.weights.get(name) {
            None => return Err(Error::Missing { path, first: of, tensor }),
            Some(found) if found.dims() != own.dims() => {
                let (expected, found) = (own.dims().to_vec(), found.dims().to_vec());
                return Err(Error::Shape { path, first: of, tensor, expected, found });
            }
            Some(found) => out.push((i, found.clone())),
        }
    }
    Ok(out)
}

/// The first class whose names differ, if both state them.
fn differing_class(a: &Checkpoint, b: &Checkpoint) -> Option<(usize, String, String)> {
    let (Some(a), Some(b)) = (&a.class_names, &b.class_names) else { return None };
    let differing = a.iter().zip(b).position(|(a, b)| a != b);
    let class = differing.or_else(|| (a.len() != b.len()).then(|| a.len().min(b.len())))?;
    let name = |names: &[String]| names.get(class).cloned().unwrap_or_else(|| "none".into());
    Some((class, name(a), name(b)))
}
