//! What `planish finetune` prints: the plan, a line for each epoch, the outcome.

use crate::commands::finetune::Args;
use crate::commands::finetune_plan::{Images, Start};
use crate::message::in_flags;
use crate::render::epochs::{Epochs, Figure};
use crate::render::progress::Progress;
use crate::render::table::{Align, Style, Table};
use planish::data::DataInfo;
use planish::data::folds::stratified_halves;
use planish::data::{DataSet, Split};
use planish::evaluate::{Estimate, Predictions, Summary, Temperature, summarise};
use planish::format::{count, duration, estimate, number, percent};
use planish::report::Finetuning;
use planish::session::bad_samples::damage_note;
use planish::session::data_info;
use planish::train::finetune::{Epoch, Event, Settings};
use std::time::Instant;

/// What is about to happen.
pub fn plan(args: &Args, start: &Start, images: &Images, settings: &Settings) -> String {
    let n = |split: &Split| count(split.len() as u64);
    let mut out = format!(
        "{}, {} parameters, {} classes\n{} training images",
        start.architecture,
        count(start.weights.parameters() as u64),
        start.config.classes,
        n(&images.train)
    );
    if let Some(val) = &images.val {
        let from = match images.fraction > 0.0 {
            true => format!("{} of the training split, seed {}", images.fraction, settings.seed),
            false => "split val".into(),
        };
        out += &format!(", {} for validation ({from})", n(val));
    }
    out += &format!(
        "\n{} epochs of {} steps of {} images, {}, rate {}\n",
        args.epochs,
        images.train.len() / args.batch_size.max(1),
        args.batch_size,
        format!("{:?}", args.optimizer).to_lowercase(),
        number(settings.rate)
    );
    let left_out = images.train.len() % args.batch_size.max(1);
    if left_out > 0 {
        out += &format!(
            "note: {left_out} images of every epoch make no whole batch and are left out, others \
             each time\n"
        );
    }
    if let Some(preprocess) = &start.preprocess {
        out += &format!("preprocessing: {preprocess}\n");
    }
    start.notes.iter().for_each(|note| out += &format!("note: {note}\n"));
    out
}

/// Moves the progress line and prints one for each epoch.
pub fn teller<'a>(
    progress: &'a Progress,
    args: &'a Args,
    per_epoch: usize,
    files: &'a mut Epochs,
) -> impl FnMut(Event) + use<'a> {
    let mut since = Instant::now();
    move |event| match event {
        Event::Step(images, loss) => {
            progress.add(images as u64);
            progress.note(format!("loss {}", number(loss)));
        }
        Event::Epoch(epoch) => {
            let seconds = since.elapsed().as_secs_f64();
            since = Instant::now();
            let speed = per_epoch as f64 / seconds;
            files.add(epoch.epoch, &figures(epoch, speed));
            if !args.common.quiet {
                progress.line(&line(epoch, args.epochs, speed));
            }
        }
    }
}

/// What `--csv` and `--tensorboard` tell of an epoch.
fn figures(epoch: &Epoch, speed: f64) -> [Figure; 5] {
    [
        ("rate", Some(epoch.rate)),
        ("training_loss", Some(epoch.training_loss)),
        ("validation_loss", epoch.validation.map(|e| e.mean)),
        ("validation_top1", epoch.validation_top1.map(|e| e.mean)),
        ("images_per_second", Some(speed)),
    ]
}

fn line(epoch: &Epoch, epochs: usize, speed: f64) -> String {
    let mut out = format!(
        "epoch {:>width$}/{epochs}  training loss {}",
        epoch.epoch,
        number(epoch.training_loss),
        width = epochs.to_string().len()
    );
    if let (Some(loss), Some(top1)) = (epoch.validation, epoch.validation_top1) {
        out += &format!("  validation {}, top-1 {}", estimate(loss), percent(top1.mean));
    }
    out + &format!("  {} images/s", count(speed as u64))
}

/// What came of it.
pub fn text(report: &Finetuning) -> String {
    let mut table = Table::new(&[
        ("images", Align::Left),
        ("NLL (nats)", Align::Right),
        ("calibrated", Align::Right),
        ("top-1", Align::Right),
        ("ECE", Align::Right),
    ]);
    for (name, f) in &report.figures {
        let of = |mean, stderr| estimate(Estimate { mean, stderr });
        table.row([
            name.clone(),
            of(f.nll, f.nll_stderr),
            of(f.calibrated_nll, f.calibrated_nll_stderr),
            percent(f.top1),
            number(f.ece),
        ]);
    }
    let noted = |(name, f): &(String, Summary)| {
        f.temperature_note().map(|note| format!("note: temperature of {name}: {note}\n"))
    };
    let mut notes: String = report.figures.iter().filter_map(noted).collect();
    if let Some(note) = damage_note(&report.damaged) {
        notes += &format!("note: {}\n", in_flags(&note));
    }
    format!(
        "\n{}\n{notes}weights of epoch {} written to {} in {}",
        table.render(Style::of_stdout()),
        report.kept_epoch,
        report.checkpoint,
        duration(report.run.seconds)
    )
}

/// What the report says of the images.
pub fn about(data: &DataSet, images: &Images) -> Vec<DataInfo> {
    let mut out = vec![data_info(data, &images.train, "training images")];
    if let Some(val) = &images.val {
        let origin = match images.fraction > 0.0 {
            true => format!("held out of train, {}", images.fraction),
            false => "split val".into(),
        };
        out.push(data_info(data, val, &origin));
    }
    out.extend(images.test.as_ref().map(|test| data_info(data, test, "split test")));
    out
}

/// Figures on a set of images, at the temperature of `val`, or of the set's own halves without it.
///
/// # Errors
/// A set too small to be halved.
pub fn summary(
    of: &Predictions,
    val: Option<&Predictions>,
    args: &Args,
) -> Result<Summary, planish::evaluate::Error> {
    match val {
        Some(val) => summarise(of, Temperature::FittedOn(val)),
        None => {
            let (half, _) = stratified_halves(of.labels(), args.common.seed);
            summarise(of, Temperature::CrossFitted(&half))
        }
    }
}
