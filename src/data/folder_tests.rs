use super::super::{CropOffset, DataSet, DecodeError, Interpolation, Preprocess, Resize};
use super::*;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

/// A folder with these files, each with its path as content.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match file.ends_with('/') {
            true => fs::create_dir_all(path).unwrap(),
            false => fs::write(path, file).unwrap(),
        }
    }
    root
}

fn open_at(root: &tempfile::TempDir) -> Result<DataSet, Error> {
    DataSet::open(root.path().to_str().unwrap())
}

fn opened(files: &[&str]) -> (tempfile::TempDir, DataSet) {
    let root = tree(files);
    let data = open_at(&root).unwrap();
    (root, data)
}

/// Relative paths and labels of a split, in its order.
fn listed(root: &tempfile::TempDir, split: &Split) -> Vec<(String, u32)> {
    let super::super::store::Store::Files(files) = &*split.store else { panic!("no files") };
    let path = |row: &usize| {
        let path = files.path(*row).unwrap();
        path.strip_prefix(root.path()).unwrap().to_str().unwrap().to_owned()
    };
    split.rows.iter().map(path).zip(split.labels().iter().copied()).collect()
}

fn refused(files: &[&str], parts: &[&str]) {
    let root = tree(files);
    let error = open_at(&root).unwrap_err();
    assert!(matches!(error, Error::Folders { .. }), "{error}");
    parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{error}"));
}

#[test]
fn splits_and_classes_match_torchvision() {
    // Created in unsorted order; "10" comes before "9", "B" before "a".
    let (root, data) = opened(&[
        "val/a/x.png",
        "train/a/2.jpg",
        "train/a/10.jpeg",
        "train/9/z.webp",
        "train/B/y.PNG",
        "train/10/q.JPG",
        "val/10/w.JpEg",
        "test/9/v.png",
    ]);
    assert_eq!((data.kind, data.splits().len()), ("folder", 3));
    assert_eq!(data.train().unwrap().class_names().unwrap(), ["10", "9", "B", "a"]);
    let expected = [
        ("train/10/q.JPG", 0),
        ("train/9/z.webp", 1),
        ("train/B/y.PNG", 2),
        ("train/a/10.jpeg", 3),
        ("train/a/2.jpg", 3),
    ];
    assert_eq!(
        listed(&root, data.train().unwrap()),
        expected.map(|(path, label)| (path.to_owned(), label))
    );
    // Numbered by the classes of train. These splits contain two and one of them.
    assert_eq!(data.val().unwrap().labels(), [0, 3]);
    assert_eq!(data.test().unwrap().labels(), [1]);
    assert!(data.notes.iter().any(|n| n.contains("split val has no class folder \"9\", \"B\"")));
}

#[test]
fn validation_is_an_alias_of_val_in_any_case() {
    let (_root, data) = opened(&["Validation/a/x.png", "TRAIN/a/x.png"]);
    assert_eq!(data.val().unwrap().name(), "val");
    refused(&["val/a/x.png", "validation/a/x.png"], &["\"val\" and \"validation\""]);
}

