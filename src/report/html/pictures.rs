//! Images that tuning fixed and broke.

use super::text::{escape, note};
use crate::format::{count, percent};
use crate::post_train::result::{Flip, Flips};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// The pictures of one split, and its class names.
#[derive(Clone, Debug, Default)]
pub struct Pictures {
    /// SHA-256 of the split's images and labels; identifies the result they belong to.
    pub digest: String,
    /// PNG files by index of the image in the split.
    pub pngs: Vec<(usize, Vec<u8>)>,
    /// Class names, if known.
    pub classes: Vec<String>,
}

/// The numbers of images fixed and broken, and the most confident mistakes, with pictures if
/// available. `names` are the class names in the result.
pub fn flips(
    flips: &Flips,
    pictures: Option<&Pictures>,
    names: &[String],
    refused: bool,
) -> String {
    let mut out = format!(
        "<p>Tuning fixed {} images and broke {}{}.</p>\n",
        count(flips.fixed as u64),
        count(flips.broken as u64),
        if refused { "; the result was refused, and the model is unchanged" } else { "" }
    );
    let kinds = [
        ("Fixed", "wrong before, sorted by confidence", &flips.most_fixed),
        ("Broken", "wrong after, sorted by confidence", &flips.most_broken),
    ];
    for (kind, words, those) in kinds {
        if those.is_empty() {
            continue;
        }
        let _ = write!(out, "<h3>{kind}</h3>\n{}<ul class=\"pictures\">\n", note(words));
        those.iter().for_each(|flip| out += &item(flip, pictures, names));
        out += "</ul>\n";
    }
    if pictures.is_none() {
        out += &note("To show the pictures, pass the data set of this result to planish report.");
    }
    out
}

fn item(flip: &Flip, pictures: Option<&Pictures>, names: &[String]) -> String {
    let class = |k: u32| {
        let shown = pictures.and_then(|p| p.classes.get(k as usize));
        shown.or(names.get(k as usize)).cloned().unwrap_or_else(|| format!("class {k}"))
    };
    let (label, mistaken) = (class(flip.label), class(flip.mistaken_for));
    let words = format!("{label}, predicted {mistaken} ({})", percent(flip.confidence));
    let found = pictures.and_then(|p| p.pngs.iter().find(|(image, _)| *image == flip.image));
    let picture = found.map_or(String::new(), |(image, png)| {
        format!(
            "<img src=\"data:image/png;base64,{}\" alt=\"Image {image}: {}\"/>",
            STANDARD.encode(png),
            escape(&words)
        )
    });
    format!("<li>{picture}{}</li>\n", escape(&words))
}
