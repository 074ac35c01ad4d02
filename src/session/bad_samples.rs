//! Image files that are damaged or cannot be decoded: noted, or left out on request.

use crate::checkpoint::Checkpoint;
use crate::data::{
    DamagedFile, DataSet, Error as DataError, OnBadSample, Preprocess, Split, renumber,
};

/// Maximum number of damaged files listed in a note.
const NAMED: usize = 3;

/// A note about damaged files.
pub fn damage_note(files: &[DamagedFile]) -> Option<String> {
    let name = |file: &DamagedFile| format!("{} ({})", file.path.display(), file.warning);
    let named: Vec<String> = files.iter().take(NAMED).map(name).collect();
    let more = match files.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let (count, are) = match files.len() {
        0 => return None,
        1 => ("1 JPEG file".to_owned(), "is damaged and was"),
        n => (format!("{n} JPEG files"), "are damaged and were"),
    };
    Some(format!(
        "{count} {are} decoded as far as possible, as Pillow does: {}{more}; set `on_bad_sample` to \
         skip to leave out such files",
        named.join(", ")
    ))
}

/// Leaves out bad files if requested, with a note for each.
///
/// # Errors
/// [`DataError::AllBad`] if no images of a split remain.
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
            DataError::Image { path, cause } => format!("skipped {}: {cause}", path.display()),
            other => format!("skipped: {other}"),
        });
    }
    if !notes.is_empty() {
        let (place, bad) = (data.path.display(), notes.len());
        notes.push(format!(
            "{place}: {bad} of {files} image files cannot be decoded or are damaged: skipped"
        ));
    }
    Ok(notes)
}

/// Reads training data. Classes are numbered as the parent's if it has all their names. Bad image
/// files are left out if requested. Also returns notes.
///
/// # Errors
/// Those of [`DataSet::open_all`], [`renumber`] and [`leave_out`].
pub fn open_for_training(
    policy: OnBadSample,
    specs: &[String],
    parent: Option<&Checkpoint>,
) -> Result<(DataSet, Vec<String>), DataError> {
    let mut data = DataSet::open_all(specs, policy)?;
    let mut notes = std::mem::take(&mut data.notes);
    renumber(&mut data, parent.and_then(|parent| parent.class_names.as_deref()))?;
    let preprocess = parent.and_then(|parent| parent.preprocess.as_ref());
    notes.extend(leave_out(policy, &mut data, preprocess)?);
    Ok((data, notes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_counts_all_and_names_some() {
        let file =
            |i: usize| DamagedFile { path: format!("{i}.jpg").into(), warning: "bad".into() };
        let note = |n: usize| damage_note(&(0..n).map(file).collect::<Vec<_>>());
        assert_eq!(note(0), None);
        let one = note(1).unwrap();
        assert!(
            one.starts_with("1 JPEG file is damaged and was decoded")
                && one.contains("0.jpg (bad);")
        );
        let many = note(5).unwrap();
        assert!(many.starts_with("5 JPEG files are damaged and were decoded"), "{many}");
        assert!(many.contains("2.jpg (bad) and 2 more;") && !many.contains("3.jpg"), "{many}");
    }
}
