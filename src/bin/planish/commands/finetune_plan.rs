//! Where a fine-tuning starts: the model, and who of the images does what.

use super::finetune::Args;
use super::finetune_error::Error;
use planish::checkpoint::Load;
use planish::checkpoint::{Checkpoint, check_writable, standing};
use planish::data::{
    ClassError, CropOffset, DataSet, Error as DataError, Fitted, Interpolation, Preprocess, Resize,
    Role, Split, channels_changed, first_difference, names_classes, require, unmatched,
};
use planish::pixels::Pixels;
use planish::vit::{Config, Weights, arch};

/// Share of the training images held out if nothing else validates.
const HELD_OUT: f64 = 0.1;

/// The images.
pub struct Images {
    /// The training split as stored.
    pub whole: Split,
    /// What is trained on.
    pub train: Split,
    /// What judges the epochs.
    pub val: Option<Split>,
    /// What final figures are of.
    pub test: Option<Split>,
    /// Share of `whole` held out for `val`; 0 if none was.
    pub fraction: f64,
    /// Number of classes that the labels and class names of all of them need.
    pub classes: usize,
    /// Whether class names say so, and not the highest label alone.
    pub named: bool,
}

/// Divides the data. What is held out is cut off the whole training split, before a range or a
/// sample is taken of the rest: so `diagnose` finds the same images again by seed and share alone.
///
/// # Errors
/// No training split; a share, range or sample that leaves no images.
pub fn images(args: &Args, data: &DataSet) -> Result<Images, DataError> {
    let whole = require(Role::Train, data.train().or(data.only()))?.clone();
    let given = data.val().cloned();
    let fraction = args.val_fraction.unwrap_or(if given.is_some() { 0.0 } else { HELD_OUT });
    let setting = |name, expected: &str, found: String, remedy| DataError::Setting {
        name,
        expected: expected.into(),
        found,
        remedy,
    };
    if !(0.0..1.0).contains(&fraction) {
        let expected = "a share of the training split from 0 to less than 1";
        let found = fraction.to_string();
        return Err(setting("--val-fraction", expected, found, "pass 0.1, for instance"));
    }
    let (rest, cut) = fitted(args, fraction).divide(whole.labels());
    let empty = |what: String| DataError::Empty { place: format!("{}, {what}", whole.place()) };
    if fraction > 0.0 && cut.is_empty() {
        return Err(empty(format!("{fraction} of it held out")));
    }
    if let Some(range) = args.train_range.as_ref().filter(|range| range.end > whole.len()) {
        let expected = format!("A..B with B at most {}, the number of images", whole.len());
        let found = format!("{}..{}", range.start, range.end);
        return Err(setting("--train-range", &expected, found, "choose a range it has"));
    }
    if rest.is_empty() {
        return Err(empty("less what is held out or outside --train-range".into()));
    }
    let val = match fraction > 0.0 {
        true => Some(whole.subset(&cut, "val")?),
        false => given,
    };
    let train = whole.subset(&rest, "train")?;
    let test = data.test().cloned();
    let splits = [Some(&whole), val.as_ref(), test.as_ref()].into_iter().flatten();
    let named = whole.class_names().map_or(0, <[String]>::len);
    let mut highest = 0;
    for split in splits {
        let label = split.labels().iter().max().copied().unwrap_or(0);
        if named > 0 && label as usize >= named {
            let place = split.place();
            return Err(DataError::Classes(ClassError::Unnamed { place, label, names: named }));
        }
        highest = highest.max(label as usize);
    }
    Ok(Images {
        classes: named.max(highest + 1),
        named: named > 0,
        whole,
        train,
        val,
        test,
        fraction,
    })
}

/// How the images are taken out of the training split.
pub fn fitted(args: &Args, fraction: f64) -> Fitted {
    Fitted {
        seed: args.common.seed,
        fraction,
        range: args.train_range.as_ref().map(|range| [range.start, range.end]),
        samples: args.train_samples,
    }
}

/// The model at the start.
pub struct Start {
    /// Its configuration.
    pub config: Config,
    /// Its weights.
    pub weights: Weights,
    /// What is done to images.
    pub preprocess: Option<Preprocess>,
    /// Name of the architecture, for the summary.
    pub architecture: String,
    /// The checkpoint it comes from.
    pub parent: Option<Checkpoint>,
    /// Whether the head is new, and not the parent's.
    pub fresh_head: bool,
    /// What the user should hear.
    pub notes: Vec<String>,
}

/// Makes the model, or takes the parent, and makes sure that it can be saved.
///
/// # Errors
/// An unknown architecture, flags that contradict it, a checkpoint that cannot be known in full,
/// an output that cannot be written.
pub fn start(
    args: &Args,
    parent: Option<Checkpoint>,
    notes: Vec<String>,
    data: &DataSet,
    images: &Images,
) -> anyhow::Result<Start> {
    let mut start = match parent {
        Some(parent) => from_checkpoint(args, parent, data, images)?,
        None => from_scratch(args, args.arch.as_deref().unwrap_or_default(), images)?,
    };
    start.notes.splice(0..0, notes);
    start.notes.extend(channels_changed(data, start.config.channels));
    if let (Some(found), false) = (standing(&args.out), args.force) {
        return Err(Error::Standing { out: args.out.clone(), found }.into());
    }
    Ok(start)
}

