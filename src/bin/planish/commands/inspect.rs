//! `planish inspect`: describes a checkpoint.

use crate::args::Common;
use crate::args::ModelArgs;
use crate::render::print;
use crate::render::table::{Align, Style, Table};
use planish::checkpoint::{Checkpoint, Provenance};
use planish::format::{count, number};
use planish::models::Layer;
use planish::models::arch;
use planish::report::{INSPECTION, Inspection, LayerInfo, ModelInfo};
use planish::session::checkpoint_info;

/// Arguments of `planish inspect`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  planish inspect vit.safetensors --heads 4 --image-size 28")]
pub struct Args {
    /// The checkpoint.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Common options.
    #[command(flatten)]
    pub common: Common,
}

/// Prints the checkpoint's architecture and how it was recognised.
///
/// # Errors
/// The checkpoint is not fully determined, or the report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let running = args.common.start()?;
    let checkpoint = args.model.open()?;
    planish::output::spare(&[args.common.json.as_deref()], &checkpoint.path, &[])?;
    let report = Inspection {
        schema: INSPECTION.into(),
        run: running.finish(),
        checkpoint: checkpoint_info(&checkpoint),
        architecture_from: checkpoint.architecture_from.clone(),
        recognised: checkpoint.recognised.clone(),
        dtype: checkpoint.dtype.clone(),
        config: ModelInfo::from(&checkpoint.config),
        assumed: checkpoint.assumed.clone(),
        class_names: checkpoint.class_names.clone(),
        layers: checkpoint
            .network
            .blocks()
            .iter()
            .map(|layer| about(&checkpoint, layer))
            .collect::<anyhow::Result<_>>()?,
        provenance: checkpoint.provenance.clone(),
        history: checkpoint.history.clone(),
    };
    args.common.save(&report)?;
    Ok(print(&text(&report))?)
}

fn about(checkpoint: &Checkpoint, layer: &Layer) -> anyhow::Result<LayerInfo> {
    let (mut parameters, mut squares) = (0, 0.0);
    for &i in &layer.tensors {
        let values: Vec<f32> = checkpoint.weights.tensor(i).flatten_all()?.to_vec1()?;
        parameters += values.len();
        squares += values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    }
    Ok(LayerInfo {
        name: layer.name.clone(),
        tensors: layer.tensors.len(),
        parameters,
        stages: [layer.first_stage, layer.last_stage],
        weight_norm: squares.sqrt(),
    })
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

/// Whether the model differs from the architecture with this name. In timm, `model_args` can change
/// the architecture but not its name.
fn is_modified(model: &ModelInfo, name: &str) -> bool {
    match model {
        ModelInfo::Vit(own) => arch::vit(name, own.classes, own.channels).is_ok_and(|named| {
            (named.dim, named.depth, named.patch_size) != (own.dim, own.depth, own.patch_size)
        }),
        ModelInfo::ConvNext(own) => arch::convnext(name, own.classes, own.channels)
            .is_ok_and(|named| (&named.dims, &named.depths) != (&own.dims, &own.depths)),
        ModelInfo::Mixer(own) => arch::mixer(name, own.classes, own.channels).is_ok_and(|named| {
            (named.dim, named.depth, named.patch_size) != (own.dim, own.depth, own.patch_size)
        }),
    }
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
                    "from the tensors: width {}, depth {}, heads {}, MLP {}, {} classes{}{}{}{}{}{}",
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
                ),
            ),
            (
                "head",
                format!(
                    "pooling {}, norm {} it, {}, ε {:e}",
                    vit.pooling, vit.final_norm, vit.activation, vit.eps
                ),
            ),
            (
                "images",
                format!(
                    "{} channels of {}, patches {}, {} tokens",
                    vit.channels,
                    by(vit.image_size),
                    by(vit.patch_size),
                    vit.tokens
                ),
            ),
        ],
    }
}

fn text(report: &Inspection) -> String {
    let (file, config) = (&report.checkpoint, &report.config);
    let architecture = match &report.architecture_from {
        Some(place) => format!(
            "{}, named by {place}{}",
            file.architecture,
            with(is_modified(config, &file.architecture), "modified by model_args")
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
