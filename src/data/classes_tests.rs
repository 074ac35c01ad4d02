use super::ClassOrder::{Name, Sorted};
use super::*;
use crate::data::files::Files;

/// A data set of one split with one class per name, `n` images each.
fn data(kind: &'static str, names: &[&str], n: usize) -> DataSet {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut files = Files::default();
    files.add("folder".as_ref(), (0..names.len() * n).map(|i| format!("{i}.png").into()));
    let labels = (0..names.len() as u32).flat_map(|y| vec![y; n]).collect();
    let split = Split::of_files("folder", "all", files, labels, Some(names));
    DataSet {
        path: "folder".into(),
        kind,
        by_name: ["folder", "csv"].contains(&kind),
        notes: Vec::new(),
        splits: vec![split],
    }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The labels after numbering by `checkpoint_names`, and the notes.
fn labels(mut set: DataSet, checkpoint_names: &[&str]) -> Result<(Vec<u32>, Vec<String>), Error> {
    let notes = number_classes(
        &mut [&mut set],
        Some(&strings(checkpoint_names)),
        checkpoint_names.len(),
        Name,
    )?;
    Ok((set.splits[0].labels().to_vec(), notes))
}

#[test]
fn a_permuted_order_is_mapped() {
    let (found, notes) =
        labels(data("folder", &["bird", "cat", "dog"], 2), &["cat", "dog", "bird"]).unwrap();
    assert_eq!((found, notes.len()), (vec![2, 2, 0, 0, 1, 1], 0));
    let mut set = data("folder", &["bird", "cat"], 1);
    number_classes(&mut [&mut set], Some(&strings(&["cat", "dog", "bird"])), 3, Name).unwrap();
    assert_eq!(set.splits[0].class_names().unwrap(), ["cat", "dog", "bird"]);
    assert_eq!(set.splits[0].labels(), [2, 0], "a subset of the checkpoint's classes is enough");
}

#[test]
fn a_slash_in_a_class_name_matches_its_replacement_in_a_folder() {
    for folder in ["T-shirt_top", "T-shirt-top", "T-shirt top", "T-shirttop"] {
        let (found, notes) =
            labels(data("folder", &["Coat", folder], 1), &["T-shirt/top", "Coat"]).unwrap();
        assert_eq!((found, notes.len()), (vec![1, 0], 0), "{folder}");
    }
    let exact = labels(data("folder", &["a_b", "c"], 1), &["a/b", "a_b", "c"]);
    assert_eq!(exact.unwrap().0, [1, 2], "exact matches come first");
    // A folder must not match two classes, nor a class two folders.
    assert!(labels(data("folder", &["a b", "c"], 1), &["a/b", "c", "a/b"]).is_err());
    assert!(labels(data("folder", &["a-b", "a_b", "c"], 1), &["a/b", "c", "d"]).is_err());
}

#[test]
fn names_match_in_any_unicode_form() {
    // é as one character in the checkpoint, as e and an accent in the folder.
    let (found, notes) =
        labels(data("folder", &["bar", "cafe\u{301}"], 1), &["caf\u{e9}", "bar"]).unwrap();
    assert_eq!((found, notes.len()), (vec![1, 0], 0));
    // Two folders that differ in form only are not one class.
    assert!(
        labels(data("folder", &["caf\u{e9}", "cafe\u{301}"], 1), &["caf\u{e9}", "bar"]).is_err()
    );
}

#[test]
fn the_digest_covers_the_mapped_labels() {
    let digest = |names: &[&str]| {
        let mut set = data("folder", names, 1);
        number_classes(&mut [&mut set], Some(&strings(&["b", "a"])), 2, Name).unwrap();
        set.splits[0].digest().to_owned()
    };
    assert_ne!(digest(&["a", "b"]), data("folder", &["a", "b"], 1).splits[0].digest());
    assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
}

#[test]
fn no_match_is_an_error_with_a_remedy() {
    for checkpoint_names in [&["cat", "dog"][..], &["cat", "dog", "emu"]] {
        let error = labels(data("folder", &["n01", "n02"], 1), checkpoint_names).unwrap_err();
        assert!(matches!(error, Error::Classes(ClassError::NoneKnown { .. })), "{error}");
        let message = error.to_string();
        for part in ["\"cat\"", "\"n01\"", "`class_order` to sorted"] {
            assert!(message.contains(part), "{message}");
        }
    }
    let mut set = data("folder", &["n01", "n02"], 1);
    let checkpoint_names = strings(&["n02", "n01"]);
    let notes = number_classes(&mut [&mut set], Some(&checkpoint_names), 2, Sorted).unwrap();
    assert_eq!(set.splits[0].labels(), [0, 1]);
    assert!(notes[0].contains("`class_order` is sorted") && notes[0].contains("\"n01\" = 0"));
}

#[test]
fn numeric_class_names_are_ignored_unless_folders_use_them() {
    for checkpoint_names in [["0", "1"], ["LABEL_0", "LABEL_1"], ["class 1", "class 2"]] {
        let (found, notes) = labels(data("folder", &["n01", "n02"], 1), &checkpoint_names).unwrap();
        assert_eq!(found, [0, 1]);
        assert!(notes[0].contains("has no class names"), "{notes:?}");
    }
    assert_eq!(labels(data("folder", &["0", "1"], 1), &["1", "0"]).unwrap(), (vec![1, 0], vec![]));
    let error = labels(data("folder", &["a", "b"], 1), &["n01440764", "n01443537"]).unwrap_err();
    assert!(matches!(error, Error::Classes(ClassError::NoneKnown { .. })), "{error}");
    assert!(["", "LABEL_", "label3x", "B2"].iter().all(|name| !is_number(name)));
}

#[test]
fn more_folders_than_the_head_has_classes_are_refused() {
    let error = labels(data("folder", &["n01", "n02", "n03"], 1), &["cat", "dog"]).unwrap_err();
    assert!(
        matches!(error, Error::Classes(ClassError::TooMany { classes: 2, found: 3, .. })),
        "{error}"
    );
    assert!(error.to_string().contains("`planish finetune`"), "{error}");
}

#[test]
fn a_checkpoint_without_names_takes_the_sorted_order() {
    let mut set = data("folder", &["a", "b"], 1);
    let notes = number_classes(&mut [&mut set], None, 3, Name).unwrap();
    assert!(notes[0].contains("has no class names") && notes[0].contains("2 of the model's 3"));
    let error = number_classes(&mut [&mut set], None, 1, Name).unwrap_err();
    assert!(
        matches!(error, Error::Classes(ClassError::TooMany { classes: 1, found: 2, .. })),
        "{error}"
    );
}

#[test]
fn a_partial_match_lists_the_unknown_names() {
    let error = labels(data("folder", &["Cat", "dog", "emu"], 1), &["cat", "dog"]).unwrap_err();
    let Error::Classes(ClassError::Unknown { unknown, known, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!((unknown, known), (&strings(&["Cat", "emu"]), &strings(&["cat"])));
    assert!(error.to_string().contains("\"Cat\", \"emu\""), "{error}");
}

#[test]
fn a_duplicate_name_in_the_checkpoint_is_reported() {
    let checkpoint_names = strings(&["crane", "dog", "crane"]);
    let error = labels(data("folder", &["crane", "dog"], 1), &["crane", "dog", "crane"]);
    let error = error.unwrap_err();
    let found = matches!(&error, Error::Classes(ClassError::Twice { name, numbers, .. })
        if name == "crane" && *numbers == [0, 2]);
    assert!(found && error.to_string().contains("numbers 0 and 2"), "{error}");
    // Both remedies work.
    let mut set = data("folder", &["crane", "dog"], 1);
    number_classes(&mut [&mut set], Some(&checkpoint_names), 3, Sorted).unwrap();
    let renamed = data("folder", &["crane (bird)", "dog"], 1);
    let (found, _) = labels(renamed, &["crane (bird)", "dog", "crane (machine)"]).unwrap();
    assert_eq!(found, [0, 1]);
}

#[test]
fn a_class_without_images_needs_no_name() {
    let mut set = data("folder", &["a", "b", "extra"], 1);
    set.splits[0] = set.splits[0].subset(&[0, 1], "all").unwrap();
    let notes = number_classes(&mut [&mut set], Some(&strings(&["b", "a"])), 2, Name).unwrap();
    assert_eq!((set.splits[0].labels(), notes.len()), (&[1, 0][..], 0));
}

#[test]
fn other_sets_are_numbered_by_the_first() {
    let (mut train, mut val) = (data("folder", &["a", "b", "c"], 1), data("folder", &["c"], 2));
    number_classes(&mut [&mut train, &mut val], None, 3, Name).unwrap();
    assert_eq!(val.splits[0].labels(), [2, 2]);
    let mut other = data("folder", &["z"], 1);
    let error = number_classes(&mut [&mut train, &mut other], None, 3, Name).unwrap_err();
    assert!(
        matches!(&error, Error::Classes(ClassError::Unknown { unknown, .. }) if *unknown == ["z"]),
        "{error}"
    );
}

/// A data set with one split per list of class names; `None` for a split without names.
fn splits(kind: &'static str, lists: &[Option<&[&str]>]) -> DataSet {
    let mut set = data(kind, &["a"], 1);
    let split = |(i, names): (usize, &Option<&[&str]>)| {
        let name = ["train", "val", "test"][i];
        match names {
            Some(names) => {
                let split = data(kind, names, 1).splits.remove(0);
                split.subset(&(0..names.len()).collect::<Vec<_>>(), name).unwrap()
            }
            None => Split::from_levels(name, vec![0; 3], [1, 1, 1], vec![0, 1, 2]).unwrap(),
        }
    };
    set.splits = lists.iter().enumerate().map(split).collect();
    set
}

#[test]
fn numbered_labels_are_mapped_if_all_names_match_and_noted_otherwise() {
    for kind in ["idx", "cifar", "tensors"] {
        let (found, notes) = labels(data(kind, &["a", "b"], 1), &["b", "a", "c"]).unwrap();
        assert_eq!((found, notes.len()), (vec![1, 0], 0), "{kind}");
        let (found, notes) = labels(data(kind, &["a", "x"], 1), &["a", "b"]).unwrap();
        assert_eq!((found, notes.len()), (vec![0, 1], 1), "{kind}");
        for part in [
            "folder: ",
            "class 1 is \"x\" in the data and \"b\" in the checkpoint",
            "mean the same classes",
        ] {
            assert!(notes[0].contains(part), "{notes:?}");
        }
        let (found, notes) = labels(data(kind, &["x", "y"], 1), &["a", "b"]).unwrap();
        assert_eq!((found, notes.len()), (vec![0, 1], 1), "{kind}");
        assert!(notes[0].contains("class 0 is \"x\" in the data"), "{notes:?}");
        // Numeric names do not contradict class names.
        assert!(labels(data(kind, &["x", "y"], 1), &["LABEL_0", "LABEL_1"]).unwrap().1.is_empty());
        // All names of the data agree, and the checkpoint has one more.
        let (found, notes) = labels(data(kind, &["a", "b"], 1), &["a", "b", "c"]).unwrap();
        assert_eq!((found, notes.len()), (vec![0, 1], 0), "{kind}");
    }
}

#[test]
fn labels_without_names_are_used_as_checkpoint_labels_with_a_note() {
    let checkpoint_names = strings(&["zebra", "ant", "mole", "bee"]);
    let mut set = splits("idx", &[None, None]);
    let notes = number_classes(&mut [&mut set], Some(&checkpoint_names), 4, Name).unwrap();
    assert_eq!(notes.len(), 1, "one for all splits: {notes:?}");
    for part in
        ["folder: the data have no class names", "0 = \"zebra\", 1 = \"ant\", 2 = \"mole\", …"]
    {
        assert!(notes[0].contains(part), "{notes:?}");
    }
    assert_eq!(set.splits[0].labels(), [0, 1, 2]);
    for checkpoint_names in [None, Some(strings(&["0", "1", "2"]))] {
        let notes = number_classes(&mut [&mut set], checkpoint_names.as_deref(), 3, Name).unwrap();
        assert!(notes.is_empty(), "{notes:?}");
    }
}

#[test]
fn each_split_is_matched_by_its_own_names() {
    let checkpoint_names = strings(&["c", "b", "a"]);
    let lists: [Option<&[&str]>; 3] = [Some(&["a", "b", "c"]), Some(&["b", "x"]), None];
    let mut set = splits("tensors", &lists);
    let notes = number_classes(&mut [&mut set], Some(&checkpoint_names), 3, Name).unwrap();
    assert_eq!(set.splits[0].labels(), [2, 1, 0]);
    assert_eq!(set.splits[1].labels(), [0, 1]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("split val: class 0 is \"b\""), "{notes:?}");
    assert!(notes[1].contains("split test: the data have no class names"), "{notes:?}");
}

#[test]
fn without_checkpoint_names_the_first_named_data_set_numbers_the_others() {
    let mut train = data("tensors", &["b", "a"], 1);
    let mut folder = data("folder", &["a", "b"], 1);
    let notes = number_classes(&mut [&mut train, &mut folder], None, 2, Name).unwrap();
    assert_eq!((train.splits[0].labels(), notes.len()), (&[0, 1][..], 0));
    assert_eq!(folder.splits[0].labels(), [1, 0], "not in sorted order");
    let mut other = data("folder", &["y", "z"], 1);
    let error = number_classes(&mut [&mut train, &mut other], None, 2, Name).unwrap_err();
    assert!(matches!(error, Error::Classes(ClassError::Unknown { .. })), "{error}");
    let mut other = data("cifar", &["y", "z"], 1);
    let notes = number_classes(&mut [&mut train, &mut other], None, 2, Name).unwrap();
    assert!(notes[0].contains("class 0 is \"y\" in the data and \"b\" in folder"), "{notes:?}");
}

#[test]
fn training_uses_the_parents_labels_only_if_all_names_match() {
    let checkpoint_names = strings(&["b", "a"]);
    for kind in ["folder", "idx", "cifar", "tensors"] {
        let mut set = data(kind, &["a", "b"], 1);
        renumber(&mut set, Some(&checkpoint_names)).unwrap();
        assert_eq!(set.splits[0].labels(), [1, 0]);
        let mut set = data(kind, &["a", "x"], 1);
        renumber(&mut set, Some(&checkpoint_names)).unwrap();
        assert_eq!(set.splits[0].labels(), [0, 1]);
        assert_eq!(set.splits[0].class_names().unwrap(), ["a", "x"]);
    }
}

#[test]
fn training_splits_are_numbered_by_the_first() {
    let lists: [Option<&[&str]>; 2] = [Some(&["a", "b", "c"]), Some(&["c", "b"])];
    for checkpoint_names in [None, Some(strings(&["x", "y", "z"]))] {
        let mut set = splits("tensors", &lists);
        renumber(&mut set, checkpoint_names.as_deref()).unwrap();
        assert_eq!(set.splits[0].labels(), [0, 1, 2]);
        assert_eq!(set.splits[1].labels(), [2, 1]);
    }
    let lists: [Option<&[&str]>; 2] = [Some(&["a", "b"]), Some(&["b", "x"])];
    let error = renumber(&mut splits("tensors", &lists), None).unwrap_err();
    assert!(
        matches!(&error, Error::Classes(ClassError::Unknown { unknown, .. }) if *unknown == ["x"]),
        "{error}"
    );
}

#[test]
fn names_in_lists_are_matched_as_those_of_class_folders() {
    let (found, notes) =
        labels(data("csv", &["bird", "cat", "dog"], 1), &["cat", "dog", "bird"]).unwrap();
    assert_eq!((found, notes.len()), (vec![2, 0, 1], 0));
    let error = labels(data("csv", &["bird", "cta"], 1), &["cat", "bird"]).unwrap_err();
    assert!(error.to_string().contains("cta"), "{error}");
}

#[test]
fn numbers_in_lists_are_names_if_the_checkpoint_has_numerals_in_another_order() {
    let numbered = |values: &[u32]| {
        let mut files = Files::default();
        files.add("folder".as_ref(), (0..values.len()).map(|i| format!("{i}.png").into()));
        let split = Split::of_files("list.csv", "all", files, values.to_vec(), None);
        DataSet {
            path: "list.csv".into(),
            kind: "csv",
            by_name: true,
            notes: Vec::new(),
            splits: vec![split],
        }
    };
    let mut sorted: Vec<String> = (0..12).map(|i| i.to_string()).collect();
    sorted.sort();
    let sorted: Vec<&str> = sorted.iter().map(String::as_str).collect();
    assert_eq!(sorted[..4], ["0", "1", "10", "11"]);
    assert_eq!(labels(numbered(&[10, 2, 0, 11]), &sorted).unwrap().0, [2, 4, 0, 3]);
    let error = labels(numbered(&[12]), &sorted).unwrap_err();
    assert!(error.to_string().contains("12"), "{error}");
    // In order, or with other names, they are numbers of classes.
    assert_eq!(labels(numbered(&[2, 1]), &["0", "1", "2"]).unwrap().0, [2, 1]);
    assert_eq!(labels(numbered(&[2, 1]), &["cat", "dog", "emu"]).unwrap().0, [2, 1]);
}
