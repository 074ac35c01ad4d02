//! Commands on folders of image files.

// Other test files use the rest.
#[allow(dead_code)]
mod common;

use common::{Bench, tensors};
use std::fs;
use std::path::Path;

/// The test images of the bench's IDX folder as PNGs in class folders with the given names. Files
/// are named by position; every third name is in upper case.
fn folder(bench: &Bench, name: &str, split: &str, classes: [&str; 4]) -> String {
    let read = |kind: &str| fs::read(format!("{}/t10k-{kind}-ubyte", bench.data)).unwrap();
    let (images, labels) = (read("images-idx3"), read("labels-idx1"));
    let root = bench.path(name);
    for class in classes {
        fs::create_dir_all(Path::new(&root).join(split).join(class)).unwrap();
    }
    for (i, (image, label)) in images[16..].chunks(196).zip(&labels[8..]).enumerate() {
        let kind = if i % 3 == 0 { "PNG" } else { "png" };
        let class = classes[usize::from(*label)];
        let path = Path::new(&root).join(split).join(class).join(format!("{i:03}.{kind}"));
        image::save_buffer(path, image, 14, 14, image::ColorType::L8).unwrap();
    }
    root
}

/// Logits in the stored order of the IDX folder, whose labels are 0, 1, 2, 3, 0, …
fn logits(bench: &Bench, words: &[&str], sorted_by_class: bool) -> Vec<Vec<f32>> {
    let file = bench.path("logits.safetensors");
    let out = bench.run(&[&["eval", &bench.model, "--dump", &file], words].concat());
    assert!(out.success, "{}", out.errors);
    let all = tensors(&file)["logits"].f32s();
    let rows: Vec<Vec<f32>> = all.chunks(4).map(<[f32]>::to_vec).collect();
    let position = |i: usize| if sorted_by_class { i % 4 * 10 + i / 4 } else { i };
    (0..40).map(|i| rows[position(i)].clone()).collect()
}

#[test]
fn image_folder_and_idx_give_the_same_logits() {
    let bench = Bench::with_model();
    let names = ["a", "b", "c", "d"];
    let idx = logits(&bench, &["--data", &bench.data, "--json", "idx.json"], false);
    let root = folder(&bench, "images", "test", names);
    let found = logits(&bench, &["--data", &root, "--json", "folder.json"], true);
    assert_eq!(idx, found);
    let (idx, found) = (bench.json("idx.json"), bench.json("folder.json"));
    for figure in ["nll", "top1", "top5"] {
        let [a, b] = [&idx, &found].map(|report| report["figures"][figure].as_f64().unwrap());
        // The same values, summed in another order.
        assert!((a - b).abs() <= 1e-12, "{figure}: {a} {b}");
    }
    assert_eq!(found["data"]["kind"], "folder");
    assert_eq!((&found["data"]["images"], &found["data"]["skipped"]), (&40.into(), &0.into()));
    assert!(found["warnings"].to_string().contains("sorted order"), "{found}");
    // The same images, used as validation data of another data set.
    let all = folder(&bench, "all", ".", names);
    let val = logits(&bench, &["--data", &bench.data, "--val-data", &all, "--split", "val"], true);
    assert_eq!(val, logits(&bench, &["--data", &root], true));
}

#[test]
fn a_bad_file_stops_the_run_or_is_skipped() {
    let bench = Bench::with_model();
    let root = folder(&bench, "images", "test", ["a", "b", "c", "d"]);
    let bad = format!("{root}/test/b/001.png");
    let whole = fs::read(&bad).unwrap();
    fs::write(&bad, &whole[..whole.len() - 40]).unwrap();
    let eval =
        |more: &[&str]| bench.run(&[&["eval", &bench.model, "--data", &root], more].concat());
    eval(&[]).fails_with(&["/test/b/001.png", "cannot be decoded", "--on-bad-sample to skip"]);

    let out = eval(&["--on-bad-sample", "skip", "--json", "skip.json"]);
    assert!(out.success, "{}", out.errors);
    assert!(out.output.contains("skipped") && out.output.contains("001.png"), "{}", out.output);
    fs::remove_file(&bad).unwrap();
    assert!(eval(&["--json", "without.json"]).success);
    let (skipped, without) = (bench.json("skip.json"), bench.json("without.json"));
    assert_eq!((&skipped["data"]["skipped"], &without["data"]["skipped"]), (&1.into(), &0.into()));
    assert_eq!(skipped["data"]["images"], 39);
    assert_eq!(skipped["data"]["digest"], without["data"]["digest"]);
    assert_eq!(skipped["figures"], without["figures"]);

    for entry in
        ["a", "b", "c", "d"].iter().flat_map(|c| fs::read_dir(format!("{root}/test/{c}")).unwrap())
    {
        fs::write(entry.unwrap().path(), b"").unwrap();
    }
    eval(&["--on-bad-sample", "skip"]).fails_with(&["none among 39", "the file is empty"]);
}

