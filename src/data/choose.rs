//! Selects the training, validation and test images.
//!
//! The checkpoint must not have been trained on the validation set V: the gap ΔL of a layer is at
//! most L^V, and on training images both are near 0.

use super::fitted::{Sample, narrow};
use super::folds::{stratified_cut, stratified_halves};
use super::origin::{ValOrigin, percent};
use super::{DataSet, Error, Split};

/// The record that `finetune` writes into a checkpoint about its held-out images.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitProvenance {
    /// Seed of the split.
    pub seed: u64,
    /// Fraction of the training split held out.
    pub fraction: f64,
    /// [`Split::digest`] of the whole training split, before the split.
    pub data_digest: String,
}

/// Inputs of the selection.
#[derive(Clone, Copy, Debug)]
pub struct RoleRequest<'a> {
    /// `data`.
    pub data: &'a DataSet,
    /// `train_data`.
    pub train_data: Option<&'a DataSet>,
    /// `val_data`.
    pub val_data: Option<&'a DataSet>,
    /// `test_data`.
    pub test_data: Option<&'a DataSet>,
    /// `val_from_train`: fraction of the training split to hold out.
    pub val_from_train: Option<f64>,
    /// The checkpoint's provenance, if it has one.
    pub provenance: Option<&'a SplitProvenance>,
    /// The images that the checkpoint was fine-tuned on, if they are a part of the training split
    /// and training should use only them.
    pub sample: Option<&'a Sample>,
    /// Seed of every split made here.
    pub seed: u64,
}

/// The selected splits and their origin. No two of them share an image of one file.
#[derive(Clone, Debug)]
pub struct Roles {
    /// The training images, without those held out for validation.
    pub train: Option<Split>,
    /// The validation images, V.
    pub val: Option<Split>,
    /// Test images, read once, for final figures.
    pub test: Option<Split>,
    /// Where V comes from.
    pub val_origin: ValOrigin,
    /// Whether V is what fine-tuning held out, found by the checkpoint's provenance.
    pub held_out: bool,
    /// Notes for readers of the figures.
    pub notes: Vec<String>,
}

/// The role of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Mini-batches are drawn from it.
    Train,
    /// V: selects hyper-parameters, temperature and plan.
    Val,
    /// Final figures, computed once.
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

    /// The split of `data`, which was given for this role: the one of that name, or the only one.
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
                remedy: "use data with that split, or with a single split",
            }),
        }
    }
}

/// Selects the roles. V is the first of these that exists: `val_data`; `val_from_train`; the split
/// `val`; the images that `finetune` held out, if the provenance has the digest of the training
/// split; half of the test split, stratified by class. In the last case the other half is the test
/// split.
///
/// A single split `all` is V, unless `val_data` or `val_from_train` is given; then it is the
/// training split.
///
/// If the training split has the images of [`RoleRequest::sample`], training uses only these.
///
/// # Errors
/// [`Error::Role`] if a data set given for one role has several splits and none of that name, or if
/// `val_from_train` is given without a training split; [`Error::Setting`] if its fraction is not in
/// (0, 1), or if `val_data` is also given; [`Error::Empty`] if no images remain.
pub fn choose(request: &RoleRequest) -> Result<Roles, Error> {
    let data = request.data;
    let given = |role: Role, data: Option<&DataSet>| data.map(|d| role.of(d)).transpose();
    let mut roles = Roles {
        train: given(Role::Train, request.train_data)?.or_else(|| data.train().cloned()),
        val: given(Role::Val, request.val_data)?,
        test: given(Role::Test, request.test_data)?.or_else(|| data.test().cloned()),
        val_origin: ValOrigin::None,
        held_out: false,
        notes: Vec::new(),
    };
    let lone_trains = request.val_data.is_some() || request.val_from_train.is_some();
    if lone_trains && roles.train.is_none() {
        roles.train = data.only().cloned();
    }
    let whole = roles.train.clone();
    let mut roles = with_validation(roles, request)?;
    // Held-out images may be among those of the sample.
    if let (Some(whole), Some(sample), None) = (&whole, request.sample, request.val_from_train) {
        narrow(&mut roles, whole, sample)?;
    }
    Ok(roles)
}

