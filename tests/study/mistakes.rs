//! Invalid study files and folders.

use crate::commands::{STUDY, text};
use crate::common::Bench;
use std::fs;

#[test]
fn errors_in_a_study_name_the_line() {
    let bench = Bench::with_model();
    let path = bench.path("bad.toml");
    for (from, to, parts) in [
        (
            "name = \"two\"",
            "nmae = \"two\"",
            &["line 8: setting: expected one of `name`, `checkpoint`", "found unknown \"nmae\""][..],
        ),
        ("name = \"two\"", "name = \"one\"", &["line 8", "a unique name", "choose another"]),
        ("source = \"data\"", "", &["line 11: setting \"source\": expected a value", "add it"]),
        ("contrast,", "rain,", &["line 2", "gaussian_noise", "rain", "`shift` of"]),
        ("64,", "true,", &["line 6", "attribute \"width\"", "a number or a text", "boolean"]),
        ("\"second\"", "3", &["line 9", "expected", "3"]),
        ("[[ood]]", "[[odd]]", &["line 14", "found unknown \"odd\"", "`ood`"]),
        ("[[model]]", "[model]", &["line 7", "TOML"]),
        (
            "\"no\" }",
            "\"no\" }\noptions = { hats = 3 }",
            &["line 11", "model options", "unknown \"hats\""],
        ),
        (
            "\"data\"\n",
            "\"data\"\noptions = { val-from-train = 'x' }\n",
            &["line 14", "val_from_train", "a number", "\"x\""],
        ),
        (
            "\"data\"\n",
            "\"data\"\noptions = { data = 'x' }\n",
            &["line 14", "data options", "found `data`", "`source` names the images"],
        ),
        (
            "\"data\"\n",
            "\"data\"\noptions = { val-seed = 1, val_seed = 1 }\n",
            &["line 14", "each option once", "\"val-seed\" and \"val_seed\"", "remove one"],
        ),
        (
            "\"no\" }",
            "\"no\" }\noptions = { resize = 'squash', crop-pct = 0.9 }",
            &["line 11", "model options", "one of `resize` and `crop_pct`"],
        ),
        ("\nshifts", "\nprecision = 'f16'\nshifts", &["line 2", "precision", "f32 or bf16", "f16"]),
    ] {
        assert!(STUDY.contains(from), "{from}");
        fs::write(&path, STUDY.replacen(from, to, 1)).unwrap();
        let result = bench.run(&["study", &path]);
        result.fails_with(&["bad.toml, line"]);
        result.fails_with(parts);
    }
    bench.run(&["study", "none.toml"]).fails_with(&["none.toml", "cannot be read"]);
    assert_eq!(bench.run(&["study", &path, "--shard", "5/4"]).code, Some(2));
    // A folder with unrelated results is not overwritten.
    fs::write(&path, STUDY).unwrap();
    fs::create_dir(bench.path("mine")).unwrap();
    fs::write(bench.path("mine/results.csv"), "mine").unwrap();
    let parts = ["mine/results.csv", "choose another folder"];
    bench.run(&["study", &path, "--out", "mine"]).fails_with(&parts);
    bench.plain(&["study", "--merge", "mine", "mine"]).fails_with(&parts);
    assert_eq!(text(&bench, "mine/results.csv"), "mine");
}

#[test]
fn layer_options_that_no_method_uses_are_refused() {
    let bench = Bench::with_model();
    let path = bench.path("bad.toml");
    for (methods, layers, parts) in [
        ("\"sam\"", "pairs = 'all'", ["pairs: expected methods with pol", "add one, or remove"]),
        (
            "\"pol\"",
            "pairs = 'all'\nupdate = ['norm']",
            ["update: expected methods with sgd", "line 11"],
        ),
    ] {
        let text = format!(
            "[[model]]\nname = 'one'\ncheckpoint = 'model'\n[[data]]\nname = 'grey'\nsource = \
             'data'\n[[bench]]\nname = 'b'\nmethods = [{methods}]\n{layers}\n"
        );
        fs::write(&path, text).unwrap();
        bench.run(&["study", &path]).fails_with(&parts);
    }
}