#[test]
fn a_damaged_jpeg_is_used_with_a_warning_or_skipped() {
    let bench = Bench::with_model();
    let root = folder(&bench, "images", "test", ["a", "b", "c", "d"]);
    // A truncated scan. `tests/damaged.rs` compares its pixels with Pillow's.
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/damaged.safetensors");
    let bytes = fs::read(reference).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let name = tensors.names().into_iter().find(|name| name.ends_with("-444-end/file")).unwrap();
    let path = format!("{root}/test/b/damaged.jpg");
    fs::write(&path, tensors.tensor(name).unwrap().data()).unwrap();
    let eval = |more: &[&str]| {
        let found = bench.run(&[&["eval", &bench.model, "--data", &root], more].concat());
        assert!(found.success, "{}", found.errors);
        found.output
    };
    let used = eval(&["--json", "used.json", "--quiet"]);
    assert!(used.contains("note: 1 JPEG file is damaged") && used.contains(&path), "{used}");
    assert!(used.contains("--on-bad-sample"), "{used}");
    let report = bench.json("used.json");
    assert_eq!((&report["data"]["images"], &report["data"]["skipped"]), (&41.into(), &0.into()));
    assert_eq!(report["damaged"][0]["path"], path.as_str());
    let warning = "Corrupt JPEG data: premature end of data segment";
    assert_eq!(report["damaged"][0]["warning"], warning);

    let skipped = eval(&["--json", "skipped.json", "--on-bad-sample", "skip"]);
    assert!(skipped.contains(&format!("skipped {path}: damaged: {warning}")), "{skipped}");
    fs::remove_file(&path).unwrap();
    eval(&["--json", "without.json"]);
    let (skipped, without) = (bench.json("skipped.json"), bench.json("without.json"));
    assert_eq!(skipped["data"]["skipped"], 1);
    assert_eq!(skipped["data"]["digest"], without["data"]["digest"]);
    assert_eq!(skipped["figures"], without["figures"]);
    assert!(skipped.get("damaged").is_none() && without.get("damaged").is_none());
}

#[test]
fn unknown_class_folders_are_rejected_without_class_order() {
    let bench = Bench::with_model();
    let config = format!("{}/config.json", bench.model);
    let mut settings = bench.json("model/config.json");
    settings["label_names"] = ["cat", "dog", "emu", "fox"].into();
    fs::write(&config, settings.to_string()).unwrap();
    let root = folder(&bench, "images", "test", ["a", "b", "c", "d"]);
    let eval = ["eval", &bench.model, "--data", &root];
    bench.run(&eval).fails_with(&["\"cat\"", "\"a\"", "--class-order to sorted"]);
    // The folder of the report is created.
    let words = ["--class-order", "sorted", "--json", "deep/er/sorted.json"];
    let out = bench.run(&[&eval[..], &words].concat());
    assert!(out.success, "{}", out.errors);
    let sorted = bench.json("deep/er/sorted.json");
    assert!(sorted["warnings"].to_string().contains("`class_order` is sorted"), "{sorted}");
    let named = folder(&bench, "named", "test", ["cat", "dog", "emu", "fox"]);
    let out = bench.run(&["eval", &bench.model, "--data", &named, "--json", "named.json"]);
    assert!(out.success, "{}", out.errors);
    assert_eq!(bench.json("named.json")["figures"], sorted["figures"]);
}

#[test]
fn each_note_is_printed_once() {
    let bench = Bench::with_model();
    let root = folder(&bench, "images", "test", ["a", "b", "c", "d"]);
    for (quiet, at_start) in [(&[][..], 1), (&["--quiet"], 0)] {
        let words = ["diagnose", &bench.model, "--data", &root, "--layer", "head"];
        let out = bench.run(&[&words, quiet].concat());
        assert!(out.success, "{}", out.errors);
        let times = |text: &str| text.matches("numbered in sorted order").count();
        assert_eq!((times(&out.errors), times(&out.output)), (at_start, 1 - at_start));
    }
}

#[test]
fn memory_is_independent_of_the_folder_size() {
    let bench = Bench::with_model();
    let class = bench.path("large/test/a");
    fs::create_dir_all(&class).unwrap();
    let (side, n) = (1500, 120);
    let first = format!("{class}/0.png");
    let levels: Vec<u8> = (0..side * side * 3).map(|i| (i / 4099 % 251) as u8).collect();
    let side = side as u32;
    image::save_buffer(&first, &levels, side, side, image::ColorType::Rgb8).unwrap();
    (1..n).for_each(|i| fs::hard_link(&first, format!("{class}/{i}.png")).unwrap());
    let root = bench.path("large");
    let out = bench.run(&["eval", &bench.model, "--data", &root, "--json", "large.json"]);
    assert!(out.success, "{}", out.errors);
    let report = bench.json("large.json");
    let peak = report["run"]["peak_mib"].as_u64().unwrap();
    // All decoded images would take 120 × 1500² × 3 bytes = 772 MiB. At most four are in memory:
    // two in use and two prefetched, with their files and the decoder's buffers.
    println!("peak {peak} MiB");
    assert!(peak < 250, "{peak} MiB");
}

