//! The report of `predict`, and its table of images.

use crate::checkpoint::CheckpointInfo;
use crate::data::{DamagedFile, DataInfo};
use crate::error::{Error, Result};
use crate::predict::{Predicted, PredictedImage};
use crate::run::RunInfo;
use serde::{Deserialize, Serialize};

/// Schema of [`Prediction`].
pub const PREDICTION: &str = "planish/prediction/1";

/// The classes of some images.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prediction {
    /// [`PREDICTION`].
    pub schema: String,
    /// Time, memory and machine.
    pub run: RunInfo,
    /// The model.
    pub checkpoint: CheckpointInfo,
    /// The images.
    pub data: DataInfo,
    /// The most probable classes of each image.
    pub images: Vec<PredictedImage>,
    /// Damaged image files that were decoded in part and used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedFile>,
    /// Notes.
    pub notes: Vec<String>,
}

impl Prediction {
    /// The report of a prediction.
    pub fn new(run: RunInfo, checkpoint: CheckpointInfo, found: Predicted) -> Self {
        let Predicted { images, data, damaged, notes } = found;
        Self { schema: PREDICTION.into(), run, checkpoint, data, images, damaged, notes }
    }

    /// One line per image: `image, class_1, probability_1, class_2, …`.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let problem = |error: csv::Error| Error::Missing(format!("cannot write CSV: {error}"));
        let most = self.images.iter().map(|image| image.classes.len()).max().unwrap_or(0);
        let mut out = csv::Writer::from_writer(Vec::new());
        let columns = (1..=most).flat_map(|k| [format!("class_{k}"), format!("probability_{k}")]);
        let header = std::iter::once("image".to_owned()).chain(columns);
        out.write_record(header).map_err(problem)?;
        for image in &self.images {
            let path = image.path.to_str().ok_or_else(|| {
                let path = image.path.display();
                Error::Missing(format!("{path}: the name is not UTF-8, which CSV needs: rename it"))
            })?;
            let cells = image
                .classes
                .iter()
                .flat_map(|found| [found.class.clone(), format!("{:.6}", found.probability)]);
            out.write_record(std::iter::once(path.to_owned()).chain(cells)).map_err(problem)?;
        }
        out.into_inner().map_err(|error| Error::Missing(format!("cannot write CSV: {error}")))
    }
}
