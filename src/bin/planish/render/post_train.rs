//! Text output of `post-train`.

use crate::message::in_flags;
use crate::render::sentence::{OF_BOTH, sentence};
use crate::render::table::{Align, Style, Table};
use planish::cache::CacheInfo;
use planish::cache::CacheMode;
use planish::diagnose::findings::LayerResult;
use planish::evaluate::Estimate;
use planish::format::{count, duration, estimate, number, percent, share};
use planish::post_train::search::{HEADERS, RecipeSearch};
use planish::report::epochs::EpochFigure;
use planish::report::post_training::PostTrainReport;
use planish::train::run::Epoch;

/// The input's loss on V, the baseline for the epochs' losses. `watched` is the number of images it
/// was computed on and the size of V.
pub fn start_line(loss: f64, watched: Option<[usize; 2]>) -> String {
    format!("epoch 0: loss on V {loss:.4}{} before training", on(watched))
}

/// One line per epoch. Each loss is shown with its images and weights.
pub fn epoch_line(e: &Epoch, watched: Option<[usize; 2]>) -> String {
    let perturbation = match (e.perturbation, e.perturbation_length) {
        (Some(share), _) => format!(", perturbation {} of the norm", percent(share)),
        (None, Some(length)) => format!(", perturbation {} from zero weights", number(length)),
        (None, None) => String::new(),
    };
    let at = if perturbation.is_empty() { "" } else { " at the perturbed weights" };
    let shares = [(e.capped, "capped"), (e.rejected, "rejected")];
    let active = e.active.map_or(String::new(), |share| {
        format!(", {} of the weights updated in each step", percent(share))
    });
    let limited: String = shares
        .iter()
        .filter_map(|(share, what)| Some(format!(", {} {what}", percent((*share)?))))
        .collect();
    let v =
        e.validation_loss.map_or(String::new(), |v| format!(", loss on V {v:.4}{}", on(watched)));
    format!(
        "epoch {}: training loss {:.4}{at}{v}{perturbation}{limited}{active}, {}",
        e.epoch,
        e.training_loss,
        duration(e.seconds)
    )
}

fn on(watched: Option<[usize; 2]>) -> String {
    match watched {
        None => String::new(),
        Some([n, all]) if n == all => format!(" on its {} images", count(n as u64)),
        Some([n, all]) => format!(" on {} of its {} images", count(n as u64), count(all as u64)),
    }
}

/// Columns of `--csv` and `--tensorboard`.
pub fn epoch_figures(e: &Epoch) -> Vec<EpochFigure> {
    vec![
        ("lr", Some(e.lr)),
        ("training_loss", Some(e.training_loss)),
        ("validation_loss", e.validation_loss),
        ("gradient_norm", Some(e.gradient_norm)),
        ("perturbation", e.perturbation),
        ("perturbation_length", e.perturbation_length),
        ("capped", e.capped),
        ("rejected", e.rejected),
        ("eta", e.eta),
        ("active", e.active),
        ("seconds", Some(e.seconds)),
    ]
}

/// Rows before and after tuning, followed by the notes.
pub fn show(report: &PostTrainReport, notes: &[&String]) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new(&[
        ("", Align::Left),
        right("NLL"),
        right("calibrated NLL"),
        right("top-1"),
        right("ECE"),
        right("temperature"),
    ]);
    let mut gains = String::new();
    for (name, part) in [("validation", &report.validation), ("test", &report.test)] {
        let Some(part) = part else { continue };
        for (when, s) in [("before", &part.before), ("after", &part.after)] {
            table.row([
                format!("{name} {when}"),
                with_error(s.nll, s.nll_stderr),
                with_error(s.calibrated_nll, s.calibrated_nll_stderr),
                percent(s.top1),
                format!("{:.4}", s.ece),
                number(s.temperature),
            ]);
        }
        let [nll_gain, calibrated_nll_gain] = part.shown_gains();
        gains += &format!(
            "{name}, before − after, paired: NLL {}, calibrated NLL {} ({} images; above 0 is \
             better)\n",
            estimate(nll_gain),
            estimate(calibrated_nll_gain),
            part.before.images
        );
    }
    let last = report.test.as_ref().map(|part| ("test", part));
    let last = last.or(report.validation.as_ref().map(|part| ("validation", part)));
    if let Some((name, part)) = last.and_then(|(name, part)| Some((name, part.won_back?))) {
        gains += &format!(
            "{name}: training recovered {} of the gain from temperature scaling alone\n",
            share(part)
        );
    }
    let mut out = format!("{}{OF_BOTH}\n\n{gains}", table.render(Style::of_stdout()));
    for layer in &report.layers {
        let of = |l: &LayerResult| {
            format!(
                "ΔL beyond temperature scaling {}, κ {} (one split of V)",
                fitted(l.delta_l_nats.cross_fit, l.delta_l_nats.stderr),
                fitted(l.kappa.cross_fit, l.kappa.stderr)
            )
        };
        out += &format!(
            "{}: before {}; after {}\n",
            layer.before.name,
            of(&layer.before),
            of(&layer.after)
        );
    }
    let written = match &report.output {
        Some(file) => format!("epoch {} written to {}", report.selection.selected_epoch, file.path),
        None => "nothing written".into(),
    };
    out += &format!(
        "{} an epoch; {}; {written}\n",
        duration(report.run.seconds_per_epoch),
        frozen(&report.run.cache)
    );
    if let Some(undo) = report.output.as_ref().and_then(|file| file.undo.as_ref()) {
        out += &format!("`planish undo {}` restores it from {undo}\n", report.checkpoint.path);
    }
    if let Some(file) = report.output.as_ref().filter(|file| file.moves_lost_to_rounding > 0) {
        out += &format!(
            "training changed {} weights; {} of them are stored unchanged, because the change is \
             below the precision of the file's type\n",
            count(file.weights_moved as u64),
            count(file.moves_lost_to_rounding as u64)
        );
    }
    for note in notes {
        out += &format!("note: {}\n", in_flags(note));
    }
    // V selected the epoch, so the final comparison uses the test images if there are any.
    if let Some(comparison) = last.and_then(|(_, part)| part.comparison.as_ref()) {
        out += "Intervals are over images only. `planish bench` also covers training seeds and has \
                controls.\n";
        out += &format!("{}\n", sentence(comparison, "before", "after"));
    }
    out
}

