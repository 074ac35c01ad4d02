//! Tables of moves along remedies, for the terminal and the page.

use crate::evaluate::Estimate;
use crate::format::{ABSENT, unsigned_zero};
use crate::remedies::{MoveForm, MoveFound, Remedy, RemedyFindings};

/// Headers of [`move_rows`].
pub const MOVE_HEADERS: [&str; 7] =
    ["move", "α", "NLL", "after T", "in-sample", "top-1 points", "p"];

/// Moves in the table besides eligible ones and those of all layers.
const SHOWN: usize = 8;

/// The moves with the highest gains after a temperature, all eligible ones, and those of all layers.
/// Each row says whether it is eligible.
pub fn move_rows(found: &RemedyFindings) -> Vec<(bool, [String; 7])> {
    let ranked = found.ranked();
    let whole = |one: &MoveFound| matches!(one.form, MoveForm::All | MoveForm::Lines);
    let shown = ranked
        .into_iter()
        .enumerate()
        .filter(|(rank, one)| *rank < SHOWN || one.eligible || whole(one));
    shown
        .map(|(_, one)| {
            let gains = one.cross_fit;
            let cells = [
                format!("{} ({})", one.name, label(found, &one.remedy)),
                one.alpha.to_string(),
                fixed(gains.nll, 1.0, 4),
                fixed(gains.calibrated_nll, 1.0, 4),
                unsigned_zero(one.in_sample.calibrated_nll.mean, 4),
                fixed(gains.top1, 100.0, 1),
                one.p_holm.map_or(ABSENT.into(), small),
            ];
            (one.eligible, cells)
        })
        .collect()
}

/// `0.0123 ± 0.0045`, with so many decimals, so that the table keeps its width.
fn fixed(figure: Estimate, times: f64, places: usize) -> String {
    let mean = unsigned_zero(times * figure.mean, places);
    let stderr = figure.stderr.map_or(String::new(), |e| format!(" ± {:.places$}", times * e));
    format!("{mean}{stderr}")
}

/// A p value to three decimals, or as `1.2e-5`.
fn small(p: f64) -> String {
    if p > 0.0 && p < 0.001 { format!("{p:.1e}") } else { format!("{p:.3}") }
}

/// Gains after a temperature, layer by layer.
pub struct HeatMap {
    /// What each column moves.
    pub columns: Vec<String>,
    /// Each layer with its cells.
    pub rows: Vec<(String, Vec<Option<HeatCell>>)>,
}

/// One move in the map.
#[derive(Clone, Copy, Debug)]
pub struct HeatCell {
    /// Cross-fitted gain after a temperature, nats.
    pub gain: f64,
    /// Its share of the largest gain in the map, from 0 to 1.
    pub share: f64,
    /// Whether it is eligible.
    pub eligible: bool,
}

impl HeatCell {
    /// The gain, with a star if it is eligible.
    pub fn text(&self) -> String {
        let gain = match self.gain.abs() < 5e-5 {
            true => unsigned_zero(0.0, 4),
            false => format!("{:+.4}", self.gain),
        };
        format!("{gain}{}", if self.eligible { "*" } else { "" })
    }
}

/// A column for each remedy of one layer alone, and for `toward` also those of all layers up to this
/// one and from this one on.
pub fn heat_map(found: &RemedyFindings) -> HeatMap {
    let mut columns: Vec<(&Remedy, MoveForm, String)> = Vec::new();
    for one in &found.moves {
        let words = match one.form {
            MoveForm::Layer => String::new(),
            MoveForm::Prefix => ", up to here".into(),
            MoveForm::Suffix => ", from here on".into(),
            MoveForm::All | MoveForm::Lines => continue,
        };
        if !columns.iter().any(|(remedy, form, _)| (*remedy, *form) == (&one.remedy, one.form)) {
            columns.push((&one.remedy, one.form, label(found, &one.remedy) + &words));
        }
    }
    let order = |form: MoveForm| match form {
        MoveForm::Layer => 0,
        MoveForm::Prefix => 1,
        _ => 2,
    };
    let kind = |remedy: &Remedy| match remedy {
        Remedy::Toward(_) => 0,
        Remedy::Decay => 1,
        Remedy::Train(_) => 2,
    };
    columns.sort_by_key(|(remedy, form, _)| (kind(remedy), order(*form)));
    let of_map = |one: &&MoveFound| !matches!(one.form, MoveForm::All | MoveForm::Lines);
    let gain = |one: &MoveFound| one.cross_fit.calibrated_nll.mean;
    let largest = found.moves.iter().filter(of_map).map(gain).fold(0.0, f64::max);
    // The layer that a move is shown at.
    let place = |one: &MoveFound| match one.form {
        MoveForm::Prefix => one.layers.last().cloned(),
        _ => one.layers.first().cloned(),
    };
    let mut layers: Vec<String> = Vec::new();
    for one in found.moves.iter().filter(|one| one.form == MoveForm::Layer) {
        if !layers.contains(&one.name) {
            layers.push(one.name.clone());
        }
    }
    let rows = layers.into_iter().map(|layer| {
        let cell = |(remedy, form, _): &(&Remedy, MoveForm, String)| {
            let is = |one: &&MoveFound| {
                one.remedy == **remedy && one.form == *form && place(one).as_ref() == Some(&layer)
            };
            found.moves.iter().find(is).map(|one| HeatCell {
                gain: gain(one),
                share: if largest > 0.0 { (gain(one) / largest).clamp(0.0, 1.0) } else { 0.0 },
                eligible: one.eligible,
            })
        };
        let cells = columns.iter().map(cell).collect();
        (layer, cells)
    });
    let rows = rows.collect();
    HeatMap { columns: columns.into_iter().map(|(.., name)| name).collect(), rows }
}

/// The remedy in a table; with several of its kind, with its checkpoint or settings.
fn label(found: &RemedyFindings, remedy: &Remedy) -> String {
    let other = |one: &MoveFound| one.remedy != *remedy && one.remedy.name() == remedy.name();
    match (remedy, found.moves.iter().any(other)) {
        (_, false) => remedy.name().into(),
        (Remedy::Toward(path), true) => {
            format!("toward {}", path.file_name().unwrap_or(path.as_os_str()).display())
        }
        (_, true) => remedy.to_string(),
    }
}

/// A cell without a move.
pub const NO_MOVE: &str = ABSENT;
