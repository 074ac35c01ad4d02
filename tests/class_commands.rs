//! Mapping of labels to classes: after fine-tuning on new data, and for data with and without class
//! names.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::Bench;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A copy of a reference checkpoint.
fn model(bench: &Bench, name: &str) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name);
    let to = bench.path(&name.replace('/', "-"));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = Path::new(&to).join(path.file_name().unwrap());
        if path.file_name().unwrap() != "reference.safetensors" {
            fs::copy(&path, copied).unwrap();
        }
    }
    to
}

/// Six training and six test images of 16×16 per class folder. Each class has its own colour.
fn folder(bench: &Bench, name: &str, classes: &[&str]) -> String {
    let root = bench.path(name);
    for (split, class) in ["train", "test"].iter().flat_map(|s| classes.iter().map(move |c| (s, c)))
    {
        let folder = format!("{root}/{split}/{class}");
        fs::create_dir_all(&folder).unwrap();
        let hue = class.bytes().map(usize::from).sum::<usize>();
        for i in 0..6 {
            let level = |j: usize| (hue * (j % 3 + 1) + (7 * i + 11 * j + split.len()) % 60) as u8;
            let levels: Vec<u8> = (0..16 * 16 * 3).map(level).collect();
            let path = format!("{folder}/{i}.png");
            image::save_buffer(path, &levels, 16, 16, image::ColorType::Rgb8).unwrap();
        }
    }
    root
}

/// Trains, then evaluates the training images with the saved checkpoint, and checks that the loss
/// is the same. Returns the output of fine-tuning.
fn train_and_check(bench: &Bench, words: &[&str], data: &str, out: &str, flags: &[&str]) -> String {
    let fixed = ["--epochs", "3", "--batch", "6", "--lr", "0.02", "--val-fraction", "0"];
    let place = ["--data", data, "--out", out, "--force", "--json", "tuned.json"];
    let tuned = bench.run(&[&["finetune"], words, flags, &fixed, &place].concat());
    assert!(tuned.success, "{}", tuned.errors);
    let eval = ["eval", out, "--data", data, "--split", "train", "--json", "eval.json"];
    let found = bench.run(&[&eval, flags].concat());
    assert!(found.success, "{}", found.errors);
    let (trained, found) = (bench.json("tuned.json"), bench.json("eval.json"));
    for figure in ["nll", "top1"] {
        let trained = trained["figures"][0][1][figure].as_f64().unwrap();
        let found = found["figures"][figure].as_f64().unwrap();
        assert!((trained - found).abs() < 1e-9, "{words:?}: {figure} {trained} {found}");
    }
    tuned.output
}

fn configuration(folder: &str) -> Value {
    serde_json::from_slice(&fs::read(format!("{folder}/config.json")).unwrap()).unwrap()
}

#[test]
fn a_new_head_has_the_classes_it_was_trained_on() {
    let bench = Bench::new();
    let bare = ["--heads", "2", "--mean", "0.5", "--std", "0.5", "--resize", "squash"];
    for (name, flags) in [
        ("timm-tiny", &[][..]),
        ("layouts/transformers4", &[]),
        ("layouts/transformers5", &[]),
        ("layouts/torchvision", &bare),
    ] {
        let from = model(&bench, name);
        // As many classes as the checkpoint, two of them with its names, in another order; then
        // fewer classes.
        let classes = match name {
            "timm-tiny" => &["bird", "cat", "emu", "gnu"][..],
            _ => &["bird", "cat", "emu"],
        };
        for classes in [classes, &["cat", "zebra"]] {
            let data = folder(&bench, &format!("{from}-{}", classes.len()), classes);
            let out = format!("{from}-tuned-{}", classes.len());
            let words = ["--from", &from, "--reset-head"];
            let text = train_and_check(&bench, &words, &data, &out, flags);
            assert!(text.contains("replaced by a new one"), "{text}");
            // torchvision's files state no preprocessing, so the options are needed again.
            let again = text.contains("set --mean, --std, --resize again");
            assert_eq!(again, !flags.is_empty(), "{text}");
            match name {
                "timm-tiny" => {
                    let found = configuration(&out);
                    assert_eq!(found["label_names"], json!(classes));
                    assert_eq!(found["num_classes"], json!(classes.len()));
                    assert_eq!(found["pretrained_cfg"]["num_classes"], json!(classes.len()));
                }
                "layouts/torchvision" => {
                    assert!(!Path::new(&out).join("config.json").exists());
                }
                _ => {
                    let found = configuration(&out);
                    let numbers = (0..classes.len()).map(|i| i.to_string());
                    let names: Vec<&str> =
                        numbers.map(|i| found["id2label"][i].as_str().unwrap()).collect();
                    assert_eq!(names, classes);
                    for (i, class) in classes.iter().enumerate() {
                        assert_eq!(found["label2id"][class], json!(i));
                    }
                    let counts = ["id2label", "label2id"].map(|key| &found[key]);
                    assert!(counts.iter().all(|c| c.as_object().unwrap().len() == classes.len()));
                }
            }
        }
    }
}

