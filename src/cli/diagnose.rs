//! `planish diagnose`: ΔL and κ of every layer, and a plan.

use super::common::Common;
use super::format::{ABSENT, duration, number, optional};
use super::images::{DataArgs, data_info, pixels, sample};
use super::model::{ModelArgs, checkpoint_info, objective};
use super::output::print;
use super::table::{Align, Style, Table};
use crate::checkpoint::Checkpoint;
use crate::data::{Role, Roles, require};
use crate::diagnose::{Request, diagnose};
use crate::forecast::{Forecast, Work, diagnose_work, measure_rate, peak_mib, step_work};
use crate::objective::{Examples, Objective};
use crate::pixels::Pixels;
use crate::report::diagnosis::{Findings, Fitted, Plan, Report, SCHEMA, TimedRun};
use crate::vit::layers::{features, layers, select};
use crate::vit::{Granularity, Layer};
use candle_core::DType;

/// Options of `diagnose`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  planish diagnose model/ --data fashion-mnist/ --samples 2000 \
                        --json diagnosis.json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    data: DataArgs,
    /// Validation images to use, in proportion to the classes [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Layers: names or globs, separated by commas [default: all, by --granularity]
    #[arg(long, value_name = "L")]
    layer: Option<String>,
    /// How finely the model is cut into layers
    #[arg(long, value_enum, default_value = "block")]
    granularity: Cut,
    #[command(flatten)]
    common: Common,
}

/// Granularities on the command line.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
pub enum Cut {
    /// embed, block.0 …, norm, head
    Block,
    /// each block's attention and MLP apart
    Sublayer,
    /// every tensor alone
    Tensor,
}

/// Runs the command.
///
/// # Errors
/// Anything that keeps the model from being measured, or the report from being written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let clock = args.common.start()?;
    let checkpoint = args.model.open()?;
    let sources = args.data.open(&checkpoint)?;
    let roles = sources.roles(&checkpoint, args.common.seed)?;
    let chosen = match &args.layer {
        Some(pattern) => select(&checkpoint.config, pattern)?,
        None => layers(
            &checkpoint.config,
            match args.granularity {
                Cut::Block => Granularity::Block,
                Cut::Sublayer => Granularity::Sublayer,
                Cut::Tensor => Granularity::Tensor,
            },
        ),
    };
    let work = Subject::new(&checkpoint, &roles, args.samples, &args.common)?;
    let findings = work.measure(&chosen, &args.common)?;
    print(&show(&work, &findings, &roles))?;
    let (timed, operations) = work.post_training(&findings);
    args.common.save(&Report {
        schema: SCHEMA.into(),
        run: TimedRun { run: clock.finish(), forecast: timed },
        checkpoint: checkpoint_info(&checkpoint),
        data: data_info(
            sources.of(work.validation.split()),
            work.validation.split(),
            &roles.val_origin,
        ),
        findings,
        forecast: operations,
    })?;
    Ok(())
}

/// A model with the images it is measured on.
pub struct Subject {
    /// The model at w*.
    pub objective: Objective,
    /// V.
    pub validation: Pixels,
    training: Option<Pixels>,
    train_images: usize,
    rate: f64,
}

impl Subject {
    /// Takes V and as many training images, and measures this machine on the model.
    ///
    /// # Errors
    /// No V; images that cannot be read; a model that cannot be run.
    pub fn new(
        checkpoint: &Checkpoint,
        roles: &Roles,
        samples: Option<usize>,
        common: &Common,
    ) -> anyhow::Result<Self> {
        let v = sample(require(Role::Val, roles.val.as_ref())?, samples, common.seed)?;
        let validation = pixels(checkpoint, &v)?;
        let training = match &roles.train {
            Some(split) => {
                let n = v.len().min(split.len());
                Some(pixels(checkpoint, &sample(split, Some(n), common.seed)?)?)
            }
            None => None,
        };
        let objective = objective(checkpoint, DType::F32)?;
        let rate = measure_rate(&objective, &validation)?;
        let train_images = roles.train.as_ref().map_or(0, |s| s.len());
        Ok(Self { objective, validation, training, train_images, rate })
    }

    /// The same images under other weights.
    pub fn at(&self, objective: Objective) -> Self {
        Self {
            objective,
            validation: self.validation.clone(),
            training: self.training.clone(),
            train_images: self.train_images,
            rate: self.rate,
        }
    }

    /// Measures the layers, a forecast first.
    ///
    /// # Errors
    /// Those of [`diagnose`].
    pub fn measure(&self, layers: &[Layer], common: &Common) -> anyhow::Result<Findings> {
        let images = self.validation.len();
        let (config, model) = (&self.objective.config, &self.objective);
        let seconds = images as f64 * diagnose_work(config, layers) / self.rate;
        let held = 2.0 * (images * config.tokens() * config.dim * 4) as f64
            + 2.0
                * (images * config.channels * config.image_size[0] * config.image_size[1] * 4)
                    as f64;
        let copied = 2 * model.weights.parameters();
        let progress = common.progress("diagnose", layers.len() as u64, "layers");
        if !common.quiet {
            progress.line(&format!(
                "diagnose: {} layers on {images} images, about {} and {:.0} MiB",
                layers.len(),
                duration(seconds),
                peak_mib(model, copied, held, true)
            ));
        }
        let request = Request {
            objective: model,
            validation: &self.validation,
            training: self.training.as_ref().map(|t| t as &dyn Examples),
            layers,
            seed: common.seed,
        };
        Ok(diagnose(&request, &mut |name| {
            progress.note(name);
            progress.add(1);
        })?)
    }

