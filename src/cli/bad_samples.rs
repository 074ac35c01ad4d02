//! What happens to image files that cannot be decoded.

use crate::checkpoint::Checkpoint;
use crate::data::{DataSet, Error as DataError, Preprocess, Split, renumber};

/// What happens to image files that cannot be decoded.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct BadSamples {
    /// An image file that cannot be decoded: stop at it, or decode all files once first and go on
    /// without the bad ones, each named
    #[arg(
        long = "on-bad-sample",
        value_name = "fail|skip",
        default_value = "fail",
        help_heading = "Data options"
    )]
    pub policy: OnBad,
}

/// Values of `--on-bad-sample`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnBad {
    /// The first such file is an error.
    #[default]
    Fail,
    /// They are left out, for good and everywhere.
    Skip,
}

impl BadSamples {
    /// Leaves bad files out if asked, and notes each.
    ///
    /// # Errors
    /// [`DataError::AllBad`] if no other is left in a split.
    pub fn apply(
        self,
        data: &mut DataSet,
        preprocess: Option<&Preprocess>,
    ) -> Result<Vec<String>, DataError> {
        if self.policy == OnBad::Fail {
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

    /// Reads the data of a training: classes numbered as the parent's if it names all of them, bad
    /// image files left out if asked. Returns notes for the reader, too.
    ///
    /// # Errors
    /// Those of [`DataSet::open`], [`renumber`] and [`BadSamples::apply`].
    pub fn open(
        self,
        spec: &str,
        parent: Option<&Checkpoint>,
    ) -> Result<(DataSet, Vec<String>), DataError> {
        let mut data = DataSet::open(spec)?;
        let mut notes = std::mem::take(&mut data.notes);
        renumber(&mut data, parent.and_then(|parent| parent.class_names.as_deref()))?;
        let preprocess = parent.and_then(|parent| parent.preprocess.as_ref());
        notes.extend(self.apply(&mut data, preprocess)?);
        Ok((data, notes))
    }
}
