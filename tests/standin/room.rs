//! Behaviour when the device runs out of memory.

use super::{Bench, Ended, bench, on};
use std::fs;

/// Cached views per image: more than twice the bytes of the weights.
const VIEWS: &str = "40";

/// PoL with activations cached in memory, on a device with limited memory. Returns the weights, if
/// the run succeeded.
fn tuned(bench: &Bench, settings: &[(&str, &str)]) -> (Ended, Option<Vec<u8>>) {
    let out = bench.path("tuned");
    let _ = fs::remove_dir_all(&out);
    let mut words = vec!["post-train", &bench.model, "--data", &bench.data, "--out", &out];
    words.extend(["--method", "pol", "--perturb", "head", "--update", "block.1", "--write-worse"]);
    words.extend(["--epochs", "1", "--keep", "last", "--batch-size", "3", "--perturb-batch", "4"]);
    words.extend(["--micro-batch", "1", "--remeasure", "0", "--cache", "ram"]);
    words.extend(["--augment", "flip", "--views", VIEWS]);
    let ended = on("cuda", bench, &words, settings);
    let found = fs::read(format!("{out}/model.safetensors")).ok();
    let done = ended.code == Some(0);
    (ended, found.filter(|_| done))
}

#[test]
fn out_of_memory_moves_data_or_is_reported() {
    let bench = bench();
    let weights = fs::metadata(format!("{}/model.safetensors", bench.model)).unwrap().len();
    let (ample, expected) = tuned(&bench, &[]);
    assert_eq!(ample.code, Some(0), "{}", ample.errors);
    assert!(ample.errors.contains(" of 16384 MiB on cuda:0"), "{}", ample.errors);
    assert!(ample.errors.contains("activations in cuda:0's memory"), "{}", ample.errors);
    let (mut moved, mut named, mut one) = (0, 0, 0);
    // Too little for the weights; too little for one image besides them; enough for everything
    // except the frozen layers' activations.
    for halves in [1, 2, 3, 6] {
        let bytes = (weights * halves / 2).to_string();
        let scarce = [("STANDIN_BYTES", &bytes[..]), ("STANDIN_PLANT", "others")];
        let (ended, found) = tuned(&bench, &scarce);
        let last = ended.errors.lines().find(|line| line.contains("rror: ")).unwrap_or("");
        println!("{bytes} bytes, weights {weights}: {:?} {last}", ended.code);
        match found {
            // Neither the location of activations nor the upload path changes a bit.
            Some(found) => {
                assert!(Some(found) == expected, "{bytes} bytes");
                moved += u32::from(ended.errors.contains("moved to CPU memory"));
            }
            None => {
                assert_eq!(ended.code, Some(1), "{}", ended.errors);
                assert!(last.contains("or use device cpu"), "{last}");
                one += u32::from(last.contains("no room to process one image"));
                named +=
                    u32::from(last.contains("expected room for ") && last.contains(" bytes of "));
            }
        }
    }
    println!(
        "activations were moved in {moved} runs, allocation failures were reported in {named}"
    );
    assert!(moved > 0 && named > 0 && one > 0);
}

#[test]
fn forecasts_contain_device_memory() {
    let bench = bench();
    for (command, more) in [("diagnose", &[][..]), ("post-train", &["--batch-size", "3"])] {
        let json = bench.path(&format!("{command}.json"));
        let words = [command, &bench.model, "--data", &bench.data, "--dry-run", "--json", &json];
        let words = [&words[..], more].concat();
        let ended = on("cuda", &bench, &words, &[]);
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        let expected = &bench.json(&format!("{command}.json"))["expected"];
        assert!(expected["device_peak_mib"].as_u64().is_some_and(|mib| mib > 0), "{expected}");
    }
}
