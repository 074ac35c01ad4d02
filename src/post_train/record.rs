//! What reports and checkpoints record about post-training.

use super::PostTrainSession;
use super::result::{Augmentation, MethodInfo, SamInfo, Selection};
use crate::cache::CacheDtype;
use crate::checkpoint::{Provenance, StepSettings};
use crate::error::Result;
use crate::lora::Adapters;
use crate::models::Network;
use crate::session::evaluate::selection_images;
use crate::train::perturbation::NoMinimum;
use crate::train::recipe::{Recipe, ResolvedMethod};
use crate::train::{MethodArgs, Preset, TrainSettings};
use serde::Serialize;

/// The method, for reports.
///
/// # Errors
/// Those of [`Variant::perturbed`](crate::train::sam::Variant::perturbed).
pub fn method_info(recipe: &Recipe, network: &Network, chosen_by: String) -> Result<MethodInfo> {
    let args = recipe.args();
    let perturb = match recipe.method {
        ResolvedMethod::Sam(variant) => Some(variant.perturbed(network, &recipe.update)?.name),
        ResolvedMethod::SlSam { .. } => Some(recipe.update.name.clone()),
        _ => args.perturb,
    };
    Ok(MethodInfo {
        name: recipe.method.name().into(),
        perturb,
        update: recipe.update.name.clone(),
        gamma: args.gamma,
        perturb_batch: args.perturb_batch,
        step: args.step.map(|step| step.name().into()),
        no_minimum: args.no_minimum.map(|rule| rule.name().into()),
        perturb_replacement: args.perturb_replacement,
        sam: sam_info(recipe),
        lora: Some(recipe.lora.clone()).filter(|lora| lora.lora.is_some()),
        chosen_by,
    })
}

fn sam_info(recipe: &Recipe) -> Option<SamInfo> {
    let MethodArgs { ascent, active_share, asam_eta, look_every, look_alpha, .. } = recipe.args();
    Some(SamInfo {
        rho: ascent.rho?,
        friendly_sigma: ascent.friendly_sigma,
        friendly_lambda: ascent.friendly_lambda,
        active_share,
        asam_eta,
        look_every,
        look_alpha,
    })
}

/// The settings that a checkpoint lists, each under the name of its option.
#[derive(Serialize)]
struct RecordedSettings<'a> {
    #[serde(flatten)]
    train: &'a TrainSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<Preset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gamma: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perturb_batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_minimum: Option<NoMinimum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    perturb_replacement: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sam: Option<SamInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    augmentation: Option<Augmentation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dtype: Option<CacheDtype>,
    selected_epoch: usize,
    precision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lora: Option<serde_json::Value>,
}

/// The provenance stored in the tuned checkpoint.
///
/// # Errors
/// Settings that JSON cannot represent; those of [`method_info`].
pub fn provenance(session: &PostTrainSession, selection: &Selection) -> Result<Provenance> {
    let PostTrainSession { checkpoint, recipe, settings, train, .. } = session;
    // Keep the validation images that fine-tuning held out, so that later runs use the same ones.
    let parent = checkpoint.provenance.as_ref();
    let inherited = parent.filter(|p| p.split.is_some());
    // Keep the training images too, until a run uses others.
    let sample = parent.and_then(|p| p.sample.clone()).filter(|s| s.digest == train.digest());
    let perturbed = recipe.perturb.is_some();
    let recorded = RecordedSettings {
        train: settings,
        preset: session.options.preset.preset,
        gamma: perturbed.then_some(recipe.gamma),
        perturb_batch: perturbed.then_some(recipe.perturb_batch),
        no_minimum: perturbed.then_some(recipe.no_minimum),
        perturb_replacement: perturbed.then_some(recipe.perturb_replacement),
        sam: sam_info(recipe),
        augmentation: session.augmentation(),
        cache_dtype: session.half.then_some(CacheDtype::Bf16),
        selected_epoch: selection.selected_epoch,
        precision: session.model.precision.name(),
        lora: session.adapters.as_ref().map(Adapters::settings),
    };
    let update = match &session.adapters {
        Some(adapters) => adapters.update.name.clone(),
        None => recipe.update.name.clone(),
    };
    let method = method_info(recipe, &checkpoint.network, String::new())?;
    Ok(Provenance {
        method: method.name,
        perturb: method.perturb.into_iter().collect(),
        update: vec![update],
        seed: settings.seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: Some(checkpoint.digest.clone()),
        data_digest: inherited
            .and_then(|p| p.data_digest.clone())
            .or_else(|| Some(train.digest().into())),
        split: inherited.and_then(|p| p.split),
        sample,
        settings: StepSettings::of(
            &recorded,
            session.roles.val.as_ref().map(|val| selection_images(val, session.seed)),
        )?,
    })
}
