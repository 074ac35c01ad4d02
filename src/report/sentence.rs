//! A comparison as a sentence.

use crate::evaluate::{Comparison, Difference, EQUIVALENT_NATS, Estimate, FEW, Verdict};
use crate::format::{count, estimate, number, percent};

/// States which differences are established, and of which figures there is none. `a` and `b` are the names
/// of the models.
pub fn sentence(comparison: &Comparison, a: &str, b: &str) -> String {
    let images = match comparison.images {
        1 => return "One image is not enough for a comparison.".into(),
        n if n < FEW => format!("{n} images, too few for intervals"),
        n => format!("{} images", count(n as u64)),
    };
    let of = |verdict: Verdict| -> Vec<String> {
        let those = comparison.differences.iter().filter(|d| d.verdict == verdict);
        those.map(|d| told(d, comparison)).collect()
    };
    let mut parts = Vec::new();
    let better = of(Verdict::Better);
    if !better.is_empty() {
        parts.push(format!("{b} is better than {a} in {}", listed(&better)));
    }
    let worse = of(Verdict::Worse);
    if !worse.is_empty() {
        let lead = if parts.is_empty() { format!("{b} is worse than {a}") } else { "worse".into() };
        parts.push(format!("{lead} in {}", listed(&worse)));
    }
    let between = format!(" between {a} and {b}");
    for (verdict, lead) in [(Verdict::Equivalent, "no difference"), (Verdict::Open, "undecided")] {
        let those = of(verdict);
        if !those.is_empty() {
            let between = if parts.is_empty() { between.as_str() } else { "" };
            parts.push(format!("{lead}{between}: {}", listed(&those)));
        }
    }
    format!("On these {images}, {}.", parts.join("; "))
}

/// `NLL (0.016 to 0.080)`, the 95% interval. The margin of an equivalence, or the smallest gain that these
/// images could have shown, follows.
fn told(d: &Difference, comparison: &Comparison) -> String {
    let Some([low, high]) = d.shown_interval() else { return name(&d.figure).into() };
    let show = |x: f64| rounded(x, d.shown_gain().stderr);
    let further = match (d.verdict, d.equivalence_p, d.smallest_visible) {
        (Verdict::Equivalent, Some(_), _) => format!(", within {EQUIVALENT_NATS} nats"),
        (Verdict::Open, Some(_), Some(least)) if comparison.images >= FEW => {
            format!(", minimum detectable effect {}", show(least))
        }
        _ => String::new(),
    };
    match d.figure == "top1" {
        false => format!("{} ({} to {}{further})", name(&d.figure), show(low), show(high)),
        true => format!(
            "top-1 ({} to {}; McNemar p = {})",
            percent(low),
            percent(high),
            number(comparison.mcnemar.p)
        ),
    }
}

/// Rounded to the second digit of the standard error.
pub fn rounded(x: f64, stderr: Option<f64>) -> String {
    let text = estimate(Estimate { mean: x, stderr });
    text.split(" ± ").next().unwrap_or_default().into()
}

fn listed(items: &[String]) -> String {
    match items {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

/// Display name of a figure.
pub fn name(figure: &str) -> &str {
    match figure {
        "nll" => "NLL",
        "calibrated_nll" => "calibrated NLL",
        "top1" => "top-1",
        "brier" => "Brier score",
        "ece" => "ECE",
        "calibrated_ece" => "calibrated ECE",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{Scores, compare};

    fn scores(loss: f64, n: usize) -> Scores {
        let all = |x: f64| vec![x; n];
        Scores {
            nll: all(loss),
            top1: all(1.0),
            top5: all(1.0),
            brier: all(0.5),
            confidence: all(0.75),
            entropy: all(0.1),
        }
    }

    #[test]
    fn sentence_states_established_and_open_differences() {
        let of = |a: f64, b: f64, n| {
            let (a, b) = (scores(a, n), scores(b, n));
            sentence(&compare([&a, &a], [&b, &b], 0, 100).unwrap(), "before", "after")
        };
        let better = of(1.5, 1.25, 1200);
        let lead = "On these 1,200 images, after is better than before in NLL (0.2500 to 0.2500) \
                    and calibrated NLL";
        assert!(better.starts_with(lead), "{better}");
        assert!(better.contains("; no difference: top-1 ("), "{better}");
        let worse = of(1.0, 1.25, 30);
        assert!(worse.contains("after is worse than before in NLL (-0.2500"), "{worse}");
        let few = of(1.0, 1.25, 29);
        assert!(
            few.starts_with("On these 29 images, too few for intervals, undecided between"),
            "{few}"
        );
        let same = of(1.0, 1.0, 40);
        let lead = "no difference between before and after: NLL (0 to 0, within 0.005 nats)";
        assert!(same.contains(lead), "{same}");
        assert_eq!(of(1.0, 9.0, 1), "One image is not enough for a comparison.");
    }
}
