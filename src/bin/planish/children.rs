//! Commands run in processes of their own, so that each has its own time and memory.

use super::bad_samples::OnBad;
use super::common::{Common, Limit};
use super::images::{DataArgs, OrderName, TrainOn};
use super::model::ModelArgs;
use super::training::{LineArgs, RecipeArgs, SamArgs, StepName};
use anyhow::{Context, bail};
use std::fmt::Display;
use std::process::{Command, Stdio};

/// The words of a command line.
#[derive(Clone, Debug, Default)]
pub struct Words(pub Vec<String>);

impl Words {
    /// A command on a checkpoint and data, with all that was said of them.
    pub fn new(command: &str, model: &ModelArgs, data: &DataArgs) -> Self {
        let mut words = Words(vec![command.into(), model.checkpoint.display().to_string()]);
        let flags = &model.flags;
        let list = |v: &[f32]| v.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        let size = |[h, w]: [usize; 2]| format!("{h}x{w}");
        words.maybe("--heads", flags.heads);
        words.maybe("--patch-size", flags.patch_size.map(size));
        words.maybe("--image-size", flags.image_size.map(size));
        words.maybe("--mean", flags.mean.as_deref().map(list));
        words.maybe("--std", flags.std.as_deref().map(list));
        words
            .maybe("--interpolation", flags.interpolation.map(|i| format!("{i:?}").to_lowercase()));
        words.maybe(
            "--resize",
            flags.resize.map(|r| match r {
                planish::data::Resize::Squash => "squash".to_owned(),
                planish::data::Resize::SquashTo([h, w]) => format!("{h}x{w}"),
                planish::data::Resize::ShortSide(n) => n.to_string(),
            }),
        );
        words.maybe("--crop-pct", flags.crop_pct);
        words.option("--data", &data.data);
        words.maybe("--train-data", data.train_data.as_ref());
        words.maybe("--val-data", data.val_data.as_ref());
        words.maybe("--test-data", data.test_data.as_ref());
        words.maybe("--val-from-train", data.val_from_train);
        words.option(
            "--train-on",
            match data.train_on {
                TrainOn::Fitted => "fitted",
                TrainOn::All => "all",
            },
        );
        words.option(
            "--class-order",
            match data.class_order {
                OrderName::Name => "name",
                OrderName::Sorted => "sorted",
            },
        );
        words.option(
            "--on-bad-sample",
            match data.bad.policy {
                OnBad::Fail => "fail",
                OnBad::Skip => "skip",
            },
        );
        words
    }

    /// The options of the training itself, but for those that belong to one method.
    pub fn recipe(mut self, args: &RecipeArgs) -> Self {
        self.option("--epochs", args.epochs)
            .option("--batch-size", args.batch_size)
            .option("--precision", args.precision.get().name())
            .option("--lr", args.lr)
            .option("--schedule", args.schedule.name())
            .option("--warmup", args.warmup)
            .option("--momentum", args.momentum)
            .option("--weight-decay", args.weight_decay)
            .option("--cache", args.cache.cache.name())
            .option("--cache-ram", args.cache.cache_ram)
            .option("--cache-dtype", if args.cache.half() { "bf16" } else { "f32" })
            .option("--augment", args.cache.augment);
        self.maybe("--cache-dir", args.cache.cache_dir.as_ref().map(|dir| dir.display()));
        self.maybe("--views", args.cache.views);
        self.maybe("--clip", args.clip);
        self.maybe("--micro-batch", args.micro_batch);
        self.maybe("--accumulate", args.accumulate);
        self
    }

    /// The options of PoL and PoF.
    pub fn line(&mut self, args: &LineArgs) {
        self.maybe("--perturb-batch", args.perturb_batch);
        self.maybe("--gamma", args.gamma);
        self.maybe(
            "--step",
            args.step.map(|s| match s {
                StepName::Search => "search",
                StepName::Newton => "newton",
            }),
        );
    }

    /// The bound on memory.
    pub fn limit(mut self, limit: &Limit) -> Self {
        self.maybe("--memory", limit.memory.map(|size| format!("{}B", size.as_u64())));
        self
    }

    /// The options of one of SAM's variants, by its name.
    pub fn sam(&mut self, method: &str, args: &SamArgs) {
        self.maybe("--rho", args.rho);
        match method {
            "asam" => self.maybe("--asam-eta", args.asam_eta),
            "looksam" => {
                self.maybe("--look-every", args.look_every);
                self.maybe("--look-alpha", args.look_alpha);
            }
            _ => {}
        }
    }

    /// Adds an option with its value.
    pub fn option(&mut self, name: &str, value: impl Display) -> &mut Self {
        // One word, so that a value that starts with a dash stays a value.
        self.0.push(format!("{name}={value}"));
        self
    }

    /// Adds a flag without a value.
    pub fn flag(&mut self, name: &str) -> &mut Self {
        self.0.push(name.into());
        self
    }

    fn maybe(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.option(name, value);
        }
    }

    /// Adds the words of another list.
    pub fn and(mut self, other: &Words) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// Runs planish itself with these words, quietly, on the caller's threads.
///
/// # Errors
/// The program cannot be started, or fails: then with what it said.
pub fn spawn(words: &Words, common: &Common) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find planish's own program file")?;
    let mut command = Command::new(program);
    command.args(&words.0).arg("--quiet").stdin(Stdio::null());
    if let Some(n) = common.threads {
        command.arg(format!("--threads={n}"));
    }
    command.args(common.placed());
    let output = command.output().context("cannot start planish in a process of its own")?;
    if !output.status.success() {
        bail!(
            "planish {} failed ({}): {}",
            words.0.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )
    }
    Ok(())
}
