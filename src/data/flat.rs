//! Images without labels: a file, or all images at any depth below a folder.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::Files;
use super::walk::images;
use super::{DataSet, Error, Split, missing};

impl DataSet {
    /// Opens image files for prediction: one split called `all`, in byte order of folders and names. All labels
    /// are 0 and mean nothing.
    ///
    /// # Errors
    /// [`Error::Missing`] for a path that does not exist; [`Error::Empty`] for a folder without images;
    /// [`Error::Read`], [`Error::Folders`] for folders that cannot be listed.
    pub fn unlabelled(path: &Path) -> Result<Self, Error> {
        let mut files = Files::default();
        let mut other: BTreeMap<String, usize> = BTreeMap::new();
        if path.is_dir() {
            for (folder, names) in images(path, &mut other)? {
                files.add(&folder, names);
            }
        } else if let (true, Some(what)) = (path.is_file(), container(path)) {
            return Err(Error::Missing {
                path: path.to_owned(),
                expected: "a folder of images or an image".into(),
                found: what.into(),
                remedy:
                    "give the folder of the images; write or unpack them to files if they have none"
                        .into(),
            });
        } else if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            files.add(path.parent().unwrap_or(Path::new("")), [name.to_owned()]);
        } else {
            return Err(missing(path, "a folder of images or an image", "correct the path"));
        }
        let place = path.display().to_string();
        if files.len() == 0 {
            return Err(Error::Empty { place });
        }
        let note = |(kind, count): (String, usize)| {
            format!(
                "{place}: {count} files of type .{kind} are ignored: only JPEG, PNG, WebP, BMP, TIFF and GIF are read"
            )
        };
        let notes = other.into_iter().map(note).collect();
        let labels = vec![0; files.len()];
        let split = Split::of_files(&place, "all", files, labels, None);
        Ok(Self {
            path: path.to_owned(),
            kind: "images",
            by_name: false,
            notes,
            splits: vec![split],
        })
    }
}

/// What a file of several images is called.
fn container(path: &Path) -> Option<&'static str> {
    let end = path.extension()?.to_str()?.to_lowercase();
    Some(match end.as_str() {
        "csv" => "a CSV file",
        "tar" => "a tar archive",
        "parquet" => "a Parquet file",
        "zip" => "a zip archive",
        "safetensors" => "a safetensors file",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_of_several_images_are_named() {
        let root = tempfile::tempdir().unwrap();
        for (name, what) in [
            ("list.csv", "a CSV file"),
            ("a.TAR", "a tar archive"),
            ("x.parquet", "a Parquet file"),
        ] {
            let path = root.path().join(name);
            fs::write(&path, "x").unwrap();
            let error = DataSet::unlabelled(&path).unwrap_err().to_string();
            assert!(error.contains(what) && error.contains("folder of the images"), "{error}");
        }
        let path = root.path().join("a.jpg");
        fs::write(&path, "x").unwrap();
        assert_eq!(DataSet::unlabelled(&path).unwrap().only().unwrap().len(), 1);
    }
}
