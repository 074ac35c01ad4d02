//! The frozen layers of a run: over which views of the images, and where what they give is kept.

use super::work::Work;
use crate::caching::{CacheArgs, view_name};
use planish::cache::{About, Plan};
use planish::data::Augment;
use planish::objective::Examples;
use planish::pixels::Pixels;
use planish::train::Prefix;
use planish::train::result::Augmentation;
use planish::vit::stage_name;

impl Work {
    /// The frozen layers over the training images.
    pub fn prefix(&self) -> Prefix<'_> {
        let views = self.views.iter().map(|view| view as &dyn Examples).collect();
        Prefix::new(&self.model, views, self.recipe.first_stage(), self.half)
    }

    /// Where their activations are to be kept, with so many bytes of memory; as many as the options
    /// say, without.
    ///
    /// # Errors
    /// Those of [`CacheArgs::plan`].
    pub fn plan(&self, args: &CacheArgs, ram: Option<u64>) -> anyhow::Result<Plan> {
        let ram = ram.unwrap_or(args.cache_ram.saturating_mul(1 << 20));
        Ok(args.plan(&self.prefix(), ram)?)
    }

    /// Images in a view such as training has.
    ///
    /// # Errors
    /// Those of [`Pixels::view`].
    pub fn seen_as(&self, images: Pixels) -> anyhow::Result<Pixels> {
        let (augment, seed) = self.augment;
        let plain = augment == Augment::default();
        Ok(if plain { images } else { images.view(augment, seed, 0)? })
    }

    /// How training images are augmented, if they are.
    pub fn augmentation(&self) -> Option<Augmentation> {
        let (augment, seed) = self.augment;
        let told = Augmentation { augment: augment.to_string(), views: self.views.len(), seed };
        (augment != Augment::default()).then_some(told)
    }

    /// What the file of a view says of itself.
    pub fn about(&self, view: usize) -> About {
        let (augment, seed) = self.augment;
        About {
            model: self.checkpoint.path.display().to_string(),
            data: self.train.place(),
            stage: stage_name(&self.model.config, self.recipe.first_stage()),
            view: view_name(&augment, seed, view),
            version: env!("CARGO_PKG_VERSION").into(),
            ..About::default()
        }
    }
}
