use super::*;
use crate::data::{CropOffset, DataSet, Interpolation, Preprocess, Resize};
use std::fs;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/webdataset");

/// The colour of one image of 4×5 pixels.
fn colour(split: &Split, index: usize) -> Vec<u64> {
    let preprocess = Preprocess {
        image_size: [4, 5],
        channels: 3,
        resize: Resize::Squash,
        crop_offset: CropOffset::HalfToEven,
        interpolation: Interpolation::Bilinear,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    };
    let values = split.pixels(&[index], Some(&preprocess), None).unwrap();
    (0..3).map(|c| (values[20 * c] * 255.0).round() as u64).collect()
}

/// Compares a split with what webdataset reads from `pattern`.
fn same(split: &Split, pattern: &str) {
    let text = fs::read_to_string(format!("{FILES}/expected.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let expected = &all[pattern];
    assert_eq!(expected["labels"].as_array().unwrap().len(), split.len());
    for i in 0..split.len() {
        let label = match &expected["labels"][i] {
            Value::String(name) => {
                split.class_names().unwrap().iter().position(|own| own == name).unwrap() as u64
            }
            label => label.as_u64().unwrap(),
        };
        assert_eq!(u64::from(split.labels()[i]), label, "{pattern} {i}");
        assert_eq!(serde_json::json!(colour(split, i)), expected["levels"][i], "{pattern} {i}");
    }
}

#[test]
fn shards_are_read_as_by_webdataset() {
    let data = DataSet::open(FILES).unwrap();
    assert_eq!((data.kind, data.by_name), ("webdataset", false));
    assert_eq!(data.splits().iter().map(Split::name).collect::<Vec<_>>(), ["train", "val"]);
    same(data.train().unwrap(), "train-{000000..000001}.tar");
    same(data.val().unwrap(), "val-000000.tar");
    assert_eq!(data.val().unwrap().class_names().unwrap()[2], "cow");
    let range = DataSet::open(&format!("{FILES}/train-{{000000..000001}}.tar")).unwrap();
    same(range.train().unwrap(), "train-{000000..000001}.tar");
    assert_eq!(range.train().unwrap().digest(), data.train().unwrap().digest());
    let named = DataSet::open(&format!("{FILES}/named")).unwrap();
    assert!(named.by_name);
    same(named.only().unwrap(), "named/part-0.tar");
    assert_eq!(named.only().unwrap().class_names().unwrap(), ["cat", "dog", "emu"]);
}

/// Folders of splits, with any names of archives in them.
#[test]
fn folders_of_splits_are_read() {
    let root = tempfile::tempdir().unwrap();
    for (split, file) in [("train", "train-000000.tar"), ("validation", "val-000000.tar")] {
        fs::create_dir(root.path().join(split)).unwrap();
        fs::copy(format!("{FILES}/{file}"), root.path().join(split).join("00.tar")).unwrap();
    }
    let data = DataSet::open(root.path().to_str().unwrap()).unwrap();
    assert_eq!((data.train().unwrap().len(), data.val().unwrap().len()), (4, 3));
    same(data.val().unwrap(), "val-000000.tar");
}

fn archive(files: &[(&str, &[u8])]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let mut out = Builder::new(fs::File::create(&path).unwrap());
    for (name, bytes) in files {
        let mut header = Header::new_ustar();
        // `set_path` refuses names that leave the archive.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        out.append(&header, *bytes).unwrap();
    }
    out.finish().unwrap();
    (folder, path)
}

fn message(path: &Path) -> String {
    DataSet::open(path.to_str().unwrap()).unwrap_err().to_string()
}

#[test]
fn problems_name_the_file_in_the_archive() {
    let image = &b"x"[..];
    for (files, part) in [
        (&[("../0.png", image), ("../0.cls", b"1")][..], "a name that leaves it"),
        (&[("/0.png", image), ("/0.cls", b"1")], "a name that leaves it"),
        (&[("0.png", image)], "neither `cls` nor `json`"),
        (&[("0.png", image), ("1.cls", b"1")], "neither `cls` nor `json`"),
        (&[("0.png", image), ("0.jpg", image), ("0.cls", b"1")], "one image in each sample"),
        (&[("0.png", image), ("0.cls", b"")], "an empty one"),
        (&[("0.png", image), ("0.cls", b"\xff\xfe")], "a label in UTF-8"),
        (&[("0.png", image), ("0.cls", b"100000")], "below 100000, found 100000"),
        (&[("0.png", image), ("0.json", b"[")], "other text"),
        (&[("0.png", image), ("0.json", b"{\"caption\": \"a dog\"}")], "none of them"),
        (&[("0.png", image), ("0.json", b"{\"label\": 1.5}")], "found 1.5"),
        (&[("0.txt", b"text"), ("0.cls", b"1")], "at least one image"),
    ] {
        let (_folder, path) = archive(files);
        let error = message(&path);
        assert!(error.contains("a.tar") && error.contains(part), "{part}: {error}");
    }
}

#[test]
fn samples_without_images_are_counted_and_other_files_ignored() {
    let files: [(&str, &[u8]); 6] = [
        ("._0.png", b"x"),
        ("0.cls", b" 3\n"),
        ("0.JPG", b"x"),
        ("README", b"x"),
        ("1.json", b"{}"),
        ("b.c/2.png", b"x"),
    ];
    let mut all = files.to_vec();
    all.push(("b.c/2.json", b"{\"class\": 5}"));
    let (_folder, path) = archive(&all);
    let data = DataSet::open(path.to_str().unwrap()).unwrap();
    assert_eq!(data.only().unwrap().labels(), [3, 5]);
    assert!(data.notes[0].contains("1 samples have no image"), "{:?}", data.notes);
    assert!(data.only().unwrap().file(1).unwrap().ends_with("a.tar/b.c/2.png"));
}

#[test]
fn links_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let mut out = Builder::new(fs::File::create(&path).unwrap());
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(EntryType::Symlink);
    out.append_link(&mut header, "0.png", "/etc/passwd").unwrap();
    out.finish().unwrap();
    assert!(message(&path).contains("0.png: expected a file, found Symlink"), "{}", message(&path));
}

#[test]
fn damaged_archives_are_errors() {
    let whole = fs::read(format!("{FILES}/named/part-0.tar")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let last = whole.iter().rposition(|&byte| byte != 0).unwrap();
    for length in (0..last).step_by(100) {
        fs::write(&path, &whole[..length]).unwrap();
        match DataSet::open(path.to_str().unwrap()) {
            Err(error) => assert!(error.to_string().contains("a.tar"), "{length}: {error}"),
            Ok(data) => assert!(data.notes[0].contains("may be cut short"), "{length}"),
        }
    }
    fs::write(&path, &whole).unwrap();
    assert!(DataSet::open(path.to_str().unwrap()).unwrap().notes.is_empty());
    fs::write(&path, [7; 2048]).unwrap();
    assert!(message(&path).contains("expected a tar archive"), "{}", message(&path));
    // A header that states eight gigabytes.
    let (_folder, path) = archive(&[("0.png", b"x"), ("0.cls", b"1")]);
    let mut bytes = fs::read(&path).unwrap();
    let mut header = Header::from_byte_slice(&bytes[..512]).clone();
    header.set_size((1 << 33) - 1);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
    fs::write(&path, bytes).unwrap();
    assert!(message(&path).contains("8589934591 bytes from byte 512"), "{}", message(&path));
}

#[test]
fn missing_and_compressed_archives_are_named() {
    let root = tempfile::tempdir().unwrap();
    fs::copy(format!("{FILES}/val-000000.tar"), root.path().join("val-0.tar")).unwrap();
    let of = |name: &str| message(&root.path().join(name));
    assert!(of("val-{0..2}.tar").contains("val-1.tar: expected a tar archive, found nothing"));
    assert!(of("none.tar").contains("found nothing"));
    fs::write(root.path().join("val-1.tar.gz"), "x").unwrap();
    assert!(of("").contains("not compressed") && of("").contains("gunzip"), "{}", of(""));
    fs::remove_file(root.path().join("val-1.tar.gz")).unwrap();
    fs::copy(format!("{FILES}/val-000000.tar"), root.path().join("other.tar")).unwrap();
    assert!(of("").contains("other.tar") && of("").contains("train, val or test"), "{}", of(""));
}
