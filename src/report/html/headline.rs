//! Selects the figures at the top of the page: those of a model that was kept, on test if
//! available.

use super::input::{Input, Report};
use crate::data::DataInfo;
use crate::evaluate::Summary;
use crate::format;
use crate::post_train::result::BeforeAfter;
use crate::report::post_training::PostTrainReport;
use crate::train::LoraOptions;

/// Figures of one model, or of a model before and after tuning.
pub struct Headline<'a> {
    /// Their file.
    pub file: &'a str,
    /// A sentence on the origin of the model, or empty.
    pub lead: String,
    /// Description of the images.
    pub images: String,
    /// The input model.
    pub given: &'a Summary,
    /// The model after tuning, if the result was kept.
    pub tuned: Option<&'a Summary>,
}

/// Chooses the headline: results on test first, then results that were kept. Ties go to the first
/// file.
pub fn headline(inputs: &[Input]) -> Option<Headline<'_>> {
    let ranked = inputs.iter().filter_map(|input| of(input).map(|found| (rank(input), found)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, found)| found)
}

/// Sort key; smaller is preferred.
fn rank(input: &Input) -> (bool, bool, usize) {
    let (test, kept, kind) = match &input.report {
        Report::PostTraining(r) => (r.test.is_some(), !refused(r), 0),
        Report::Calibration(r) => (r.test.is_some(), r.output.is_some(), 1),
        Report::Merging(r) => (r.test.is_some(), r.output.is_some(), 1),
        Report::Fixing(r) => (r.test.is_some(), r.output.is_some(), 1),
        Report::Evaluation(r) => (r.data.split == "test", true, 2),
        Report::Finetuning(r) => (r.figures.iter().any(|(name, _)| name == "test"), true, 3),
        _ => (false, false, 4),
    };
    (!test, !kept, kind)
}

fn of(input: &Input) -> Option<Headline<'_>> {
    let file = input.name.as_str();
    Some(match &input.report {
        Report::PostTraining(r) => {
            let (role, part) = final_figures(r)?;
            let images = on(role, &part.data);
            let tuned = (!refused(r)).then_some(&part.after);
            Headline { file, lead: String::new(), images, given: &part.before, tuned }
        }
        Report::Fixing(r) => {
            let (role, part) = r.judged();
            let images = on(role, &part.data);
            let tuned = r.output.is_some().then_some(&part.after);
            Headline { file, lead: String::new(), images, given: &part.before, tuned }
        }
        Report::Merging(r) => {
            let (role, part) = test_or_v(r.test.as_ref(), &r.validation);
            let images = on(role, &part.data);
            let tuned = r.output.is_some().then_some(&part.after);
            Headline { file, lead: String::new(), images, given: &part.before, tuned }
        }
        Report::Calibration(r) => {
            let (role, part) = test_or_v(r.test.as_ref(), &r.validation);
            let images = on(role, &part.data);
            let tuned = r.output.is_some().then_some(&part.after);
            Headline { file, lead: String::new(), images, given: &part.before, tuned }
        }
        Report::Evaluation(r) => {
            let images = format!("{} ({})", format::images(r.figures.images), r.data.origin);
            Headline { file, lead: String::new(), images, given: &r.figures, tuned: None }
        }
        Report::Finetuning(r) => {
            let (name, given) = r.figures.last()?;
            let images = format!("{} of split {name}", format::images(given.images));
            let lead = format!("Fine-tuning kept epoch {} of {}. ", r.kept_epoch, r.epochs.len());
            Headline { file, lead, images, given, tuned: None }
        }
        _ => return None,
    })
}

/// Whether the guard rejected the result, so that nothing was written.
pub fn refused(report: &PostTrainReport) -> bool {
    report.output.is_none()
}

/// The figures to show for a tuning, and their role: test, or V without test.
pub fn final_figures(report: &PostTrainReport) -> Option<(&'static str, &BeforeAfter)> {
    let test = report.test.as_ref().map(|part| ("test", part));
    test.or_else(|| report.validation.as_ref().map(|part| ("V", part)))
}

/// The figures to show, and their role: test, or V without test.
pub fn test_or_v<'a>(
    test: Option<&'a BeforeAfter>,
    v: &'a BeforeAfter,
) -> (&'static str, &'a BeforeAfter) {
    test.map_or(("V", v), |part| ("test", part))
}

/// `5,000 images of test (half of test, seed 0)`.
pub fn on(role: &str, data: &DataInfo) -> String {
    let origin = match data.origin == role {
        true => String::new(),
        false => format!(" ({})", data.origin),
    };
    format!("{} of {role}{origin}", format::images(data.images))
}

/// Why a run was rejected, if it was. Files of earlier builds contain no reason; it is derived from
/// the figures.
pub fn refusal(report: &PostTrainReport) -> Option<String> {
    let selection = &report.selection;
    let known = selection.refusal.clone().or_else(|| {
        let worse = selection.worse_than_input == Some(true);
        worse.then(|| "the result was worse than the input on V; nothing was written".into())
    });
    let none = || "nothing was written".to_owned();
    refused(report).then(|| known.unwrap_or_else(none))
}

/// The method and its layers: `PoL, head → norm`.
pub fn method(report: &PostTrainReport) -> String {
    let adapters = report.method.lora.as_ref().and_then(LoraOptions::title);
    let name = adapters.unwrap_or_else(|| {
        report.method.name.to_uppercase().replace("POL", "PoL").replace("POF", "PoF")
    });
    let perturbed = report.method.perturb.as_ref().map_or(String::new(), |p| format!(", {p}"));
    format!("{name}{perturbed} → {}", report.method.update)
}
