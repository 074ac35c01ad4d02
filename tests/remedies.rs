//! Moves of layers against PyTorch (`tests/reference/make_remedies.py`).

use candle_core::{DType, Device};
use planish::checkpoint::{Checkpoint, Load};
use planish::objective::{Activations, Examples, Objective};
use planish::remedies::{Direction, MoveForm, MoveFound, Remedy, RemedyFindings, RemedySession};
use planish::session::{Context, objective};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reference/remedies");

fn tuned() -> Checkpoint {
    Checkpoint::open(&Path::new(FOLDER).join("tuned"), &Load::default()).unwrap()
}

fn images() -> Activations {
    let path = Path::new(FOLDER).join("images.safetensors");
    let all = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let labels: Vec<i64> = all["labels"].to_vec1().unwrap();
    Activations {
        stage: 0,
        values: all["pixel_values"].to_dtype(DType::F32).unwrap(),
        labels: labels.iter().map(|&label| label as u32).collect(),
    }
}

fn session(tuned: &Checkpoint, remedies: &[Remedy]) -> RemedySession {
    let directions = remedies.iter().map(|remedy| match remedy {
        Remedy::Toward(path) => Direction::toward(path, tuned).unwrap(),
        _ => Direction::decay(tuned).unwrap(),
    });
    let blocks = tuned.network.blocks();
    RemedySession {
        directions: directions.map(Arc::new).collect(),
        epochs: Vec::new(),
        training: None,
        layers: blocks.clone(),
        joint: blocks,
        notes: Vec::new(),
    }
}

fn measured(tuned: &Checkpoint, remedies: &[Remedy]) -> RemedyFindings {
    let context = Context::silent(0);
    let model: Objective = objective(tuned, DType::F32, context.engine).unwrap();
    session(tuned, remedies).measure(&model, &images(), &context).unwrap()
}

fn toward() -> Remedy {
    Remedy::Toward(PathBuf::from(FOLDER).join("pretrained"))
}

#[test]
fn every_move_equals_pytorch() {
    let text = std::fs::read_to_string(Path::new(FOLDER).join("moves.json")).unwrap();
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let found = measured(&tuned(), &[toward(), Remedy::Decay]);
    assert_eq!(found.images, images().len());
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    let close = |name: &str, found: &planish::remedies::OnV, expected: &Value| {
        // Logits in f32: a few roundings of sums, below 1e-5 in a loss.
        let off = (found.nll - number(expected, "nll")).abs();
        assert!(off < 1e-5, "{name}: {found:?} {expected}");
        let off = (found.calibrated_nll - number(expected, "calibrated_nll")).abs();
        assert!(off < 1e-5, "{name}: {found:?} {expected}");
        assert!((found.top1 - number(expected, "top1")).abs() < 1e-12, "{name}");
    };
    close("start", &found.start, &expected["start"]);
    let mut seen = Vec::new();
    for one in &found.moves {
        let name = format!("{} {}", one.remedy.name(), one.name);
        let along = expected[&name].as_array().unwrap();
        assert!((2..=3).contains(&one.curve.len()), "{name}");
        for point in &one.curve {
            let at = along.iter().find(|e| (number(e, "alpha") - point.alpha).abs() < 1e-12);
            close(&format!("{name} at {}", point.alpha), &point.figures, at.unwrap());
        }
        let loss = |alpha: f64| {
            let at = along.iter().find(|e| (number(e, "alpha") - alpha).abs() < 1e-12);
            at.map_or(number(&expected["start"], "calibrated_nll"), |e| number(e, "calibrated_nll"))
        };
        let gain = number(&expected["start"], "calibrated_nll") - loss(one.alpha);
        assert!((one.in_sample.calibrated_nll.mean - gain).abs() < 2e-5, "{name}");
        // Three points come within a tenth of the best gain of the whole grid.
        let best = along.iter().map(|e| number(e, "calibrated_nll")).fold(f64::INFINITY, f64::min);
        let most = (number(&expected["start"], "calibrated_nll") - best).max(0.0);
        assert!(gain >= 0.9 * most - 1e-3, "{name}: {gain} of {most}");
        seen.push(name);
    }
    let all: Vec<&String> = expected.keys().filter(|name| *name != "start").collect();
    assert_eq!(seen.len(), all.len(), "{seen:?} {all:?}");
}

