//! Whose figures head the page: those of a model that is there to be used, on test where a result
//! has them.

use super::input::{Input, Result};
use crate::data::DataInfo;
use crate::evaluate::Summary;
use crate::format::count;
use crate::report::post_training::Report;
use crate::train::result::BeforeAfter;

/// Figures of one model, or of one before and after tuning.
pub struct Headline<'a> {
    /// The file that they come from.
    pub file: &'a str,
    /// A sentence on how the model came about, or nothing.
    pub lead: String,
    /// On which images.
    pub images: String,
    /// The model that was given.
    pub given: &'a Summary,
    /// The same after a tuning that was kept.
    pub tuned: Option<&'a Summary>,
}

/// The headline of the page: test comes before any other split, and a result that was kept before
/// the input of one that was refused; of several alike the first given.
pub fn headline(inputs: &[Input]) -> Option<Headline<'_>> {
    let ranked = inputs.iter().filter_map(|input| of(input).map(|found| (rank(input), found)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, found)| found)
}

/// Less comes first.
fn rank(input: &Input) -> (bool, bool, usize) {
    let (test, kept, kind) = match &input.result {
        Result::PostTraining(r) => (r.test.is_some(), !refused(r), 0),
        Result::Evaluation(r) => (r.data.split == "test", true, 1),
        Result::Finetuning(r) => (r.figures.iter().any(|(name, _)| name == "test"), true, 2),
        _ => (false, false, 3),
    };
    (!test, !kept, kind)
}

fn of(input: &Input) -> Option<Headline<'_>> {
    let file = input.name.as_str();
    Some(match &input.result {
        Result::PostTraining(r) => {
            let (role, part) = final_figures(r)?;
            let images = on(role, &part.data);
            let tuned = (!refused(r)).then_some(&part.after);
            Headline { file, lead: String::new(), images, given: &part.before, tuned }
        }
        Result::Evaluation(r) => {
            let images = format!("{} ({})", counted(r.figures.images), r.data.origin);
            Headline { file, lead: String::new(), images, given: &r.figures, tuned: None }
        }
        Result::Finetuning(r) => {
            let (name, given) = r.figures.last()?;
            let images = format!("{} of split {name}", counted(given.images));
            let lead = format!("Fine-tuning kept epoch {} of {}. ", r.kept_epoch, r.epochs.len());
            Headline { file, lead, images, given, tuned: None }
        }
        _ => return None,
    })
}

/// A run that wrote nothing, since the guard took what came of it for no better than the input.
pub fn refused(report: &Report) -> bool {
    report.output.is_none()
}

/// The figures that count of a tuning, and whose they are: test's, or V's where there is no other.
pub fn final_figures(report: &Report) -> Option<(&'static str, &BeforeAfter)> {
    let test = report.test.as_ref().map(|part| ("test", part));
    test.or_else(|| report.validation.as_ref().map(|part| ("V", part)))
}

/// `5,000 images of test (half of test, seed 0)`.
pub fn on(role: &str, data: &DataInfo) -> String {
    let origin = match data.origin == role {
        true => String::new(),
        false => format!(" ({})", data.origin),
    };
    format!("{} of {role}{origin}", counted(data.images))
}

fn counted(images: usize) -> String {
    match images {
        1 => "1 image".into(),
        n => format!("{} images", count(n as u64)),
    }
}

/// Why a run was refused, if it was: what the guard said, or what files of earlier builds show.
pub fn refusal(report: &Report) -> Option<String> {
    let selection = &report.selection;
    let known = selection.refusal.clone().or_else(|| {
        let worse = selection.worse_than_input == Some(true);
        worse.then(|| "the result was worse than the input on V; nothing was written".into())
    });
    let none = || "nothing was written".to_owned();
    refused(report).then(|| known.unwrap_or_else(none))
}

/// What was done, in a few words: `PoL, head → norm`.
pub fn method(report: &Report) -> String {
    let name = report.method.name.to_uppercase().replace("POL", "PoL").replace("POF", "PoF");
    let perturbed = report.method.perturb.as_ref().map_or(String::new(), |p| format!(", {p}"));
    format!("{name}{perturbed} → {}", report.method.update)
}
