//! What reports and checkpoints record about post-training.

use super::PostTrainSession;
use super::result::{MethodInfo, SamInfo, Selection};
use crate::checkpoint::Provenance;
use crate::error::Result;
use crate::models::Network;
use crate::train::MethodArgs;
use crate::train::recipe::{Recipe, ResolvedMethod};

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
    let mut values = serde_json::to_value(settings)?;
    if let Some(preset) = session.options.preset.preset {
        values["preset"] = preset.name().into();
    }
    if recipe.perturb.is_some() {
        values["gamma"] = recipe.gamma.into();
        values["perturb_batch"] = recipe.perturb_batch.into();
        values["no_minimum"] = recipe.no_minimum.name().into();
        values["perturb_replacement"] = recipe.perturb_replacement.into();
    }
    if let Some(sam) = sam_info(recipe) {
        values["sam"] = serde_json::to_value(sam)?;
    }
    if let Some(augmentation) = session.augmentation() {
        values["augmentation"] = serde_json::to_value(augmentation)?;
    }
    if session.half {
        values["cache_dtype"] = "bf16".into();
    }
    values["selected_epoch"] = selection.selected_epoch.into();
    let method = method_info(recipe, &checkpoint.network, String::new())?;
    Ok(Provenance {
        method: method.name,
        perturb: method.perturb.into_iter().collect(),
        update: vec![method.update],
        seed: settings.seed,
        version: env!("CARGO_PKG_VERSION").into(),
        parent_digest: Some(checkpoint.digest.clone()),
        data_digest: inherited
            .and_then(|p| p.data_digest.clone())
            .or_else(|| Some(train.digest().into())),
        split: inherited.and_then(|p| p.split),
        sample,
        settings: values,
    })
}
