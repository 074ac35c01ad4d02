//! Which directions a layer is moved along.

use super::trained::TrainedEpoch;
use serde::{Deserialize, Serialize};
use std::fmt::{Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

/// A direction that the validation images did not choose. Its text form is `toward:CKPT0`, `decay`,
/// `train` or `perturbed`; the last two take settings, as in `perturbed:perturb=norm:lr=0.03`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Remedy {
    /// Towards the weights of a checkpoint, usually those before fine-tuning: w + α (w⁰ − w).
    Toward(PathBuf),
    /// Towards 0, for weights of products only: (1 − α) w.
    Decay,
    /// Along the displacement of one epoch of training of the layer alone: w + α (w′ − w), where w′
    /// are the weights after the epoch.
    Train(TrainedEpoch),
}

impl Remedy {
    /// Its name without the checkpoint.
    pub fn name(&self) -> &'static str {
        match self {
            Remedy::Toward(_) => "toward",
            Remedy::Decay => "decay",
            Remedy::Train(epoch) => epoch.name(),
        }
    }

    /// Whether layers can be moved together along it. The displacements of an epoch cannot: each was
    /// found with all other layers at rest.
    pub fn moves_together(&self) -> bool {
        matches!(self, Remedy::Toward(_))
    }

    /// The α at which a move is evaluated, ascending.
    pub(crate) fn grid(&self) -> Vec<f64> {
        let step = match self {
            Remedy::Toward(_) => 10.0,
            Remedy::Decay => 20.0,
            // Up to two and a half epochs' displacement.
            Remedy::Train(_) => 4.0,
        };
        (1..=10).map(|i| f64::from(i) / step).collect()
    }

    /// The first two of them, as positions in the grid.
    pub(super) fn first(&self) -> [usize; 2] {
        match self {
            Remedy::Toward(_) => [2, 6],
            Remedy::Decay => [1, 4],
            Remedy::Train(_) => [3, 7],
        }
    }
}

impl Display for Remedy {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        match self {
            Remedy::Toward(path) => write!(f, "toward:{}", path.display()),
            Remedy::Decay => write!(f, "decay"),
            Remedy::Train(epoch) => write!(f, "{epoch}"),
        }
    }
}

impl FromStr for Remedy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("toward:")) {
            ("decay", _) => Ok(Remedy::Decay),
            (_, Some(path)) if !path.is_empty() => Ok(Remedy::Toward(path.into())),
            _ => match TrainedEpoch::parse(text) {
                Some(epoch) => Ok(Remedy::Train(epoch?)),
                None => Err("expected toward:CKPT0, decay, train or perturbed, as in \
                             toward:pretrained/,decay,train:lr=0.03"
                    .into()),
            },
        }
    }
}

impl TryFrom<String> for Remedy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Remedy> for String {
    fn from(remedy: Remedy) -> String {
        remedy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedies_are_read_and_written() {
        let trained = ["train", "train:lr=0.03:weight-decay=0.1", "perturbed:perturb=norm"];
        for text in ["toward:vit/", "decay"].into_iter().chain(trained) {
            assert_eq!(text.parse::<Remedy>().unwrap().to_string(), text);
        }
        for text in ["toward", "toward:", "shrink", "trained", ""] {
            assert!(text.parse::<Remedy>().unwrap_err().contains("decay"), "{text}");
        }
    }

    #[test]
    fn grids_end_at_the_target_and_at_half() {
        let (toward, decay) = (Remedy::Toward("a".into()).grid(), Remedy::Decay.grid());
        assert_eq!((toward[0], toward[9], decay[0], decay[9]), (0.1, 1.0, 0.05, 0.5));
        let train = "train".parse::<Remedy>().unwrap();
        // One and two epochs' displacement come first.
        assert_eq!(train.first().map(|i| train.grid()[i]), [1.0, 2.0]);
    }
}
