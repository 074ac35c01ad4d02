//! Text output of `inspect`.

use crate::render::table::{Align, Style, Table};
use planish::checkpoint::Provenance;
use planish::format::{count, number};
use planish::report::{Inspection, ModelInfo, VitInfo};

/// The file, the model, its history and its layers.
pub fn text(report: &Inspection) -> String {
    let (file, config) = (&report.checkpoint, &report.config);
    let architecture = match &report.architecture_from {
        Some(place) => format!(
            "{}, named by {place}{}",
            file.architecture,
            with(config.differs_from(&file.architecture), "modified by model_args")
        ),
        None => file.architecture.clone(),
    };
    let mut lines = vec![("file", file.path.clone())];
    lines.extend(file.adapter.iter().map(|adapter| ("adapter", adapter.path.clone())));
    lines.extend([
        ("digest", file.digest.clone()),
        ("layout", report.recognised.clone()),
        ("architecture", architecture),
        ("parameters", format!("{}, stored as {}", count(file.parameters as u64), report.dtype)),
    ]);
    lines.extend(model(config));
    lines.push((
        "preprocessing",
        report.checkpoint.preprocessing.as_ref().map(ToString::to_string).unwrap_or_else(|| {
            let own = "; torchvision's pretrained models use --mean 0.485,0.456,0.406 \
                           --std 0.229,0.224,0.225";
            let own = if file.layout == "torchvision" { own } else { "" };
            format!("unknown: pass --mean, --std, --interpolation and --resize for raw images{own}")
        }),
    ));
    lines.extend(report.assumed.iter().map(|what| ("assumed", what.clone())));
    if let Some(names) = &report.class_names {
        lines.push(("classes", names.join(", ")));
    }
    lines.extend(report.history.iter().enumerate().map(|(i, step)| {
        let name = if i == 0 { "made" } else { "then" };
        (name, made(step))
    }));
    let mut out: String =
        lines.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect();
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("tensors", Align::Right),
        ("parameters", Align::Right),
        ("stages", Align::Right),
        ("‖w‖", Align::Right),
    ]);
    for layer in &report.layers {
        let [first, last] = layer.stages;
        table.row([
            layer.name.clone(),
            layer.tensors.to_string(),
            count(layer.parameters as u64),
            if first == last { first.to_string() } else { format!("{first}–{last}") },
            number(layer.weight_norm),
        ]);
    }
    out.push('\n');
    out += &table.render(Style::of_stdout());
    for layer in report.layers.iter().filter(|layer| !layer.weight_norm.is_finite()) {
        out += &format!(
            "warning: {}: NaN or infinite weights; all results of this model will be NaN or \
             infinite\n",
            layer.name
        );
    }
    out
}

/// A step in the checkpoint's history.
fn made(step: &Provenance) -> String {
    let layers = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!(", {what} {}", names.join(", ")),
    };
    let held_out = step.split.map(|s| format!(", {} of the training split held out", s.fraction));
    format!(
        "{} by planish {}, seed {}{}{}{}",
        step.method,
        step.version,
        step.seed,
        layers("perturbed", &step.perturb),
        layers("updated", &step.update),
        held_out.unwrap_or_default()
    )
}

fn by([a, b]: [usize; 2]) -> String {
    format!("{a}×{b}")
}

fn dashed(values: &[usize]) -> String {
    values.iter().map(usize::to_string).collect::<Vec<_>>().join("-")
}

fn with(present: bool, what: &str) -> String {
    if present { format!(", {what}") } else { String::new() }
}

/// The hyperparameters.
fn model(model: &ModelInfo) -> Vec<(&'static str, String)> {
    match model {
        ModelInfo::ConvNext(convnext) => vec![
            (
                "model",
                format!(
                    "from the tensors: widths {}, depths {}, {} classes{}{}",
                    dashed(&convnext.dims),
                    dashed(&convnext.depths),
                    convnext.classes,
                    with(convnext.layer_scale, "LayerScale"),
                    with(convnext.grn, "global response normalisation"),
                ),
            ),
            (
                "head",
                format!(
                    "mean before the norm, gelu, ε {:e}, last {:e}",
                    convnext.eps[0], convnext.eps[1]
                ),
            ),
            (
                "images",
                format!(
                    "{} channels of {}, patches {}",
                    convnext.channels,
                    by(convnext.image_size),
                    by([convnext.stem_patch_size; 2])
                ),
            ),
        ],
        ModelInfo::Mixer(mixer) => vec![
            (
                "model",
                format!(
                    "from the tensors: width {}, depth {}, MLP {} over tokens and {} over channels, \
                     {} classes",
                    mixer.dim,
                    mixer.depth,
                    mixer.token_mlp_dim,
                    mixer.channel_mlp_dim,
                    mixer.classes
                ),
            ),
            ("head", format!("norm before the mean over tokens, gelu, ε {:e}", mixer.eps)),
            (
                "images",
                format!(
                    "{} channels of {}, patches {}, {} tokens",
                    mixer.channels,
                    by(mixer.image_size),
                    by(mixer.patch_size),
                    mixer.tokens
                ),
            ),
        ],
        ModelInfo::Vit(vit) => vec![
            (
                "model",
                format!(
                    "from the tensors: width {}, depth {}, heads {}, MLP {}, {} classes{}{}{}{}{}{}{}{}",
                    vit.dim,
                    vit.depth,
                    vit.heads,
                    vit.mlp_dim,
                    vit.classes,
                    with(vit.class_token, "class token"),
                    with(vit.distillation != "none", &format!("distillation {}", vit.distillation)),
                    with(vit.registers > 0, &format!("{} registers", vit.registers)),
                    with(!vit.qkv_bias, "no qkv bias"),
                    with(vit.layer_scale, "LayerScale"),
                    with(vit.norm_pre, "norm after the embedding"),
                    with(vit.post_norm, "norms after attention and MLP"),
                    with(vit.qk_norm, "norms of queries and keys"),
                ),
            ),
            (
                "head",
                format!(
                    "pooling {}, {}, {}, ε {:e}",
                    vit.pooling,
                    match vit.final_norm.as_str() {
                        "none" => "no last norm".into(),
                        place => format!("norm {place} it"),
                    },
                    vit.activation,
                    vit.eps
                ),
            ),
            (
                "images",
                format!(
                    "{} channels of {}, patches {}, {} tokens{}",
                    vit.channels,
                    by(vit.image_size),
                    by(vit.patch_size),
                    vit.tokens,
                    resized(vit)
                ),
            ),
        ],
    }
}

/// `, position embedding of 37×37 patches, resized in every pass`, if it is.
fn resized(vit: &VitInfo) -> String {
    let grid = [0, 1].map(|axis| vit.image_size[axis] / vit.patch_size[axis].max(1));
    match vit.stored_positions.filter(|stored| *stored != grid) {
        Some(stored) => {
            format!(", position embedding of {} patches, resized in every pass", by(stored))
        }
        None => String::new(),
    }
}
