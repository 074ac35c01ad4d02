//! What `planish finetune` prints: the plan, a line for each epoch, the outcome.

use crate::message::in_flags;
use crate::render::epochs::Show;
use crate::render::table::{Align, Style, Table};
use planish::data::Split;
use planish::evaluate::{Estimate, Summary};
use planish::finetune::FinetuneSession;
use planish::format;
use planish::format::{count, duration, estimate, number, percent};
use planish::report::Finetuning;
use planish::report::epochs::EpochFigure;
use planish::session::bad_samples::damage_note;
use planish::train::Epoch;

/// The plan, before training.
pub fn plan(session: &FinetuneSession) -> String {
    let FinetuneSession { options, images, start, settings, .. } = session;
    let n = |split: &Split| count(split.len() as u64);
    let adapters = start.adapters.as_ref().map(|adapters| adapters.intention() + "\n");
    let mut out = format!(
        "{}, {} parameters, {} classes\n{}{} training images",
        start.architecture,
        count(start.weights.parameters() as u64),
        start.network.classes(),
        adapters.unwrap_or_default(),
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
        "\n{} of {} of {}, {}, learning rate {}\n",
        format::epochs(settings.epochs),
        format::steps(images.train.len() / settings.batch_size.max(1)),
        format::images(settings.batch_size),
        options.optimizer.name(),
        number(settings.lr)
    );
    if let Ok(Some(late)) = options.late()
        && let Some((_, rho)) = late.ascent()
    {
        out += &format!(
            "the last {} with {}, ρ {}\n",
            format::epochs(options.sam_last),
            late.name().title(),
            number(rho)
        );
    }
    let left_out = images.train.len() % settings.batch_size.max(1);
    if left_out > 0 {
        out += &format!(
            "note: each epoch leaves out {left_out} images that do not fill a batch, different ones \
             each time\n"
        );
    }
    if let Some(preprocess) = &start.preprocess {
        out += &format!("preprocessing: {preprocess}\n");
    }
    start.notes.iter().for_each(|note| out += &format!("note: {}\n", in_flags(note)));
    out
}

/// The line and the columns of each epoch.
pub fn epochs(session: &FinetuneSession) -> Show<'static> {
    let (size, epochs) = (session.settings.batch_size.max(1), session.settings.epochs);
    let images = session.images.train.len() / size * size;
    Box::new(move |epoch, _| {
        let speed = images as f64 / epoch.seconds;
        (line(epoch, epochs, speed), figures(epoch, speed))
    })
}

/// The values of an epoch for `--csv` and `--tensorboard`.
fn figures(epoch: &Epoch, speed: f64) -> Vec<EpochFigure> {
    vec![
        ("lr", Some(epoch.lr)),
        ("training_loss", Some(epoch.training_loss)),
        ("validation_loss", epoch.validation_loss),
        ("validation_top1", epoch.validation_top1.map(|e| e.mean)),
        ("images_per_second", Some(speed)),
    ]
}

fn line(epoch: &Epoch, epochs: usize, speed: f64) -> String {
    // Of epochs with SAM.
    let at = if epoch.perturbation_length.is_some() { " at the perturbed weights" } else { "" };
    let mut out = format!(
        "epoch {:>width$}/{epochs}  training loss {}{at}",
        epoch.epoch,
        number(epoch.training_loss),
        width = epochs.to_string().len()
    );
    if let (Some(mean), Some(top1)) = (epoch.validation_loss, epoch.validation_top1) {
        let loss = Estimate { mean, stderr: epoch.validation_stderr };
        out += &format!("  validation {}, top-1 {}", estimate(loss), percent(top1.mean));
    }
    out + &format!("  {} images/s", count(speed as u64))
}

/// The outcome.
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
    let mut head = String::new();
    if let Some(last) = report.head_epochs.last() {
        head = format!(
            "head first, {}: training loss {}",
            format::epochs(report.head_epochs.len()),
            number(last.training_loss)
        );
        if let (Some(loss), Some(top1)) = (last.validation, last.validation_top1) {
            head += &format!(", validation {}, top-1 {}", estimate(loss), percent(top1.mean));
        }
        head += "\n";
    }
    let noted = |(name, f): &(String, Summary)| {
        f.temperature_note().map(|note| format!("note: temperature of {name}: {note}\n"))
    };
    let mut notes: String = report.figures.iter().filter_map(noted).collect();
    if let Some(note) = damage_note(&report.damaged) {
        notes += &format!("note: {}\n", in_flags(&note));
    }
    format!(
        "\n{}\n{head}{notes}weights of epoch {} written to {} in {}\n",
        table.render(Style::of_stdout()),
        report.kept_epoch,
        report.checkpoint,
        duration(report.run.seconds)
    )
}
