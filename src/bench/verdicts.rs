//! Verdicts on the gains of methods over their controls.

use super::RowResult;
use crate::evaluate::Estimate;
use crate::format::estimate;

/// Verdict on each method's gain over its control, from a 95% interval over seeds (Student's t).
/// There is no verdict if runs of either were stopped.
pub(super) fn verdicts(rows: &[RowResult], seeds: usize) -> Vec<String> {
    let word = |gain: &Estimate| match gain.stderr {
        None => "one seed is not enough for a verdict".to_owned(),
        Some(se) if gain.mean > t95(seeds) * se => "better than its control".into(),
        Some(se) if gain.mean < -t95(seeds) * se => "worse than its control".into(),
        Some(_) => "not distinguishable from its control".into(),
    };
    rows.iter()
        .filter_map(|row| {
            let (raw, calibrated) =
                (row.gain_over_control.as_ref()?, row.calibrated_gain_over_control.as_ref()?);
            Some((row, raw, calibrated))
        })
        .map(|(row, raw, calibrated)| {
            let control = rows.iter().find(|r| Some(&r.name) == row.control.as_ref());
            let halted = |r: &RowResult| (r.stopped > 0).then(|| (r.name.clone(), r.stopped));
            if let Some((name, n)) = halted(row).or(control.and_then(halted)) {
                return format!(
                    "{}: no verdict, because {n} of {seeds} runs of {name} were stopped",
                    row.name
                );
            }
            format!(
                "{}: NLL {} ({}); calibrated NLL {} ({})",
                row.name,
                word(raw),
                estimate(*raw),
                word(calibrated),
                estimate(*calibrated),
            )
        })
        .collect()
}

/// Two-sided 95% quantile of Student's t for the mean of n values.
pub fn t95(n: usize) -> f64 {
    const T: [f64; 10] = [12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    T.get(n.saturating_sub(2)).copied().unwrap_or(2.201)
}
