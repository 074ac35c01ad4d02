//! `planish diagnose`: ΔL and κ of every layer, and a plan.

use super::common::{Common, Limit};
use super::diagnose_forecast::post_training;
use super::format::{ABSENT, duration, number, optional};
use super::images::{DataArgs, data_info};
use super::model::{ModelArgs, checkpoint_info};
use super::output::print;
use super::subject::Subject;
use super::table::{Align, Style, Table};
use crate::data::Roles;
use crate::objective::Examples;
use crate::report::diagnosis::{Findings, Fitted, Plan, Report, SCHEMA, TimedRun};
use crate::report::dry_run::{DryRun, Expected, Part};
use crate::vit::Granularity;
use crate::vit::layers::{layers, select};

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
    /// Print the forecast, and stop
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    limit: Limit,
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
    args.common.say_notes(&roles.notes);
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
    let mut work = Subject::new(&checkpoint, &roles, args.samples, &args.common)?;
    let calibration = work.calibrate(&chosen, &args.limit)?;
    let need = work.need(&chosen, &calibration).after(clock.seconds());
    let line = format!(
        "diagnose: {} layers on {} images, about {} and {:.0} MiB",
        chosen.len(),
        work.validation.len(),
        duration(need.seconds),
        need.mib
    );
    if args.dry_run {
        let expected = Expected::of(vec![Part::new("diagnosis", need)]);
        let info = checkpoint_info(&checkpoint);
        args.common.save(&DryRun::new(clock.finish(), info, &roles.notes, expected))?;
        return Ok(print(&line)?);
    }
    args.common.say(&line);
    let findings = work.measure(&chosen, &args.common)?;
    let text = show(&work, &findings, &roles, &args.common);
    let (timed, operations) =
        post_training(&work.objective, work.train_images, &calibration, &findings);
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
    Ok(print(&text)?)
}

fn show(subject: &Subject, findings: &Findings, roles: &Roles, common: &Common) -> String {
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
    for note in common.untold(&roles.notes, &roles.notes) {
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