#[test]
fn eligible_moves_are_significant_after_correction() {
    let found = measured(&tuned(), &[toward(), Remedy::Decay]);
    assert_eq!(found.looks, found.moves.len());
    // By the definition: the smallest level at which Holm's procedure rejects the hypothesis. It rejects
    // hypotheses in the order of p until (number not yet rejected) × p exceeds the level.
    let mut p: Vec<f64> = found.moves.iter().map(|one| one.p.unwrap_or(1.0)).collect();
    p.sort_by(f64::total_cmp);
    for one in &found.moves {
        let Some(own) = one.p else {
            assert!(one.p_holm.is_none() && !one.eligible, "{one:?}");
            continue;
        };
        let before = p.iter().enumerate().filter(|(_, p)| **p <= own);
        let needed = before.map(|(i, p)| (found.looks - i) as f64 * p).fold(0.0, f64::max);
        let corrected = one.p_holm.unwrap();
        assert!((corrected - needed.min(1.0)).abs() < 1e-12, "{corrected} {needed} {one:?}");
        if one.eligible {
            assert!(corrected <= 0.025 && one.cross_fit.calibrated_nll.mean >= 1e-3, "{one:?}");
        }
    }
    let best = found.best().expect("labels are those of a model on the way");
    assert!(found.sentence().contains(&best.name));
    assert!(found.images_needed.is_none());
}

/// The pretrained checkpoint without its head.
fn headless(folder: &Path) -> PathBuf {
    let from = Path::new(FOLDER).join("pretrained");
    let mut all =
        candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    all.retain(|name, _| !name.starts_with("head."));
    candle_core::safetensors::save(&all, folder.join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(from.join("config.json")).unwrap();
    let config = config.replace("\"num_classes\": 4", "\"num_classes\": 0");
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config.as_object_mut().unwrap().remove("label_names");
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    folder.to_path_buf()
}

#[test]
fn a_backbone_leaves_the_head_out() {
    let (whole, temp) = (measured(&tuned(), &[toward()]), tempfile::tempdir().unwrap());
    let folder = headless(temp.path());
    let bare = Remedy::Toward(folder.clone());
    let found = measured(&tuned(), std::slice::from_ref(&bare));
    let direction = Direction::toward(&folder, &tuned()).unwrap();
    assert!(direction.notes.iter().any(|note| note.contains("no head")), "{:?}", direction.notes);
    assert!(found.moves.iter().all(|one| !one.layers.contains(&"head".to_owned())));
    assert!(found.notes.iter().any(|note| note.contains("head")), "{:?}", found.notes);
    let of = |all: &RemedyFindings, name: &str| -> MoveFound {
        let is = |one: &&MoveFound| one.name == name && one.form == MoveForm::Layer;
        all.moves.iter().find(is).unwrap().clone()
    };
    for name in ["embed", "block.0", "block.1", "norm"] {
        assert_eq!(of(&found, name).curve, of(&whole, name).curve, "{name}");
    }
    // Such a file is still no classifier.
    assert!(Checkpoint::open(temp.path(), &Load::default()).is_err());
}

#[test]
fn moves_do_not_depend_on_micro_batches() {
    let (tuned, context) = (tuned(), Context::silent(0));
    let mut model = objective(&tuned, DType::F32, context.engine).unwrap();
    let session = session(&tuned, &[toward(), Remedy::Decay]);
    let all = session.measure(&model, &images(), &context).unwrap();
    model.micro_batch = 7;
    let few = session.measure(&model, &images(), &context).unwrap();
    for (a, b) in all.moves.iter().zip(&few.moves) {
        let [x, y] = [a, b].map(|one| one.cross_fit.calibrated_nll.mean);
        assert!(a.alpha == b.alpha && (x - y).abs() < 1e-5, "{a:?} {b:?}");
    }
}
