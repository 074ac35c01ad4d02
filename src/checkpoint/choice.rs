//! The choice among several models in one file, such as the trained weights and their running
//! average.

use super::Error;
use std::path::Path;

/// Whether the weights under a key are an exponential moving average of the trained ones.
fn is_averaged(key: &str) -> bool {
    key.split(|c: char| !c.is_alphanumeric()).any(|part| part.eq_ignore_ascii_case("ema"))
}

/// The index of the model to read, from the keys of all models in a file. `wanted` is `model`,
/// `ema`, or a key. An empty key is the file itself.
///
/// # Errors
/// [`Error::SeveralModels`] if nothing chooses among several; [`Error::NoSuchModel`].
pub(super) fn choose(path: &Path, keys: &[&str], wanted: Option<&str>) -> Result<usize, Error> {
    let list = || keys.iter().map(|key| named(key)).collect::<Vec<_>>().join(", ");
    let Some(wanted) = wanted else {
        return match keys.len() {
            0 | 1 => Ok(0),
            n => Err(Error::SeveralModels {
                path: path.into(),
                count: if n == 2 { "two".into() } else { n.to_string() },
                found: list(),
            }),
        };
    };
    if let Some(exact) = keys.iter().position(|key| *key == wanted) {
        return Ok(exact);
    }
    let averaged = match wanted {
        "ema" => true,
        "model" => false,
        _ => return Err(none(path, wanted, list())),
    };
    let mut fitting = (0..keys.len()).filter(|&i| is_averaged(keys[i]) == averaged);
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(none(path, wanted, list())),
    }
}

fn none(path: &Path, wanted: &str, found: String) -> Error {
    Error::NoSuchModel { path: path.into(), wanted: wanted.into(), found }
}

/// A key with what it means.
fn named(key: &str) -> String {
    match key {
        "" => "the file itself".into(),
        key if is_averaged(key) => format!("\"{key}\" (an average of the weights, EMA)"),
        key => format!("\"{key}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(keys: &[&str], wanted: Option<&str>) -> Result<usize, String> {
        choose(Path::new("x.pth"), keys, wanted).map_err(|error| error.to_string())
    }

    #[test]
    fn several_models_need_a_choice() {
        let two = ["state_dict", "state_dict_ema"];
        let message = chosen(&two, None).unwrap_err();
        assert!(message.contains("found two") && message.contains("EMA"), "{message}");
        assert_eq!(chosen(&two, Some("model")), Ok(0));
        assert_eq!(chosen(&two, Some("ema")), Ok(1));
        assert_eq!(chosen(&["student", "teacher"], Some("teacher")), Ok(1));
        assert_eq!(chosen(&["model"], None), Ok(0));
        for (keys, wanted) in
            [(&["student", "teacher"][..], "model"), (&["model"], "ema"), (&["schema"], "ema")]
        {
            let message = chosen(keys, Some(wanted)).unwrap_err();
            assert!(message.contains(&format!("\"{wanted}\"")), "{message}");
        }
    }
}
