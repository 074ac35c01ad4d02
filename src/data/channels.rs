//! Whether grey images are converted for a colour model, or colour images for a grey model.

use super::store::Store;
use super::{DataSet, Split};

/// Image files of a split that are inspected, evenly spaced. A data set is grey or not as a whole,
/// and reading every header of a large one takes minutes.
const LOOKED_AT: usize = 8;

/// A note if the images do not have the model's number of channels. Grey images are repeated in
/// three channels and colour images are converted to grey; prepared images are never changed.
pub fn channels_changed(set: &DataSet, channels: usize) -> Option<String> {
    let place = set.path.display();
    set.splits().iter().find_map(|split| match (stored(split), channels) {
        (Some(1), 3) => Some(format!(
            "{place}: the images are grey and the model takes RGB: the grey channel is repeated \
             three times"
        )),
        (Some(3), 1) => Some(format!(
            "{place}: the images are RGB and the model takes grey: they are converted to grey (ITU-R 601)"
        )),
        _ => None,
    })
}

/// Stored channels of raw images; for image files, the maximum over the files inspected.
fn stored(split: &Split) -> Option<usize> {
    match &*split.store {
        Store::Memory(images) => (!images.prepared).then_some(images.shape[0]),
        Store::Files(files) => {
            let step = split.rows.len().div_ceil(LOOKED_AT).max(1);
            split.rows.iter().step_by(step).filter_map(|&row| files.channels(row)).max()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ColorType;

    fn images(shape: [usize; 3]) -> DataSet {
        let levels = vec![7; 2 * shape.iter().product::<usize>()];
        let split = Split::from_levels("test", levels, shape, vec![0, 1]).unwrap();
        DataSet {
            path: "there".into(),
            kind: "idx",
            by_name: false,
            notes: Vec::new(),
            splits: vec![split],
        }
    }

    #[test]
    fn other_channels_are_noted() {
        let found = channels_changed(&images([1, 2, 2]), 3).unwrap();
        assert!(found.starts_with("there: the images are grey"), "{found}");
        let found = channels_changed(&images([3, 2, 2]), 1).unwrap();
        assert!(found.starts_with("there: the images are RGB"), "{found}");
        for n in [1, 3] {
            assert_eq!(channels_changed(&images([n, 2, 2]), n), None);
        }
    }

    #[test]
    fn image_files_are_grey_if_all_inspected_files_are() {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("a");
        std::fs::create_dir(&class).unwrap();
        let save = |name: &str, color: ColorType| {
            let levels = vec![9; 16 * usize::from(color.channel_count())];
            image::save_buffer(class.join(name), &levels, 4, 4, color).unwrap();
        };
        let note = |channels| {
            let set = DataSet::open(&root.path().display().to_string()).unwrap();
            channels_changed(&set, channels)
        };
        (0..40).for_each(|i| save(&format!("{i:02}.png"), ColorType::L8));
        assert!(note(3).is_some_and(|text| text.contains("grey channel is repeated")));
        assert_eq!(note(1), None);
        (0..40).for_each(|i| save(&format!("{i:02}.png"), ColorType::La8));
        assert!(note(3).is_some(), "grey with transparency is grey");
        // A few grey images among colour images are common.
        save("20.png", ColorType::Rgb8);
        assert_eq!(note(3), None);
        assert!(note(1).is_some_and(|text| text.contains("converted to grey")));
        // Files that are not images are reported when they are decoded.
        (0..40).for_each(|i| std::fs::write(class.join(format!("{i:02}.png")), "x").unwrap());
        assert_eq!((note(1), note(3)), (None, None));
    }
}
