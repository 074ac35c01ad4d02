//! Rules of the user for tensor names: which to leave aside, and which to rename.

use super::Load;
use crate::options::Error;
use regex::Regex;
use std::borrow::Cow;

/// Compiled `ignore` and `rename` options. A pattern must match the whole name.
#[derive(Debug)]
pub(super) struct Rules {
    ignore: Vec<(String, Regex)>,
    rename: Vec<(String, Regex, String)>,
}

impl Rules {
    /// Compiles the options.
    ///
    /// # Errors
    /// [`Error::Value`] for an invalid pattern, or a renaming without `=`.
    pub fn new(load: &Load) -> Result<Rules, Error> {
        let ignore = load.ignore.iter().map(|text| Ok((text.clone(), whole("ignore", text)?)));
        let rename = load.rename.iter().map(|text| {
            let (pattern, new) = text
                .split_once('=')
                .ok_or_else(|| Error::value("rename", "PATTERN=NAME", format!("\"{text}\"")))?;
            Ok((text.clone(), whole("rename", pattern)?, new.to_string()))
        });
        Ok(Rules {
            ignore: ignore.collect::<Result<_, _>>()?,
            rename: rename.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a tensor is left aside.
    pub fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|(_, pattern)| pattern.is_match(name))
    }

    /// The name after the first renaming that matches.
    pub fn rename<'a>(&self, name: &'a str) -> Cow<'a, str> {
        let found = self.rename.iter().find(|(_, pattern, _)| pattern.is_match(name));
        found.map_or(Cow::Borrowed(name), |(_, pattern, new)| pattern.replace(name, new))
    }

    /// Checks that every rule matches a name, since one that matches none is a mistake.
    ///
    /// # Errors
    /// [`Error::Value`].
    pub fn check_used(&self, names: &[&str]) -> Result<(), Error> {
        let ignore = self.ignore.iter().map(|(text, pattern)| ("ignore", text, pattern));
        let rename = self.rename.iter().map(|(text, pattern, _)| ("rename", text, pattern));
        match ignore.chain(rename).find(|(.., p)| !names.iter().any(|name| p.is_match(name))) {
            None => Ok(()),
            Some((option, text, _)) => {
                let expected = "a pattern that matches the whole name of a tensor";
                Err(Error::value(option, expected, format!("\"{text}\", which matches none")))
            }
        }
    }
}

/// A pattern for whole names.
fn whole(option: &str, pattern: &str) -> Result<Regex, Error> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
        Error::value(option, "a regular expression", format!("\"{pattern}\" ({error})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(ignore: &[&str], rename: &[&str]) -> Result<Rules, Error> {
        let texts = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
        Rules::new(&Load { ignore: texts(ignore), rename: texts(rename), ..Load::default() })
    }

    #[test]
    fn patterns_match_whole_names() {
        let found = rules(&["criterion.*"], &["backbone.(.*)=$1", "fc\\.(.*)=head.$1"]).unwrap();
        assert!(found.ignores("criterion.weight") && !found.ignores("a.criterion.weight"));
        assert_eq!(found.rename("backbone.norm.bias"), "norm.bias");
        assert_eq!(found.rename("fc.bias"), "head.bias");
        assert_eq!(found.rename("my.backbone.norm.bias"), "my.backbone.norm.bias");
        assert!(found.check_used(&["criterion.a", "backbone.b", "fc.c"]).is_ok());
        let message = found.check_used(&["criterion.a", "fc.c"]).unwrap_err().to_string();
        assert!(message.contains("`rename`") && message.contains("matches none"), "{message}");
    }

    #[test]
    fn invalid_patterns_name_the_option() {
        let found = rules(&["a("], &[]).unwrap_err().to_string();
        assert!(found.contains("`ignore`: expected a regular expression"), "{found}");
        let found = rules(&[], &["a"]).unwrap_err().to_string();
        assert!(found.contains("`rename`: expected PATTERN=NAME"), "{found}");
    }
}
