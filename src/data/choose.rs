//! Which images train, which validate, which test.
//!
//! The validation set V must be unseen by the checkpoint: the gap ΔL of a layer is at most L^V,
//! so a V taken from fitted training data shows nothing.

use super::fitted::{Sample, narrow};
use super::folds::{stratified_cut, stratified_halves};
use super::{DataSet, Error, Split};

/// What our `finetune` writes into a checkpoint about the images it held out.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitProvenance {
    /// Seed of the cut.
    pub seed: u64,
    /// Share of the training split held out.
    pub fraction: f64,
    /// [`Split::digest`] of the whole training split, before the cut.
    pub data_digest: String,
}

/// What a command knows when it chooses its splits.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `--data`.
    pub data: &'a DataSet,
    /// `--train-data`.
    pub train_data: Option<&'a DataSet>,
    /// `--val-data`.
    pub val_data: Option<&'a DataSet>,
    /// `--test-data`.
    pub test_data: Option<&'a DataSet>,
    /// `--val-from-train`: share of the training split to hold out.
    pub val_from_train: Option<f64>,
    /// The checkpoint's provenance, if it has one.
    pub provenance: Option<&'a SplitProvenance>,
    /// The images it was fine-tuned on, if these are a part of the training split and training
    /// should keep to them.
    pub sample: Option<&'a Sample>,
    /// Seed of every cut made here.
    pub seed: u64,
}

/// The splits and how they came about. No two share an image of one file.
#[derive(Clone, Debug)]
pub struct Roles {
    /// Training images, less what was cut off for validation.
    pub train: Option<Split>,
    /// V.
    pub val: Option<Split>,
    /// Test images, read once, for final figures.
    pub test: Option<Split>,
    /// Where V comes from, such as `half of test, seed 0`; `none` without V.
    pub val_origin: String,
    /// What a reader of the figures should know.
    pub notes: Vec<String>,
}

/// A part that a split plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Mini-batches are drawn from it.
    Train,
    /// V: plan, temperature and hyper-parameters use it.
    Val,
    /// Final figures use it, once.
    Test,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Train => "training",
            Role::Val => "validation",
            Role::Test => "test",
        }
    }

    /// The split of `data`, given for this role by a flag of its own: the one of that name, or
    /// the only one there is.
    fn of(self, data: &DataSet) -> Result<Split, Error> {
        let named = match self {
            Role::Train => data.train(),
            Role::Val => data.val(),
            Role::Test => data.test(),
        };
        match (named, data.splits()) {
            (Some(split), _) => Ok(split.clone()),
            (None, [lone]) => Ok(lone.clone()),
            (None, splits) => Err(Error::Role {
                place: data.path.display().to_string(),
                role: self.name(),
                found: splits.iter().map(Split::name).collect::<Vec<_>>().join(" and "),
                remedy: "give data with that split, or with a single split",
            }),
        }
    }
}

/// Chooses the roles. V comes from the first of these that there is: `--val-data`;
/// `--val-from-train`; the split `val`; what `finetune` held out, if the provenance's digest is
/// that of the training split; half of the test split, stratified by class, the other half being
/// test from then on.
///
/// A lone split `all` is V, unless `--val-data` or `--val-from-train` names another: then it is
/// the training split.
///
/// Training keeps to the images of [`Request::sample`] where the training split has them.
///
/// # Errors
/// [`Error::Role`] if a data set given for one role has several splits and none of that name, or
/// `--val-from-train` has no training split to cut; [`Error::Setting`] if its fraction is not in
/// (0, 1) or both it and `--val-data` are given; [`Error::Empty`] if a cut leaves no images.
pub fn choose(request: &Request) -> Result<Roles, Error> {
    let data = request.data;
    let given = |role: Role, data: Option<&DataSet>| data.map(|d| role.of(d)).transpose();
    let mut roles = Roles {
        train: given(Role::Train, request.train_data)?.or_else(|| data.train().cloned()),
        val: given(Role::Val, request.val_data)?,
        test: given(Role::Test, request.test_data)?.or_else(|| data.test().cloned()),
        val_origin: "none".into(),
        notes: Vec::new(),
    };
    let lone_trains = request.val_data.is_some() || request.val_from_train.is_some();
    if lone_trains && roles.train.is_none() {
        roles.train = data.only().cloned();
    }
    let whole = roles.train.clone();
    let mut roles = with_validation(roles, request)?;
    // Images cut off by hand may be among the sample's.
    if let (Some(whole), Some(sample), None) = (&whole, request.sample, request.val_from_train) {
        narrow(&mut roles, whole, sample)?;
    }
    Ok(roles)
}

