//! Verdicts on the gains of methods over their controls.

use super::RowResult;
use crate::evaluate::{EQUIVALENT_NATS, Effect, FEW, FEWEST_SEEDS, Verdict, student_quantile};
use crate::format::{effect, images, number};

/// One verdict on each method: whether its perturbation changes the calibrated NLL on test. Seeds and images
/// count together. There is no verdict if runs of either were stopped.
pub(super) fn verdicts(rows: &[RowResult], seeds: usize, tested: usize) -> Vec<String> {
    let of = |row: &RowResult| {
        let gain = row.answers.as_ref()?.calibrated_nll_over_control?;
        let name = row.control.as_ref()?;
        let control = rows.iter().find(|r| r.name == *name);
        let stopped = |r: &RowResult| (r.stopped > 0).then(|| (r.name.clone(), r.stopped));
        let text = match stopped(row).or(control.and_then(stopped)) {
            Some((name, n)) => {
                format!("no verdict, because {n} of {seeds} runs of {name} were stopped")
            }
            None => verdict(&gain, name, seeds, tested),
        };
        Some(format!("{}: {text}", row.name))
    };
    rows.iter().filter_map(of).collect()
}

fn verdict(gain: &Effect, control: &str, seeds: usize, tested: usize) -> String {
    let little = match gain.equivalence_p {
        Some(p) if p < 0.05 => format!(", within the margin of {EQUIVALENT_NATS}"),
        _ => String::new(),
    };
    match gain.verdict {
        Some(Verdict::Better) => format!("better than {control} by {} nats{little}", effect(gain)),
        Some(Verdict::Worse) => {
            let loss = Effect {
                mean: -gain.mean,
                interval: gain.interval.map(|[low, high]| [-high, -low]),
                ..*gain
            };
            format!("worse than {control} by {} nats{little}", effect(&loss))
        }
        Some(Verdict::Equivalent) => {
            format!("no difference from {control} beyond {EQUIVALENT_NATS} nats: {}", effect(gain))
        }
        Some(Verdict::Open) => format!(
            "undecided compared with {control}: {} nats{}",
            effect(gain),
            gain.smallest_visible.map_or(String::new(), |least| {
                format!("; minimum detectable effect {}", number(least))
            })
        ),
        None if seeds == 1 => "no verdict from one seed; use five".into(),
        None if seeds < FEWEST_SEEDS => {
            let t = student_quantile(0.975, seeds as f64 - 1.0);
            format!("no verdict from {seeds} seeds (Student's t is {t:.1}); use five")
        }
        None => format!("no verdict from {}; use at least {FEW}", images(tested)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Crossed;

    fn told(mean: f64, seeds: usize, tested: usize) -> String {
        let found = Crossed { mean, stderr: Some(0.01), degrees_of_freedom: Some(4.0) };
        let gain = Effect::of(found, Some(EQUIVALENT_NATS), [seeds, tested]);
        verdict(&gain, "SGD → norm", seeds, tested)
    }

    #[test]
    fn verdicts_state_the_interval_or_what_is_missing() {
        // 2.776 standard errors to each side.
        let expected = "better than SGD → norm by 0.050 (0.022 to 0.078) nats";
        assert_eq!(told(0.05, 5, 1000), expected);
        let expected = "worse than SGD → norm by 0.050 (0.022 to 0.078) nats";
        assert_eq!(told(-0.05, 5, 1000), expected);
        // (2.776 + 0.941) standard errors.
        let expected = "undecided compared with SGD → norm: 0.001 (-0.027 to 0.029) nats; \
                        minimum detectable effect 0.03717";
        assert_eq!(told(0.001, 5, 1000), expected);
        assert_eq!(told(0.05, 1, 1000), "no verdict from one seed; use five");
        assert_eq!(told(0.05, 2, 1000), "no verdict from 2 seeds (Student's t is 12.7); use five");
        assert_eq!(told(0.05, 5, 12), "no verdict from 12 images; use at least 30");
        let none = Crossed { mean: 1e-4, stderr: Some(1e-3), degrees_of_freedom: Some(4.0) };
        let none = Effect::of(none, Some(EQUIVALENT_NATS), [5, 1000]);
        let expected =
            "no difference from SGD → norm beyond 0.005 nats: 0.0001 (-0.0027 to 0.0029)";
        assert_eq!(verdict(&none, "SGD → norm", 5, 1000), expected);
        let little = Crossed { mean: 0.002, stderr: Some(4e-4), degrees_of_freedom: Some(4.0) };
        let little = Effect::of(little, Some(EQUIVALENT_NATS), [5, 1000]);
        let expected = "better than SGD → norm by 0.00200 (0.00089 to 0.00311) nats, within the \
                        margin of 0.005";
        assert_eq!(verdict(&little, "SGD → norm", 5, 1000), expected);
    }
}
