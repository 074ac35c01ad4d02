//! The initial model of fine-tuning.

use super::{Error, FinetuneImages, FinetuneOptions};
use crate::checkpoint::{
    Checkpoint, Load, check_adapter_output, check_space, check_writable, standing, standing_adapter,
};
use crate::data::{
    CropOffset, DataSet, Interpolation, Preprocess, Resize, Split, channels_changed,
    first_difference, names_classes, unmatched,
};
use crate::error::Result;
use crate::lora::{Adapters, Base};
use crate::models::layers::{join, select};
use crate::models::{Layer, Network, Weights, arch};
use crate::objective::Examples;
use crate::options;
use crate::pixels::Pixels;

use std::sync::Arc;

/// The initial model.
pub struct InitialModel {
    /// The network.
    pub network: Arc<Network>,
    /// Weights.
    pub weights: Weights,
    /// Preprocessing; none for prepared images.
    pub preprocess: Option<Preprocess>,
    /// Architecture name, for the summary.
    pub architecture: String,
    /// The checkpoint to start from.
    pub parent: Option<Checkpoint>,
    /// New adapters, if only they and the head are trained.
    pub adapters: Option<Adapters>,
    /// Whether the head is new. Otherwise it is the parent's.
    pub fresh_head: bool,
    /// Notes on the model and the data.
    pub notes: Vec<String>,
}

impl InitialModel {
    /// Builds a new model or takes the parent's, and checks that the output can be written. Notes on
    /// the data come before notes on the model.
    ///
    /// # Errors
    /// An unknown architecture; options that contradict it; a checkpoint with unknown settings; an
    /// output that cannot be written.
    pub fn new(
        options: &FinetuneOptions,
        parent: Option<Checkpoint>,
        data: &DataSet,
        images: &FinetuneImages,
        mut notes: Vec<String>,
        seed: u64,
    ) -> Result<InitialModel> {
        let mut start = match parent {
            Some(parent) => from_checkpoint(options, parent, data, images, seed)?,
            None => from_scratch(options, images, seed)?,
        };
        notes.append(&mut start.notes);
        notes.extend(channels_changed(data, start.network.config().channels()));
        start.adapters = start.adapters(options, seed)?;
        let standing = match &start.adapters {
            Some(adapters) if !adapters.merges() => {
                check_adapter_output(&options.out)?;
                standing_adapter(&options.out)
            }
            _ => standing(&options.out),
        };
        if let (Some(found), false) = (standing, options.force) {
            return Err(Error::Exists { out: options.out.clone(), found }.into());
        }
        Ok(InitialModel { notes, ..start })
    }
}

impl InitialModel {
    fn adapters(&self, options: &FinetuneOptions, seed: u64) -> Result<Option<Adapters>> {
        let Some(checkpoint) = &self.parent else { return Ok(None) };
        let network = &*self.network;
        let layers = match &options.layers {
            Some(pattern) => select(network, pattern)?,
            None => vec![Layer { name: "all blocks".into(), ..join(&network.trunk()) }],
        };
        let (weights, new_head) = (&self.weights, self.fresh_head);
        let base = Base { checkpoint, network, weights, new_head, option: "layers" };
        Adapters::prepare(&options.lora, &base, &layers, seed)
    }
}

fn from_scratch(
    options: &FinetuneOptions,
    images: &FinetuneImages,
    seed: u64,
) -> Result<InitialModel> {
    check_writable(&options.out)?;
    let (arch, load) = (options.arch.as_deref().unwrap_or_default(), &options.load);
    let said = [
        ("heads", load.heads.is_some()),
        ("patch_size", load.patch_size.is_some()),
        ("image_size", load.image_size.is_some()),
    ];
    if let Some((option, _)) = said.into_iter().find(|(_, given)| *given) {
        let text = format!("`arch` {arch} determines `{option}`: leave out `{option}`");
        return Err(options::Error::Conflict(text).into());
    }
    let network = arch::named(arch, images.classes, images.train.channels())?.network()?;
    check_space(&options.out, 4 * network.parameters() as u64)?;
    let mut notes: Vec<String> = arch::unknown_to_timm(network.config()).into_iter().collect();
    let preprocess = match images.train.prepared() {
        true => None,
        false => Some(preprocess(load, &network, &images.train, &mut notes)?),
    };
    Ok(InitialModel {
        weights: Weights::random(&network, seed)?,
        architecture: arch.into(),
        parent: None,
        adapters: None,
        fresh_head: true,
        network: Arc::new(network),
        preprocess,
        notes,
    })
}