    /// What each method would take: on this machine, and in operations.
    fn post_training(&self, findings: &Findings) -> (Vec<Forecast>, Vec<Work>) {
        let config = &self.objective.config;
        let named = |name: &str| select(config, name).ok().and_then(|mut l| l.pop());
        let (head, features) = (named("head"), features(config));
        let mut methods: Vec<(&str, Layer, Option<Layer>)> = Vec::new();
        if let Some(head) = &head {
            methods.push(("pof", features, Some(head.clone())));
        }
        if let Some(plan) = &findings.plan
            && let (Some(p), Some(u)) = (named(&plan.perturb), named(&plan.update))
        {
            methods.push(("pol", u.clone(), Some(p)));
            methods.push(("sgd", u, None));
        }
        let examples = self.train_images;
        methods
            .into_iter()
            .map(|(name, update, perturb)| {
                let newton = |p: &Layer| p.first_stage + 4 < crate::vit::stages(config);
                let p = perturb.as_ref().map(|p| (p, newton(p)));
                let flop = step_work(config, &update, p, 2.0);
                let n: usize = update
                    .tensors
                    .iter()
                    .map(|&i| self.objective.weights.tensor(i).elem_count())
                    .sum();
                let held = (examples * config.tokens() * config.dim * 4) as f64;
                (
                    Forecast {
                        method: name.into(),
                        seconds_per_epoch: examples as f64 * flop / self.rate,
                        peak_mib: peak_mib(&self.objective, 3 * n, held, p.is_some_and(|p| p.1)),
                    },
                    Work { method: name.into(), gflop_per_image: flop / 1e9 },
                )
            })
            .unzip()
    }
}

fn show(subject: &Subject, findings: &Findings, roles: &Roles) -> String {
    let loss = &findings.loss_nats;
    let mut out = format!(
        "validation: {} images ({}); loss {}, calibrated {:.4} at temperature {:.3}{}\n",
        subject.validation.len(),
        roles.val_origin,
        with_error(Some(loss.validation), loss.stderr),
        loss.calibrated,
        loss.temperature,
        loss.training.map_or(String::new(), |t| format!("; training loss {t:.4}")),
    );
    for note in &roles.notes {
        out += &format!("note: {note}\n");
    }
    out += &format!("\n{}\n{}\n", table(findings), findings.summary);
    match &findings.plan {
        Some(plan) => out += &plan_line("plan", plan),
        None => out += "plan: none\n",
    }
    if let Some(plan) = &findings.plan_in_sample {
        out +=
            &format!("in-sample, as published: perturb {}, update {}\n", plan.perturb, plan.update);
    }
    if let Some(plan) = &findings.plan_calibrated {
        out += &plan_line("beyond temperature", plan);
    }
    for warning in &findings.warnings {
        out += &format!("warning: {warning}\n");
    }
    out
}

fn plan_line(title: &str, plan: &Plan) -> String {
    let tied = |names: &[String]| match names {
        [] => String::new(),
        _ => format!(" (tied with {})", names.join(", ")),
    };
    format!(
        "{title}: perturb {}{}, update {}{}\n",
        plan.perturb,
        tied(&plan.tied_perturb),
        plan.update,
        tied(&plan.tied_update)
    )
}

/// ΔL and κ by layer, a bar for the cross-fitted ΔL.
fn table(findings: &Findings) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("layer", Align::Left),
        right("ΔL in-sample"),
        right("ΔL cross-fit"),
        right("beyond T"),
        right("κ in-sample"),
        right("κ cross-fit"),
        right("‖Δw‖"),
        right("α*/α_q"),
        ("", Align::Left),
    ]);
    for l in &findings.layers {
        let both = |f: &Fitted| with_error(f.cross_fit, f.stderr);
        let mut flags = Vec::new();
        if l.eligible {
            flags.push("eligible");
        }
        if l.capped {
            flags.push("capped");
        }
        if l.negative_curvature {
            flags.push("gᵀHg ≤ 0");
        }
        let cells = [
            l.name.clone(),
            optional(l.delta_l_nats.in_sample),
            both(&l.delta_l_nats),
            both(&l.delta_l_calibrated_nats),
            optional(l.kappa.in_sample),
            both(&l.kappa),
            number(l.displacement),
            l.quadratic.alpha.map_or(ABSENT.into(), |q| format!("{:.2}", l.alpha / q)),
            flags.join(", "),
        ];
        table.row_with_bar(cells, l.delta_l_nats.cross_fit.unwrap_or(0.0));
    }
    table.render(Style::of_stdout())
}

fn with_error(mean: Option<f64>, stderr: Option<f64>) -> String {
    mean.map_or(ABSENT.into(), |mean| {
        super::format::estimate(crate::evaluate::Estimate { mean, stderr })
    })
}