/// A CSV file in the order of the IDX folder, with names of classes or their numbers.
fn list(bench: &Bench, name: &str, classes: [&str; 4], numbered: bool) -> String {
    let mut text = "split,image_path,label\n".to_owned();
    for i in 0..40 {
        let (class, kind) = (classes[i % 4], if i % 3 == 0 { "PNG" } else { "png" });
        let label = if numbered { (i % 4).to_string() } else { class.to_owned() };
        text += &format!("test,images/test/{class}/{i:03}.{kind},{label}\n");
    }
    fs::write(bench.path(name), text).unwrap();
    bench.path(name)
}

#[test]
fn csv_file_and_idx_give_the_same_logits() {
    let bench = Bench::with_model();
    let names = ["dog", "cat", "bird", "emu"];
    folder(&bench, "images", "test", names);
    let idx = logits(&bench, &["--data", &bench.data, "--json", "idx.json"], false);
    let numbered = list(&bench, "numbered.csv", names, true);
    assert_eq!(idx, logits(&bench, &["--data", &numbered, "--json", "csv.json"], false));
    let (idx, found) = (bench.json("idx.json"), bench.json("csv.json"));
    assert_eq!(idx["figures"]["top1"], found["figures"]["top1"]);
    assert_eq!(found["data"]["kind"], "csv");

    // Names are matched to those of a checkpoint: a model trained on class folders in another order.
    let trained = bench.run(&[
        "finetune",
        "--arch",
        "vit_nano_patch7_14",
        "--data",
        &folder(&bench, "own", "train", names),
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--val-fraction",
        "0",
        "--out",
        &bench.path("new"),
    ]);
    assert!(trained.success, "{}", trained.errors);
    let named = list(&bench, "named.csv", names, false);
    let of = |data: &str, json: &str| {
        let done = bench.run(&["eval", &bench.path("new"), "--data", data, "--json", json]);
        assert!(done.success, "{}", done.errors);
        bench.json(json)["figures"]["nll"].as_f64().unwrap()
    };
    let [a, b] = [of(&named, "a.json"), of(&bench.path("images"), "b.json")];
    assert!((a - b).abs() <= 1e-12, "{a} {b}");
    bench.run(&["eval", &bench.model, "--data", &bench.path("absent.csv")]).fails_with(&[
        "absent.csv",
        "a CSV file",
        "found nothing",
    ]);
    let broken = fs::read_to_string(&named).unwrap().replacen(",dog", ",", 1);
    fs::write(&named, broken).unwrap();
    bench.run(&["eval", &bench.model, "--data", &named]).fails_with(&[
        "named.csv, line 2",
        "a label",
        "an empty field",
    ]);
}

#[test]
fn images_without_labels_are_classified() {
    let bench = Bench::with_model();
    let root = folder(&bench, "images", "test", ["a", "b", "c", "d"]);
    let logits = logits(&bench, &["--data", &root], true);
    let (csv, json) = (bench.path("classes.csv"), bench.path("classes.json"));
    let words = ["predict", &bench.model, "--data", &root, "--top", "2", "--csv", &csv];
    let done = bench.run(&[&words[..], &["--json", &json]].concat());
    assert!(done.success, "{}", done.errors);
    assert!(done.output.contains("40 images") && done.output.contains("planish calibrate"));
    let text = fs::read_to_string(&csv).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["image", "class_1", "probability_1", "class_2", "probability_2"]);
    assert_eq!(lines.len(), 41);
    for line in &lines[1..] {
        // Files are named by their position.
        let name = Path::new(line[0]).file_stem().unwrap().to_str().unwrap();
        let row = &logits[name.parse::<usize>().unwrap()];
        let exps: Vec<f64> = row.iter().map(|z| f64::from(*z).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let mut classes = [0, 1, 2, 3];
        classes.sort_by(|&a, &b| exps[b].total_cmp(&exps[a]));
        for (k, class) in classes[..2].iter().enumerate() {
            let probability: f64 = line[2 + 2 * k].parse().unwrap();
            assert_eq!(line[1 + 2 * k], class.to_string());
            assert!((probability - exps[*class] / sum).abs() < 1e-5, "{line:?} {row:?}");
        }
    }
    let report = bench.json("classes.json");
    assert_eq!(report["schema"], "planish/prediction/1");
    assert_eq!(report["images"][0]["path"].as_str().unwrap(), lines[1][0]);

    let one = bench.run(&["predict", &bench.model, "--data", lines[1][0]]);
    assert!(one.success && one.output.starts_with("1 image"), "{} {}", one.output, one.errors);
    let bad = ["predict", &bench.model, "--data"];
    bench
        .run(&[&bad[..], &[&bench.path("absent")]].concat())
        .fails_with(&["absent", "a folder of"]);
    bench.run(&[&bad[..], &[&bench.data]].concat()).fails_with(&["expected", "image"]);
    bench.run(&[&bad[..], &[&root, "--top", "0"]].concat()).is_refused_with(&["--top"]);
}