fn with_validation(mut roles: Roles, request: &Request) -> Result<Roles, Error> {
    let Request { data, seed, .. } = *request;
    match (request.val_data, request.val_from_train) {
        (Some(_), Some(fraction)) => Err(Error::Setting {
            name: "--val-from-train",
            expected: "nothing, as --val-data is given".into(),
            found: fraction.to_string(),
            remedy: "pass one of the two",
        }),
        (Some(val_data), None) => {
            roles.val_origin = format!("--val-data {}", val_data.path.display());
            Ok(roles)
        }
        (None, Some(fraction)) => from_train(roles, request, fraction),
        (None, None) => {
            if let Some(val) = data.val() {
                roles.val = Some(val.clone());
                roles.val_origin = format!("{}, split val", data.path.display());
                return Ok(roles);
            }
            if let Some(only) = data.only() {
                roles.val = Some(only.clone());
                roles.val_origin = "the data given".into();
                return Ok(roles);
            }
            if held_out(&mut roles, request.provenance)? {
                return Ok(roles);
            }
            half_of_test(roles, seed)
        }
    }
}

/// The split that plays `role`, or an error that says how to provide it.
///
/// # Errors
/// [`Error::Role`] if there is none.
pub fn require(role: Role, split: Option<&Split>) -> Result<&Split, Error> {
    split.ok_or_else(|| Error::Role {
        place: "the data given".into(),
        role: role.name(),
        found: "none".into(),
        remedy: match role {
            Role::Train => "pass --train-data, or data with a training split",
            Role::Val => {
                "pass --val-data, or data with a validation split or at least two test images"
            }
            Role::Test => "pass --test-data, or data with a test split",
        },
    })
}

/// Cuts V off the training split.
fn cut(roles: &mut Roles, train: &Split, fraction: f64, seed: u64) -> Result<(), Error> {
    let (rest, cut) = stratified_cut(train.labels(), fraction, seed);
    if rest.is_empty() || cut.is_empty() {
        return Err(Error::Empty {
            place: format!("{}, {fraction} of it held out", train.place()),
        });
    }
    roles.train = Some(train.subset(&rest, train.name())?);
    roles.val = Some(train.subset(&cut, "val")?);
    Ok(())
}

fn percent(fraction: f64) -> String {
    // Six decimals, so that 0.07 × 100 does not show its rounding; trailing zeros say nothing.
    let text = format!("{:.6}", fraction * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

fn from_train(mut roles: Roles, request: &Request, fraction: f64) -> Result<Roles, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Setting {
            name: "--val-from-train",
            expected: "a share of the training split between 0 and 1".into(),
            found: fraction.to_string(),
            remedy: "pass 0.1, for instance",
        });
    }
    let train = require(Role::Train, roles.train.as_ref())?.clone();
    cut(&mut roles, &train, fraction, request.seed)?;
    roles.val_origin = format!("held out of train, seed {}, {}", request.seed, percent(fraction));
    roles.notes.push(
        "V is cut from the training split: if the checkpoint was trained on these images, \
         its gaps say nothing about unseen data"
            .into(),
    );
    Ok(roles)
}

/// Whether V could be found again by the checkpoint's provenance.
fn held_out(roles: &mut Roles, provenance: Option<&SplitProvenance>) -> Result<bool, Error> {
    let Some(provenance) = provenance else { return Ok(false) };
    let SplitProvenance { seed, fraction, data_digest } = provenance;
    let train = match &roles.train {
        Some(train) if train.digest() == data_digest => train.clone(),
        found => {
            let found = found.as_ref().map_or("there is none", |_| "this one has another digest");
            roles.notes.push(format!(
                "the checkpoint held out {} of its training split, but {found}: \
                 those images are not used as V",
                percent(*fraction)
            ));
            return Ok(false);
        }
    };
    cut(roles, &train, *fraction, *seed)?;
    roles.val_origin = format!("held out by finetune, seed {seed}, {}", percent(*fraction));
    Ok(true)
}

fn half_of_test(mut roles: Roles, seed: u64) -> Result<Roles, Error> {
    let Some(test) = roles.test.take() else { return Ok(roles) };
    let (val, rest) = stratified_halves(test.labels(), seed);
    if val.is_empty() || rest.is_empty() {
        let count = test.len();
        roles
            .notes
            .push(format!("there is no validation split, and of {count} test images no half"));
        roles.test = Some(test);
        return Ok(roles);
    }
    roles.notes.push(format!(
        "there is no validation split: V is half of the test split ({} of {} images, stratified, \
         seed {seed}), and test figures are of the other half",
        val.len(),
        test.len()
    ));
    roles.val = Some(test.subset(&val, "val")?);
    roles.test = Some(test.subset(&rest, test.name())?);
    roles.val_origin = format!("half of test, seed {seed}");
    Ok(roles)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