fn from_scratch(args: &Args, arch: &str, images: &Images) -> anyhow::Result<Start> {
    check_writable(&args.out)?;
    let load = &args.load;
    let said = [
        ("--heads", load.heads.is_some()),
        ("--patch-size", load.patch_size.is_some()),
        ("--image-size", load.image_size.is_some()),
    ];
    if let Some((flag, _)) = said.into_iter().find(|(_, given)| *given) {
        return Err(Error::NamedAlready { arch: arch.into(), flag }.into());
    }
    let config = arch::named(arch, images.classes, images.train.channels())?;
    let mut notes = Vec::new();
    let preprocess = match images.train.prepared() {
        true => None,
        false => Some(preprocess(load, &config, &images.train, &mut notes)?),
    };
    Ok(Start {
        weights: Weights::random(&config, args.common.seed)?,
        architecture: arch.into(),
        parent: None,
        fresh_head: true,
        config,
        preprocess,
        notes,
    })
}

fn from_checkpoint(
    args: &Args,
    parent: Checkpoint,
    data: &DataSet,
    images: &Images,
) -> anyhow::Result<Start> {
    parent.check_output(&args.out)?;
    let mut config = parent.config.clone();
    let mut notes: Vec<String> = parent.assumed.iter().map(|a| format!("assumed: {a}")).collect();
    // A subset may lack the last classes; a head larger than its labels ask for is kept then.
    let fits = match images.named || args.reset_head {
        true => config.classes == images.classes,
        false => config.classes >= images.classes,
    };
    let fresh_head = !fits || args.reset_head;
    let (given, own) = (images.whole.class_names(), parent.class_names.as_deref());
    let weights = if fresh_head {
        let dropped = match (given, own) {
            (None, Some(_)) => "; the data name no classes, and its class names are dropped",
            _ => "",
        };
        notes.push(format!(
            "the head is replaced by a fresh one of {} classes (the checkpoint's has {}){dropped}",
            images.classes, config.classes
        ));
        config.classes = images.classes;
        fresh_head_of(&config, &parent.weights, args.common.seed)?
    } else {
        notes.extend(kept_head(data, given, own));
        parent.weights.clone()
    };
    Ok(Start {
        preprocess: parent.preprocess.clone(),
        architecture: parent.architecture.clone(),
        config,
        weights,
        parent: Some(parent),
        fresh_head,
        notes,
    })
}

/// Notes on a head that is kept, of a checkpoint whose classes are `own`, on data whose classes are
/// `given`.
fn kept_head(data: &DataSet, given: Option<&[String]>, own: Option<&[String]>) -> Vec<String> {
    let Some(own) = own.filter(|own| names_classes(own)) else { return Vec::new() };
    let Some(given) = given else { return unmatched(data, own) };
    let note = |(at, [in_data, in_checkpoint]): (usize, [String; 2])| {
        format!(
            "{}: class {at} is {in_data} in the data and {in_checkpoint} in the checkpoint: its head \
             is trained on, and the new checkpoint gets the data's class names; --reset-head starts \
             with a fresh head",
            data.path.display()
        )
    };
    first_difference(given, own).map(note).into_iter().collect()
}

/// The weights with a random head of as many classes as `config` has.
fn fresh_head_of(config: &Config, weights: &Weights, seed: u64) -> anyhow::Result<Weights> {
    let random = Weights::random(config, seed)?;
    let tensors = random.iter().map(|(name, fresh)| match weights.get(name) {
        Some(kept) if !name.starts_with("head") => kept.clone(),
        _ => fresh.clone(),
    });
    Ok(Weights::new(config, tensors.collect())?)
}

/// Preprocessing of a new model: one bilinear resize to its size unless flags say otherwise, and
/// the training images' own mean and standard deviation unless both are given.
fn preprocess(
    load: &Load,
    config: &Config,
    train: &Split,
    notes: &mut Vec<String>,
) -> anyhow::Result<Preprocess> {
    let mut out = Preprocess {
        image_size: config.image_size,
        channels: config.channels,
        resize: load.resize.unwrap_or(Resize::Squash),
        // The checkpoint is written in timm's layout.
        crop_offset: CropOffset::HalfToEven,
        interpolation: load.interpolation.unwrap_or(Interpolation::Bilinear),
        mean: vec![0.0; config.channels],
        std: vec![1.0; config.channels],
    };
    (out.mean, out.std) = match (&load.mean, &load.std) {
        (Some(mean), Some(std)) => (mean.clone(), std.clone()),
        (None, None) => {
            let found = moments(&Pixels::new(train, Some(&out), config)?)?;
            notes.push(format!(
                "normalised by the training images' own {:?} ± {:?}",
                found.0, found.1
            ));
            found
        }
        _ => return Err(Error::HalfNormalised.into()),
    };
    out.check()?;
    Ok(out)
}

/// Mean and standard deviation per channel, to four decimals, of images not yet normalised.
fn moments(pixels: &Pixels) -> anyhow::Result<(Vec<f32>, Vec<f32>)> {
    use planish::objective::Examples;
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
            // Images of one level have no spread to divide by.
            let std = short((squares / n - mean * mean).max(0.0).sqrt());
            (short(mean), if std > 0.0 { std } else { 1.0 })
        })
        .unzip())
}