fn with_validation(mut roles: Roles, request: &RoleRequest) -> Result<Roles, Error> {
    let RoleRequest { data, seed, .. } = *request;
    match (request.val_data, request.val_from_train) {
        (Some(_), Some(fraction)) => Err(Error::Setting {
            name: "`val_from_train`",
            expected: "no value, because `val_data` is given".into(),
            found: fraction.to_string(),
            remedy: "pass one of the two",
        }),
        (Some(val_data), None) => {
            roles.val_origin = ValOrigin::ValData(val_data.path.clone());
            Ok(roles)
        }
        (None, Some(fraction)) => from_train(roles, request, fraction),
        (None, None) => {
            if let Some(val) = data.val() {
                roles.val = Some(val.clone());
                roles.val_origin = ValOrigin::SplitVal(data.path.clone());
                return Ok(roles);
            }
            if let Some(only) = data.only() {
                roles.val = Some(only.clone());
                roles.val_origin = ValOrigin::OnlySplit;
                return Ok(roles);
            }
            if held_out(&mut roles, request.provenance)? {
                return Ok(roles);
            }
            half_of_test(roles, seed)
        }
    }
}

/// The split with this role, or an error that says how to provide it.
///
/// # Errors
/// [`Error::Role`] if there is none.
pub fn require(role: Role, split: Option<&Split>) -> Result<&Split, Error> {
    split.ok_or_else(|| Error::Role {
        place: "the data given".into(),
        role: role.name(),
        found: "none".into(),
        remedy: match role {
            Role::Train => "set `train_data`, or use data with a training split",
            Role::Val => {
                "set `val_data`, or use data with a validation split or at least two test images"
            }
            Role::Test => "set `test_data`, or use data with a test split",
        },
    })
}

/// Splits V off the training split.
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

fn from_train(mut roles: Roles, request: &RoleRequest, fraction: f64) -> Result<Roles, Error> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::Setting {
            name: "`val_from_train`",
            expected: "a fraction of the training split between 0 and 1".into(),
            found: fraction.to_string(),
            remedy: "for example 0.1",
        });
    }
    let train = require(Role::Train, roles.train.as_ref())?.clone();
    cut(&mut roles, &train, fraction, request.seed)?;
    roles.val_origin = ValOrigin::Train { seed: request.seed, fraction };
    roles.notes.push(
        "V is held out of the training split: if the checkpoint was trained on these images, ΔL \
         and κ do not measure overfitting"
            .into(),
    );
    Ok(roles)
}

/// Tries to find the held-out images of the checkpoint's provenance.
fn held_out(roles: &mut Roles, provenance: Option<&SplitProvenance>) -> Result<bool, Error> {
    let Some(provenance) = provenance else { return Ok(false) };
    let SplitProvenance { seed, fraction, data_digest } = provenance;
    let train = match &roles.train {
        Some(train) if train.digest() == data_digest => train.clone(),
        found => {
            let found =
                found.as_ref().map_or("there is none", |_| "this one has a different digest");
            roles.notes.push(format!(
                "the checkpoint held out {} of its training split, but {found}: \
                 those images cannot be used as V",
                percent(*fraction)
            ));
            return Ok(false);
        }
    };
    cut(roles, &train, *fraction, *seed)?;
    roles.val_origin = ValOrigin::Finetune { seed: *seed, fraction: *fraction };
    roles.held_out = true;
    Ok(true)
}

fn half_of_test(mut roles: Roles, seed: u64) -> Result<Roles, Error> {
    let Some(test) = roles.test.take() else { return Ok(roles) };
    let (val, rest) = stratified_halves(test.labels(), seed);
    if val.is_empty() || rest.is_empty() {
        let count = test.len();
        roles.notes.push(format!(
            "there is no validation split, and {count} test images cannot be split in half"
        ));
        roles.test = Some(test);
        return Ok(roles);
    }
    roles.notes.push(format!(
        "there is no validation split: V is half of the test split ({} of {} images, stratified, \
         seed {seed}), and test metrics are on the other half",
        val.len(),
        test.len()
    ));
    roles.val = Some(test.subset(&val, "val")?);
    roles.test = Some(test.subset(&rest, test.name())?);
    roles.val_origin = ValOrigin::HalfOfTest { seed };
    Ok(roles)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