#[test]
fn classes_and_domains_are_evaluated_apart() {
    let bench = Bench::with_model();
    let root = folder(&bench, "images", ".", ["a", "b", "c", "d"]);
    // The first five images of each class are photos.
    let mut list = "path,label,domain\n".to_owned();
    for class in 0..4 {
        for position in 0..10 {
            let i = 4 * position + class;
            let end = if i % 3 == 0 { "PNG" } else { "png" };
            let domain = if position < 5 { "photo" } else { "sketch" };
            let letter = ["a", "b", "c", "d"][class];
            list += &format!("images/{letter}/{i:03}.{end},{class},{domain}\n");
        }
    }
    let file = bench.path("list.csv");
    fs::write(&file, &list).unwrap();
    let [classes, matrix, json, dump] =
        ["classes.csv", "matrix.csv", "eval.json", "logits.safetensors"].map(|n| bench.path(n));
    let data = ["--data", &file, "--json", &json, "--dump", &dump];
    let out = bench.run(
        &[&["eval", &bench.model, "--per-class", &classes, "--confusion", &matrix][..], &data]
            .concat(),
    );
    assert!(out.success, "{}", out.errors);
    assert!(out.output.contains("classes, lowest accuracy first"), "{}", out.output);
    assert!(out.output.contains("groups, lowest accuracy first"), "{}", out.output);
    // Counted from the logits; the list is in order of the classes.
    let all = tensors(&dump)["logits"].f32s();
    let predicted: Vec<usize> = all
        .chunks(4)
        .map(|row| (0..4).fold(0, |best, at| if row[at] > row[best] { at } else { best }))
        .collect();
    let mut counts = vec![vec![0; 4]; 4];
    predicted.iter().enumerate().for_each(|(i, &class)| counts[i / 10][class] += 1);
    let by_class = &bench.json("eval.json")["by_class"];
    for class in 0..4 {
        let right = counts[class][class] as f64 / 10.0;
        assert_eq!(by_class["classes"][class]["top1"], right);
        assert_eq!(by_class["classes"][class]["images"], 10);
    }
    let rows = fs::read_to_string(&matrix).unwrap();
    let cells: Vec<Vec<usize>> = rows
        .lines()
        .skip(1)
        .map(|row| row.split(',').skip(1).map(|cell| cell.parse().unwrap()).collect())
        .collect();
    assert_eq!(cells, counts);
    assert_eq!(fs::read_to_string(&classes).unwrap().lines().count(), 5);
    for (at, name, photo) in [(0, "photo", true), (1, "sketch", false)] {
        let own = (0..40).filter(|i| (i % 10 < 5) == photo);
        let right = own.filter(|&i| predicted[i] == i / 10).count();
        let group = &by_class["groups"][at];
        assert_eq!((&group["name"], &group["images"]), (&name.into(), &20.into()));
        assert!((group["top1"].as_f64().unwrap() - right as f64 / 20.0).abs() < 1e-12);
    }
    let page = bench.path("page.html");
    let out = bench.plain(&["report", &json, "--html", &page]);
    assert!(out.success, "{}", out.errors);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("<h2>Classes</h2>") && page.contains("sketch"), "no section");
    // Two sources are one set with a group each.
    let out = bench.run(&["eval", &bench.model, "--data", &root, "--data", &root, "--json", &json]);
    assert!(out.success, "{}", out.errors);
    assert!(out.output.contains("40 images are copies of others"), "{}", out.output);
    let report = bench.json("eval.json");
    assert_eq!(report["data"]["images"], 80);
    assert_eq!(report["by_class"]["groups"][0]["images"], 80);
    // A file that does not exist.
    fs::write(&file, format!("{list}images/a/none.png,0,photo\n")).unwrap();
    bench.run(&["eval", &bench.model, "--data", &file]).fails_with(&[
        "line 42",
        "none.png",
        "--on-bad-sample",
    ]);
    let out = bench.run(&["eval", &bench.model, "--data", &file, "--on-bad-sample", "skip"]);
    assert!(
        out.success && out.output.contains("none.png: cannot be read"),
        "{} {}",
        out.output,
        out.errors
    );
}