/// The best recipes of a search.
pub fn tried(search: &RecipeSearch) -> String {
    let columns: Vec<(&str, Align)> = HEADERS
        .iter()
        .enumerate()
        .map(|(i, name)| (*name, if i == 0 { Align::Left } else { Align::Right }))
        .collect();
    let mut table = Table::new(&columns);
    search.leading(SHOWN).into_iter().for_each(|row| table.row(row));
    format!("{}{}", table.render(Style::of_stdout()), search.sentence(SHOWN))
}

/// Number of recipes printed.
const SHOWN: usize = 8;

/// How the frozen layers' activations were cached.
fn frozen(cache: &CacheInfo) -> String {
    let folder = cache.folder.as_deref().unwrap_or_default();
    let time = duration(cache.seconds);
    match cache.mode {
        CacheMode::Off => "frozen layers are recomputed for every batch".into(),
        CacheMode::Ram => format!("frozen layers {time}, kept in memory"),
        CacheMode::Disk if cache.found == cache.views => {
            format!("frozen layers read from {folder} in {time}")
        }
        CacheMode::Disk => format!("frozen layers {time}, kept in {folder}"),
    }
}

fn with_error(mean: f64, stderr: Option<f64>) -> String {
    estimate(Estimate { mean, stderr })
}

fn fitted(mean: Option<f64>, stderr: Option<f64>) -> String {
    mean.map_or("–".into(), |mean| with_error(mean, stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_line_names_images_and_weights_of_each_loss() {
        let mut epoch = Epoch {
            epoch: 2,
            lr: 0.01,
            training_loss: 0.25,
            gradient_norm: 1.0,
            validation_loss: Some(0.5),
            validation_stderr: None,
            validation_top1: None,
            perturbation: Some(0.042),
            perturbation_length: Some(0.5),
            capped: Some(0.5),
            rejected: None,
            eta: Some(1.0),
            active: None,
            seconds: 1.5,
        };
        let subset = Some([1000, 6000]);
        let start = start_line(0.625, subset);
        assert_eq!(start, "epoch 0: loss on V 0.6250 on 1,000 of its 6,000 images before training");
        assert_eq!(
            epoch_line(&epoch, subset),
            "epoch 2: training loss 0.2500 at the perturbed weights, loss on V 0.5000 on 1,000 of its \
             6,000 images, perturbation 4.2% of the norm, 50.0% capped, 1.50 s"
        );
        epoch.perturbation = None;
        let from_zeros = epoch_line(&epoch, None);
        assert!(from_zeros.contains(", perturbation 0.5000 from zero weights, 50.0% capped"));
        (epoch.capped, epoch.rejected) = (None, Some(0.25));
        assert!(epoch_line(&epoch, None).contains(" from zero weights, 25.0% rejected"));
        (epoch.perturbation_length, epoch.rejected) = (None, None);
        epoch.active = Some(0.5);
        let active = ", 50.0% of the weights updated in each step, 1.50 s";
        assert!(epoch_line(&epoch, None).contains(active));
        epoch.active = None;
        let plain = "epoch 2: training loss 0.2500, loss on V 0.5000 on its 400 images, 1.50 s";
        assert_eq!(epoch_line(&epoch, Some([400, 400])), plain);
        epoch.validation_loss = None;
        assert_eq!(epoch_line(&epoch, None), "epoch 2: training loss 0.2500, 1.50 s");
    }
}