fn from_checkpoint(
    options: &FinetuneOptions,
    parent: Checkpoint,
    data: &DataSet,
    images: &FinetuneImages,
    seed: u64,
) -> Result<InitialModel> {
    parent.check_output(&options.out, "finetune")?;
    let mut network = parent.network.clone();
    let mut notes: Vec<String> = parent.assumed.iter().map(|a| format!("assumed: {a}")).collect();
    // Without class names, a subset may lack the last classes, so keep a head with more classes.
    let fits = match images.named || options.reset_head {
        true => network.classes() == images.classes,
        false => network.classes() >= images.classes,
    };
    let fresh_head = !fits || options.reset_head || parent.headless;
    let (given, own) = (images.whole.class_names(), parent.class_names.as_deref());
    let weights = if fresh_head {
        let dropped = match (given, own) {
            (None, Some(_)) => "; its class names are dropped, since the data have none",
            _ => "",
        };
        notes.push(match parent.headless {
            true => format!("the checkpoint has no head: it gets one with {} classes", images.classes),
            false => format!(
                "the head is replaced by a new one with {} classes (the checkpoint's has {}){dropped}",
                images.classes,
                network.classes()
            ),
        });
        network = Arc::new(parent.config.clone().with_classes(images.classes).network()?);
        fresh_head_of(&network, &parent.weights, seed)?
    } else {
        notes.extend(kept_head(data, given, own));
        parent.weights.clone()
    };
    Ok(InitialModel {
        preprocess: parent.preprocess.clone(),
        architecture: parent.architecture.clone(),
        network,
        weights,
        parent: Some(parent),
        adapters: None,
        fresh_head,
        notes,
    })
}

/// Notes on a kept head. `own` are the checkpoint's class names, `given` the data's.
fn kept_head(data: &DataSet, given: Option<&[String]>, own: Option<&[String]>) -> Vec<String> {
    let Some(own) = own.filter(|own| names_classes(own)) else { return Vec::new() };
    let Some(given) = given else { return unmatched(data, own) };
    let note = |(at, [in_data, in_checkpoint]): (usize, [String; 2])| {
        format!(
            "{}: class {at} is {in_data} in the data and {in_checkpoint} in the checkpoint: the head \
             is kept, and the new checkpoint gets the data's class names; set `reset_head` to \
             start with a new head",
            data.path.display()
        )
    };
    first_difference(given, own).map(note).into_iter().collect()
}

/// The weights with a random head for the classes of `network`.
fn fresh_head_of(network: &Network, weights: &Weights, seed: u64) -> Result<Weights> {
    let random = Weights::random(network, seed)?;
    let head = network.blocks().pop();
    let is_new = |i: usize| head.as_ref().is_some_and(|head: &Layer| head.tensors.contains(&i));
    let tensors = random.iter().enumerate().map(|(i, (name, new))| match weights.get(name) {
        Some(old) if !is_new(i) => old.clone(),
        _ => new.clone(),
    });
    Ok(Weights::new(network, tensors.collect())?)
}

/// Preprocessing of a new model. The default is a bilinear resize to the model's image size, and the
/// mean and standard deviation of the training images.
fn preprocess(
    load: &Load,
    network: &Network,
    train: &Split,
    notes: &mut Vec<String>,
) -> Result<Preprocess> {
    let channels = network.config().channels();
    let mut out = Preprocess {
        image_size: network.config().image_size(),
        channels,
        resize: load.resize.unwrap_or(Resize::Squash),
        // The checkpoint is written in timm's layout.
        crop_offset: CropOffset::HalfToEven,
        interpolation: load.interpolation.unwrap_or(Interpolation::Bilinear),
        mean: vec![0.0; channels],
        std: vec![1.0; channels],
    };
    (out.mean, out.std) = match (&load.mean, &load.std) {
        (Some(mean), Some(std)) => (mean.clone(), std.clone()),
        (None, None) => {
            let found = moments(&Pixels::new(train, Some(&out), network)?)?;
            notes.push(format!(
                "normalised by the mean and standard deviation of the training images: {:?} ± {:?}",
                found.0, found.1
            ));
            found
        }
        _ => {
            let text = "expected both `mean` and `std`, or neither; without them, the training \
                        images' own are used";
            return Err(options::Error::Conflict(text.into()).into());
        }
    };
    out.check()?;
    Ok(out)
}

/// Mean and standard deviation per channel, to four decimals, of images not yet normalised.
fn moments(pixels: &Pixels) -> Result<(Vec<f32>, Vec<f32>)> {
    let mut sums: Vec<[f64; 2]> = Vec::new();
    let mut count = 0;
    for from in (0..pixels.len()).step_by(256) {
        let images = pixels.inputs(from..(from + 256).min(pixels.len()))?;
        let (n, channels, h, w) = images.dims4()?;
        sums.resize(channels, [0.0; 2]);
        count += n * h * w;
        for (c, [sum, squares]) in sums.iter_mut().enumerate() {
            let values = images.narrow(1, c, 1)?.flatten_all()?.to_vec1::<f32>()?;
            *sum += values.iter().map(|&x| f64::from(x)).sum::<f64>();
            *squares += values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        }
    }
    let short = |x: f64| ((x * 1e4).round() / 1e4) as f32;
    let n = count.max(1) as f64;
    Ok(sums
        .iter()
        .map(|[sum, squares]| {
            let mean = sum / n;
            // Avoid a division by 0 for constant images.
            let std = short((squares / n - mean * mean).max(0.0).sqrt());
            (short(mean), if std > 0.0 { std } else { 1.0 })
        })
        .unzip())
}