#[test]
fn class_folders_alone_are_one_split() {
    let (root, data) = opened(&["dog/1.png", "cat/2.png", "cat/1.png"]);
    let all = data.only().unwrap();
    assert_eq!(listed(&root, all).iter().map(|(_, y)| *y).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(all.class_names().unwrap(), ["cat", "dog"]);
}

#[test]
fn a_class_may_be_called_train() {
    let (_root, data) = opened(&["car/1.png", "train/1.png", "bus/1.png"]);
    assert_eq!(data.only().unwrap().class_names().unwrap(), ["bus", "car", "train"]);
}

#[test]
fn images_without_class_folders_are_refused() {
    refused(&["1.png", "2.png"], &["2 files and no folders", "tensors:FILE"]);
    refused(&["train/1.png", "test/2.png"], &["\"test\", \"train\" without class folders"]);
    refused(&[], &["nothing"]);
}

#[test]
fn nested_folders_are_sorted_as_in_python() {
    // os.walk's roots sorted as strings: '-' is before '/', so `a-b` is before `a/c`.
    let (root, data) = opened(&["k/a/c/1.png", "k/a-b/1.png", "k/a/2.png", "k/z.png"]);
    let paths = listed(&root, data.only().unwrap()).into_iter().map(|(path, _)| path);
    assert_eq!(paths.collect::<Vec<_>>(), ["k/z.png", "k/a/2.png", "k/a-b/1.png", "k/a/c/1.png"]);
}

#[test]
fn hidden_and_other_files_are_skipped() {
    let (root, data) = opened(&[
        "train/a/.DS_Store",
        "train/a/._1.jpg",
        "train/a/1.jpg",
        "train/a/notes.txt",
        "train/a/scan.HEIC",
        "train/.ipynb_checkpoints/x.jpg",
        "train/.DS_Store",
        ".git/a/x.jpg",
        "readme.md",
    ]);
    assert_eq!(listed(&root, data.train().unwrap()), [("train/a/1.jpg".to_owned(), 0)]);
    assert_eq!(data.notes.len(), 1, "{:?}", data.notes);
    assert!(data.notes[0].contains("1 files of type .heic"), "{:?}", data.notes);
}

#[test]
fn an_empty_class_keeps_its_number_and_an_empty_split_is_refused() {
    let (_root, data) = opened(&["train/a/1.png", "train/b/", "train/c/1.png"]);
    assert_eq!(data.train().unwrap().labels(), [0, 2]);
    assert!(data.notes[0].contains("the class \"b\" has no images"), "{:?}", data.notes);
    let root = tree(&["train/a/1.png", "val/a/"]);
    assert!(
        matches!(open_at(&root).unwrap_err(), Error::Empty { place } if place.ends_with("val"))
    );
}

#[test]
fn classes_that_differ_in_case_are_two_with_a_note() {
    let (_root, data) = opened(&["cat/1.png", "Cat/1.png"]);
    assert_eq!(data.only().unwrap().class_names().unwrap(), ["Cat", "cat"]);
    assert!(data.notes[0].contains("\"Cat\" and \"cat\" differ only in case"), "{:?}", data.notes);
}

#[test]
fn a_class_that_is_not_in_train_is_refused() {
    refused(&["train/a/1.png", "val/a/1.png", "val/b/1.png"], &["\"b\", which are not in train"]);
    // Without train, the classes are those of all splits together.
    let (_root, data) = opened(&["val/b/1.png", "test/a/1.png"]);
    assert_eq!(data.val().unwrap().labels(), [1]);
    assert_eq!(data.test().unwrap().labels(), [0]);
}

#[test]
fn other_folders_are_ignored_with_a_note() {
    let (_root, data) = opened(&["train/a/1.png", "extra/a/1.png"]);
    assert_eq!(data.splits().len(), 1);
    assert!(data.notes[0].contains("\"extra\" is not the name of a split"), "{:?}", data.notes);
}

#[test]
fn links_are_followed_and_dangling_links_are_errors() {
    let target = tree(&["b/1.png"]);
    let root = tree(&["a/1.png"]);
    symlink(target.path().join("b"), root.path().join("b")).unwrap();
    symlink("1.png", root.path().join("a/2.png")).unwrap();
    symlink("gone.png", root.path().join("a/3.png")).unwrap();
    let data = open_at(&root).unwrap();
    assert_eq!(data.only().unwrap().labels(), [0, 0, 0, 1]);
    // A dangling link is an image that cannot be read.
    let error = data.only().unwrap().image(2, Some(&grey()), None).unwrap_err();
    let named = matches!(&error, Error::Image { path, cause: DecodeError::Read(_) } if path.ends_with("3.png"));
    assert!(named, "{error}");
}

fn grey() -> Preprocess {
    Preprocess {
        image_size: [1, 1],
        channels: 1,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0],
        std: vec![1.0],
    }
}

#[test]
fn a_link_to_another_class_is_refused() {
    let root = tree(&["a/1.png"]);
    symlink("a", root.path().join("b")).unwrap();
    let error = open_at(&root).unwrap_err().to_string();
    assert!(error.contains("\"a\" and \"b\", which are the same folder through a link"), "{error}");
    let root = tree(&["a/1.png"]);
    symlink("..", root.path().join("a/up")).unwrap();
    let error = open_at(&root).unwrap_err().to_string();
    assert!(error.contains("a link back to"), "{error}");
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    let root = tree(&["a/1.png"]);
    fs::create_dir(root.path().join(std::ffi::OsStr::from_bytes(b"\xFF"))).unwrap();
    let error = open_at(&root).unwrap_err();
    assert!(matches!(error, Error::Folders { .. }), "{error}");
}
