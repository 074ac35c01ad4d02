use super::*;
use std::fs;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> (TempDir, String) {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let spec = root.path().display().to_string();
    (root, spec)
}

fn open(specs: &[&String]) -> Result<DataSet, Error> {
    let specs: Vec<String> = specs.iter().map(|spec| (*spec).clone()).collect();
    DataSet::open_all(&specs, OnBadSample::Fail)
}

/// An IDX test split of one-pixel images.
fn idx(levels: &[u8], labels: &[u8]) -> (TempDir, String) {
    let root = tempfile::tempdir().unwrap();
    let n = levels.len() as u8;
    let images = [&[0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 1, 0, 0, 0, 1][..], levels].concat();
    fs::write(root.path().join("t10k-images-idx3-ubyte"), images).unwrap();
    let labels = [&[0, 0, 8, 1, 0, 0, 0, labels.len() as u8][..], labels].concat();
    fs::write(root.path().join("t10k-labels-idx1-ubyte"), labels).unwrap();
    let spec = root.path().display().to_string();
    (root, spec)
}

#[test]
fn images_follow_each_other_and_classes_match_by_name() {
    let (_a, a) =
        folder(&[("train/dog/1.jpg", "a"), ("train/ant/2.jpg", "b"), ("test/dog/3.jpg", "c")]);
    let (_b, b) = folder(&[("train/cat/1.jpg", "d"), ("train/dog/1.jpg", "a")]);
    let data = open(&[&b, &a]).unwrap();
    assert_eq!((data.kind, data.by_name), ("folder", true));
    let train = data.train().unwrap();
    assert_eq!(train.class_names().unwrap(), ["ant", "cat", "dog"]);
    assert_eq!(train.labels(), [1, 2, 0, 2]);
    let file = |i| train.file(i).unwrap().display().to_string();
    assert_eq!(file(1), format!("{b}/train/dog/1.jpg"));
    assert_eq!(file(2), format!("{a}/train/ant/2.jpg"));
    assert_eq!(data.test().unwrap().labels(), [2]);
    // Each source is a group.
    let (of, names) = train.groups().unwrap();
    assert_eq!((of, names), (&[0, 0, 1, 1][..], &[b.clone(), a.clone()][..]));
    let note = data.notes.iter().find(|note| note.contains("copies")).unwrap();
    assert!(note.contains("1 images are copies") && note.contains("train/dog/1.jpg"), "{note}");
    // The digest is that of the files in this order.
    assert_ne!(train.digest(), open(&[&a, &b]).unwrap().train().unwrap().digest());
    assert_eq!(train.digest(), open(&[&b, &a]).unwrap().train().unwrap().digest());
}

#[test]
fn arrays_are_joined_if_their_shapes_agree() {
    let ((_a, a), (_b, b)) = (idx(&[1, 2], &[0, 4]), idx(&[3], &[2]));
    let data = open(&[&a, &b]).unwrap();
    let test = data.test().unwrap();
    assert_eq!(
        (test.labels(), test.image_shape(), data.by_name),
        (&[0, 4, 2][..], Some([1, 1, 1]), false)
    );
    let expected = Split::from_levels("", vec![1, 2, 3], [1, 1, 1], vec![0, 4, 2]).unwrap();
    assert_eq!(test.digest(), expected.digest());
}

/// A file of prepared images of one pixel.
fn prepared(values: &[f32], labels: &[i64]) -> (TempDir, String) {
    use safetensors::{Dtype, tensor::TensorView};
    let root = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let targets: Vec<u8> = labels.iter().flat_map(|x| x.to_le_bytes()).collect();
    let n = values.len();
    let all = [
        ("pixel_values", TensorView::new(Dtype::F32, vec![n, 1, 1, 1], &pixels).unwrap()),
        ("labels", TensorView::new(Dtype::I64, vec![n], &targets).unwrap()),
    ];
    let file = root.path().join("a.safetensors");
    fs::write(&file, safetensors::tensor::serialize(all, None).unwrap()).unwrap();
    let spec = format!("tensors:{}", file.display());
    (root, spec)
}

#[test]
fn prepared_images_are_joined_without_what_surrounds_them() {
    let ((_a, a), (_b, b)) = (prepared(&[0.5, -2.0], &[1, 0]), prepared(&[7.0], &[1]));
    let data = open(&[&a, &b, &a]).unwrap();
    let split = data.only().unwrap();
    assert_eq!(split.labels(), [1, 0, 1, 1, 0]);
    assert_eq!(split.pixels(&[0, 1, 2, 3, 4], None, None).unwrap(), [0.5, -2.0, 7.0, 0.5, -2.0]);
    assert_eq!(data.kind, "tensors");
}

#[test]
fn lists_keep_their_domains() {
    let (_a, a) = folder(&[("1.jpg", "a"), ("l.csv", "path,label,domain\n1.jpg,x,art\n")]);
    let (_b, b) = folder(&[("x/1.jpg", "b")]);
    let data = open(&[&format!("{a}/l.csv"), &b]).unwrap();
    assert_eq!(data.kind, "several");
    let (of, names) = data.only().unwrap().groups().unwrap();
    assert_eq!((of, names), (&[0, 1][..], &["art".to_owned(), b][..]));
}

#[test]
fn sources_that_do_not_go_together_are_named() {
    let (_a, a) = folder(&[("train/dog/1.jpg", "a")]);
    let (_b, b) = folder(&[("dog/1.jpg", "b")]);
    let (_c, c) = idx(&[1], &[0]);
    let (_d, d) = folder(&[("test/dog/1.jpg", "a")]);
    let message = |specs: &[&String]| open(specs).unwrap_err().to_string();
    assert!(
        message(&[&a, &b]).contains("without splits and with splits"),
        "{}",
        message(&[&a, &b])
    );
    assert!(message(&[&d, &c]).contains("with class names and without"), "{}", message(&[&d, &c]));
    let (_n, named) = idx(&[1], &[0]);
    fs::write(format!("{named}/classes.txt"), "dog\n").unwrap();
    let error = message(&[&d, &named]);
    assert!(error.contains("image files and arrays") && error.contains(&named), "{error}");
    let (_o, other) = idx(&[1], &[0]);
    fs::write(format!("{other}/classes.txt"), "emu\n").unwrap();
    assert!(message(&[&named, &other]).contains("\"emu\""), "{}", message(&[&named, &other]));
    assert!(matches!(DataSet::open_all(&[], OnBadSample::Fail), Err(Error::Empty { .. })));
}

#[test]
fn missing_files_of_a_list_can_be_skipped() {
    let (_a, a) = folder(&[("1.jpg", "a"), ("l.csv", "path,label\n1.jpg,x\n2.jpg,y\n")]);
    let list = vec![format!("{a}/l.csv")];
    let error = DataSet::open_all(&list, OnBadSample::Fail).unwrap_err().to_string();
    assert!(error.contains("line 3") && error.contains("on_bad_sample"), "{error}");
    let data = DataSet::open_all(&list, OnBadSample::Skip).unwrap();
    assert_eq!(data.only().unwrap().len(), 2);
    let bad = data.only().unwrap().sound(None).unwrap_err().to_string();
    assert!(bad.contains("found none among 2"), "{bad}");
}
