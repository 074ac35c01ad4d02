//! Parses which shifts and which out-of-distribution images to evaluate.

use crate::data::{CifarC, Error as DataError, Split};
use crate::shift::{Corruption, settings};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Corruptions and severities, in text as `corruptions:fog,snow:1,3` or `cifar-c:DIR:fog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
    /// A folder of CIFAR-10-C or CIFAR-100-C, whose images are already corrupted.
    pub(super) files: Option<PathBuf>,
    pub(super) corruptions: Vec<Corruption>,
    pub(super) severities: Vec<usize>,
}

/// `corruptions`, `corruptions:fog,snow`, `corruptions:fog:1,3`, `corruptions::5`; after
/// `cifar-c:DIR` the same.
impl FromStr for Shift {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text)
    }
}

fn parse(text: &str) -> Result<Shift, String> {
    let mut parts = text.split(':');
    let files = match parts.next() {
        Some("corruptions") => None,
        Some("cifar-c") => match parts.next() {
            Some(folder) if !folder.is_empty() => Some(PathBuf::from(folder)),
            _ => return Err("expected a folder, as in cifar-c:CIFAR-10-C".into()),
        },
        _ => {
            return Err("expected corruptions[:names][:severities] or \
                        cifar-c:DIR[:names][:severities], as in corruptions:fog:1,3"
                .into());
        }
    };
    let (names, severities) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    if let Some(more) = parts.next() {
        return Err(format!(
            "expected names and severities, and nothing after them; found \"{more}\""
        ));
    }
    let all: Vec<&str> = Corruption::ALL.iter().map(|c| c.name()).collect();
    let unknown = |name: &str| format!("no corruption \"{name}\"; there are {}", all.join(", "));
    let named = |name: &str| Corruption::named(name).ok_or_else(|| unknown(name));
    let asked: Vec<Corruption> = match names {
        "" => Corruption::ALL.to_vec(),
        names => names.split(',').map(named).collect::<Result<_, _>>()?,
    };
    let severity = |text: &str| match text.parse() {
        Ok(n @ 1..=5) => Ok(n),
        _ => Err(format!("severity \"{text}\": expected 1 to 5")),
    };
    let severities: Vec<usize> = match severities {
        "" => (1..=5).collect(),
        some => some.split(',').map(severity).collect::<Result<_, _>>()?,
    };
    let corruptions = Corruption::ALL.into_iter().filter(|c| asked.contains(c)).collect();
    let severities = (1..=5).filter(|s| severities.contains(s)).collect();
    Ok(Shift { files, corruptions, severities })
}

/// `NAME=DATA`.
pub fn ood(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, data)) if !name.is_empty() && !data.is_empty() => {
            Ok((name.into(), data.into()))
        }
        _ => Err("expected NAME=DATA, as in digits=mnist/".into()),
    }
}

impl Shift {
    /// The cells, in the paper's order.
    pub fn cells(&self) -> impl Iterator<Item = (Corruption, usize)> {
        let at = |&corruption| self.severities.iter().map(move |&severity| (corruption, severity));
        self.corruptions.iter().flat_map(at)
    }

    /// The files that hold the images, if they are not made on the fly.
    ///
    /// # Errors
    /// Files that do not show the images of `split`.
    pub fn files(&self, split: &Split) -> Result<Option<CifarC>, DataError> {
        self.files.as_deref().map(|folder| opened(folder, split)).transpose()
    }

    /// Where the images come from: whose settings, or which folder.
    pub fn origin(&self, image_size: [usize; 2]) -> String {
        match &self.files {
            Some(folder) => format!("files of {}", folder.display()),
            None => settings(image_size).into(),
        }
    }
}

/// The files of a folder, if they have the images that the model was evaluated on.
fn opened(folder: &Path, split: &Split) -> Result<CifarC, DataError> {
    let files = CifarC::open(folder)?;
    match files.labels() == split.labels() {
        true => Ok(files),
        false => Err(DataError::Missing {
            path: folder.into(),
            expected: format!("the labels of {}", split.place()),
            found: format!("{} other labels", files.labels().len()),
            remedy: "evaluate the test split of the same data set, whole".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_parsed_or_rejected() {
        let all = parse("corruptions").unwrap();
        assert_eq!((all.corruptions.len(), all.severities), (15, vec![1, 2, 3, 4, 5]));
        let some = parse("corruptions:snow,fog:5,1,5").unwrap();
        assert_eq!(some.corruptions, [Corruption::Snow, Corruption::Fog]);
        assert_eq!(some.severities, [1, 5]);
        assert_eq!(parse("corruptions::3").unwrap().severities, [3]);
        assert!(parse("corruptions:rain").unwrap_err().contains("gaussian_noise"));
        assert!(parse("corruptions:fog:6").unwrap_err().contains("1 to 5"));
        assert!(parse("rotations").unwrap_err().contains("corruptions[:names]"));
        let files = parse("cifar-c:c/CIFAR-10-C:fog:2").unwrap();
        assert_eq!((files.files, files.severities), (Some("c/CIFAR-10-C".into()), vec![2]));
        assert!(parse("cifar-c:").unwrap_err().contains("folder"));
        assert!(parse("corruptions:fog:1:2").unwrap_err().contains("\"2\""));
        assert_eq!(ood("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(["a", "=b", "a="].iter().all(|text| ood(text).is_err()));
    }
}
