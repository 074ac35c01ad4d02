//! Arrangement of the rows of the position embedding.

use super::Error;
use super::reader::{Dialect, Reader};
use crate::models::vit::Config;

impl Reader<'_> {
    /// The image size from option or configuration, and its source.
    pub(super) fn image_size(&self) -> Result<Option<(String, [usize; 2])>, Error> {
        if let Some(size) = self.overrides.image_size {
            return Ok(Some(("`image_size`".into(), size)));
        }
        let Some(settings) = self.settings else { return Ok(None) };
        let key = match self.dialect {
            Dialect::Timm => "model_args.img_size",
            Dialect::Transformers => "image_size",
        };
        if let Some(size) = settings.pair(key)? {
            return Ok(Some((settings.place.clone(), size)));
        }
        let input = settings.input_size()?;
        Ok(input.map(|[_, h, w]| (settings.place.clone(), [h, w])))
    }

    /// The image size for so many patches: as stated, otherwise a square.
    pub(super) fn size_of_grid(
        &mut self,
        patches: usize,
        patch: [usize; 2],
    ) -> Result<[usize; 2], Error> {
        if let Some((place, size)) = self.image_size()? {
            let fits = size[0].is_multiple_of(patch[0]) && size[1].is_multiple_of(patch[1]);
            let found = (size[0] / patch[0]).checked_mul(size[1] / patch[1]).filter(|_| fits);
            if found != Some(patches) {
                let shown = format!("{patches} patches of {}×{}", patch[0], patch[1]);
                let tensor = "the MLPs over tokens";
                return Err(self.contradiction(&place, "image size", size, shown, tensor));
            }
            return Ok(size);
        }
        let side = patches.isqrt();
        if side == 0 || side * side != patches {
            return Err(Error::Grid { path: self.path.to_path_buf(), rows: patches, prefix: 0 });
        }
        let sides = patch.map(|pixels| side.saturating_mul(pixels));
        self.assumed.push(format!("image size {}×{}: a square grid", sides[0], sides[1]));
        Ok(sides)
    }

    /// Arranges the rows of the position embedding: by a stated image size, otherwise as a square.
    pub(super) fn grid(&mut self, config: &mut Config, rows: usize) -> Result<(), Error> {
        let prefix = config.prefix_tokens();
        let bare = match self.settings {
            Some(settings) => settings.flag("model_args.no_embed_class")?,
            None => None,
        };
        // The rows for the prefix come first, as by timm's default.
        let counts = [(true, rows.checked_sub(prefix)), (prefix == 0, Some(rows))];
        if let Some((place, size)) = self.image_size()? {
            let [ph, pw] = config.patch_size;
            let fits = size[0].is_multiple_of(ph) && size[1].is_multiple_of(pw);
            let patches = (size[0] / ph).checked_mul(size[1] / pw).filter(|_| fits);
            let found =
                counts.iter().find(|(_, n)| patches.is_some_and(|p| p > 0 && *n == Some(p)));
            let Some(&(covers, _)) = found else {
                let shown = format!("{rows} rows for patches of {ph}×{pw} and {prefix} tokens");
                let tensor = "the position embedding, which planish does not resize";
                return Err(self.contradiction(&place, "image size", size, shown, tensor));
            };
            (config.image_size, config.position_covers_prefix) = (size, covers);
        } else {
            let square = |n: usize| Some(n.isqrt()).filter(|s| *s > 0 && s * s == n);
            let mut found = counts.iter().filter_map(|&(c, n)| Some((c, square(n?)?)));
            let (covers, side) = match bare {
                Some(bare) if prefix > 0 => found.find(|&(covers, _)| covers != bare),
                _ => found.next(),
            }
            .ok_or_else(|| Error::Grid {
                path: self.path.to_path_buf(),
                rows,
                prefix,
            })?;
            let side = [side; 2];
            let sides = [0, 1].map(|axis| side[axis].saturating_mul(config.patch_size[axis]));
            (config.image_size, config.position_covers_prefix) = (sides, covers);
            self.assumed.push(format!("image size {}×{}: a square grid", sides[0], sides[1]));
        }
        match bare.filter(|&bare| prefix > 0 && bare == config.position_covers_prefix) {
            Some(bare) => {
                let place = self.settings.map_or("", |s| s.place.as_str());
                let (key, tensor) = ("model_args.no_embed_class", "rows of `pos_embed`");
                Err(self.contradiction(place, key, bare, !bare, tensor))
            }
            None => Ok(()),
        }
    }
}
