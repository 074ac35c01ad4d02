//! Image files that cannot be decoded, left out of a data set if the user asks.

use crate::checkpoint::Checkpoint;
use crate::data::{DataSet, Error as DataError, OnBadSample, Preprocess, Split, renumber};

/// Leaves bad files out if asked, and notes each.
///
/// # Errors
/// [`DataError::AllBad`] if no other is left in a split.
pub fn leave_out(
    policy: OnBadSample,
    data: &mut DataSet,
    preprocess: Option<&Preprocess>,
) -> Result<Vec<String>, DataError> {
    if policy == OnBadSample::Fail {
        return Ok(Vec::new());
    }
    let files: usize = data.splits().iter().map(Split::len).sum();
    let mut notes = Vec::new();
    for error in data.drop_bad(preprocess)? {
        notes.push(match error {
            DataError::Image { path, flaw } => format!("skipped {}: {flaw}", path.display()),
            other => format!("skipped: {other}"),
        });
    }
    if !notes.is_empty() {
        let (place, bad) = (data.path.display(), notes.len());
        notes.push(format!("{place}: {bad} of {files} image files cannot be decoded: skipped"));
    }
    Ok(notes)
}

/// Reads the data of a training: classes numbered as the parent's if it names all of them, bad image files
/// left out if asked. Returns notes for the reader, too.
///
/// # Errors
/// Those of [`DataSet::open`], [`renumber`] and [`leave_out`].
pub fn open_for_training(
    policy: OnBadSample,
    spec: &str,
    parent: Option<&Checkpoint>,
) -> Result<(DataSet, Vec<String>), DataError> {
    let mut data = DataSet::open(spec)?;
    let mut notes = std::mem::take(&mut data.notes);
    renumber(&mut data, parent.and_then(|parent| parent.class_names.as_deref()))?;
    let preprocess = parent.and_then(|parent| parent.preprocess.as_ref());
    notes.extend(leave_out(policy, &mut data, preprocess)?);
    Ok((data, notes))
}