#[test]
fn a_head_kept_for_other_classes_gets_their_names_with_a_note() {
    let bench = Bench::new();
    let from = model(&bench, "timm-tiny");
    let from_words = ["--from", from.as_str()];
    let other = folder(&bench, "other", &["ant", "bee", "mole", "zebra"]);
    let out = bench.path("renamed");
    let text = train_and_check(&bench, &from_words, &other, &out, &[]);
    let note = "class 0 is \"ant\" in the data and \"cat\" in the checkpoint";
    assert!(text.contains(note) && text.contains("--reset-head"), "{text}");
    assert_eq!(configuration(&out)["label_names"], json!(["ant", "bee", "mole", "zebra"]));
    let text = train_and_check(&bench, &from_words, &other, &out, &["--quiet"]);
    assert!(text.contains(note), "{text}");
    let report = bench.json("tuned.json");
    let notes = report["notes"].as_array().unwrap();
    assert!(notes.iter().any(|own| own.as_str().unwrap().contains(note)), "{notes:?}");
    // The checkpoint's own classes in any order and number: names are kept, and there is no note.
    let subset = folder(&bench, "own", &["bird", "cat", "dog"]);
    let text = train_and_check(&bench, &from_words, &subset, &out, &[]);
    assert!(!text.contains("in the checkpoint:"), "{text}");
    assert_eq!(configuration(&out), configuration(&from));
}

#[test]
fn a_new_head_for_data_without_class_names_has_none() {
    let bench = Bench::new();
    let (timm, transformers) = (model(&bench, "timm-tiny"), model(&bench, "layouts/transformers4"));
    let (three, five) = (bench.idx("three", 3), bench.idx("five", 5));
    for (from, data, flags) in [
        (&timm, &bench.data, &["--reset-head"][..]),
        (&timm, &five, &[]),
        (&transformers, &three, &["--reset-head"]),
        (&transformers, &five, &[]),
    ] {
        let out = bench.path("tuned");
        let words = [&["--from", from.as_str()], flags].concat();
        let text = train_and_check(&bench, &words, data, &out, &[]);
        assert!(text.contains("its class names are dropped"), "{text}");
        let found = configuration(&out).to_string();
        let old = ["\"cat\"", "\"dog\"", "\"bird\"", "\"fish\""];
        assert!(old.iter().all(|name| !found.contains(name)), "{found}");
        fs::remove_dir_all(&out).unwrap();
    }
    // A kept head still has the checkpoint's classes.
    let out = bench.path("kept");
    let text = train_and_check(&bench, &["--from", &timm], &bench.data, &out, &[]);
    assert!(text.contains("0 = \"cat\", 1 = \"dog\", 2 = \"bird\", …"), "{text}");
    assert_eq!(configuration(&out), configuration(&timm));
}

#[test]
fn numbered_labels_are_matched_by_name_or_noted() {
    let bench = Bench::new();
    let model = model(&bench, "timm-tiny");
    let eval = |json: &str| {
        let out = bench.run(&["eval", &model, "--data", &bench.data, "--json", json]);
        assert!(out.success, "{}", out.errors);
        (bench.json(json)["figures"]["nll"].as_f64().unwrap(), out.output)
    };
    let noted =
        |text: &str| text.lines().any(|line| line.starts_with("note: ") && line.contains("class "));
    let named = |names: [&str; 4]| {
        fs::write(format!("{}/classes.txt", bench.data), names.join("\n")).unwrap();
    };
    let (plain, text) = eval("unnamed.json");
    assert!(
        text.contains("the data have no class names") && text.contains("0 = \"cat\""),
        "{text}"
    );
    assert!(text.contains("the grey channel is repeated three times"), "{text}");
    named(["cat", "dog", "bird", "fish"]);
    let (same, text) = eval("same.json");
    assert!(same == plain && !noted(&text), "{text}");
    named(["cat", "dog", "bird", "whale"]);
    let (other, text) = eval("other.json");
    let note = "class 3 is \"whale\" in the data and \"fish\" in the checkpoint";
    assert!(other == plain && text.contains(note), "{text}");
    // The loss equals that of permuted labels, with 0 and 2 exchanged.
    named(["bird", "dog", "cat", "fish"]);
    let (mapped, text) = eval("mapped.json");
    assert!(!noted(&text), "{text}");
    fs::remove_file(format!("{}/classes.txt", bench.data)).unwrap();
    let labels = format!("{}/t10k-labels-idx1-ubyte", bench.data);
    let mut bytes = fs::read(&labels).unwrap();
    bytes[8..].iter_mut().for_each(|label| *label = [2, 1, 0, 3][usize::from(*label)]);
    fs::write(&labels, bytes).unwrap();
    let (moved, _) = eval("moved.json");
    assert!((mapped - moved).abs() < 1e-12 && mapped != plain, "{mapped} {moved} {plain}");
}

#[test]
fn a_normalisation_in_levels_is_rejected() {
    let bench = Bench::with_model();
    let out = bench.path("out");
    let data = ["--data", bench.data.as_str()];
    let eval = [&["eval", bench.model.as_str()], &data[..]].concat();
    let arch = [&["finetune", "--arch", "vit_nano_patch7_14", "--out", &out], &data[..]].concat();
    for words in [&eval, &arch] {
        for (mean, std) in [("127", "58"), ("0.5", "58"), ("127", "0.2")] {
            let moments = ["--mean", mean, "--std", std];
            bench
                .run(&[&words[..], &moments].concat())
                .fails_with(&["in units of the full scale", "divide levels by 255"]);
        }
        let zero = ["--mean", "0.5", "--std", "0"];
        bench.run(&[&words[..], &zero].concat()).fails_with(&["above 0 and at most 1"]);
    }
    assert!(!Path::new(&out).exists());
    // Unscaled pixels, with mean and standard deviation in levels / 255.
    for (mean, std) in [("0", "1"), ("1", "0.0039")] {
        let run = bench.run(&[&eval[..], &["--mean", mean, "--std", std]].concat());
        assert!(run.success, "{}", run.errors);
    }
}
