//! The cache of the Hugging Face hub: models that were downloaded, by repository id. Nothing is
//! downloaded here.
//!
//! `models--OWNER--NAME/refs/main` holds the name of a folder in `snapshots/`, whose files are links
//! into `blobs/`, where each file is named by its contents.

use super::Error;
use std::env::var_os;
use std::path::{Path, PathBuf};

/// The revision that is read if none is given.
const MAIN: &str = "main";

/// A repository id with its revision: `google/vit-base-patch16-224@main`.
struct Id<'a> {
    repository: &'a str,
    revision: &'a str,
}

/// Whether a text can be a part of an id. It is then no path.
fn is_part(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

impl Id<'_> {
    fn parse(path: &Path) -> Option<Id<'_>> {
        let text = path.to_str()?;
        let (repository, revision) = text.split_once('@').unwrap_or((text, MAIN));
        let parts: Vec<&str> = repository.split('/').collect();
        let fits = parts.len() <= 2 && parts.iter().all(|part| is_part(part)) && is_part(revision);
        fits.then_some(Id { repository, revision })
    }
}

/// The cache's folder, as `huggingface_hub` finds it.
fn cache() -> Option<PathBuf> {
    let set = |name: &str| var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(set("HF_HOME")?.join("hub")))
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(set("HOME")?.join(".cache/huggingface/hub")))
}

/// The folder of a downloaded model; `None` if the path cannot be a repository id.
///
/// # Errors
/// [`Error::NotCached`].
pub(super) fn folder(path: &Path) -> Option<Result<PathBuf, Error>> {
    find(&cache()?, path)
}

/// The same in a given cache.
fn find(cache: &Path, path: &Path) -> Option<Result<PathBuf, Error>> {
    let id = Id::parse(path)?;
    let own = cache.join(format!("models--{}", id.repository.replace('/', "--")));
    let missing = |found: String| {
        let (path, cache) = (path.to_path_buf(), cache.to_path_buf());
        Some(Err(Error::NotCached { path, cache, id: id.repository.into(), found }))
    };
    if !own.is_dir() {
        // A name without an owner is rather a mistyped path.
        return id.repository.contains('/').then(|| missing("no such model".into())).flatten();
    }
    let reference = own.join("refs").join(id.revision);
    let snapshot = match std::fs::read_to_string(&reference) {
        Ok(commit) => commit.trim().to_string(),
        // A revision may be a commit.
        Err(_) => id.revision.to_string(),
    };
    if !is_part(&snapshot) {
        return missing(format!("\"{snapshot}\" in {}, not a commit", reference.display()));
    }
    let folder = own.join("snapshots").join(&snapshot);
    match folder.is_dir() {
        true => Some(Ok(folder)),
        false => missing(format!("no revision \"{}\"", id.revision)),
    }
}

/// Whether a real file, without links, lies in the cache.
pub(super) fn is_cached(file: &Path) -> bool {
    let named = |path: Option<&Path>| Some(path?.file_name()?.to_str()?.to_owned());
    let blobs = file.parent();
    named(blobs).is_some_and(|name| name == "blobs")
        && named(blobs.and_then(Path::parent)).is_some_and(|name| name.starts_with("models--"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn message(cache: &Path, id: &str) -> String {
        find(cache, Path::new(id)).unwrap().unwrap_err().to_string()
    }

    #[test]
    fn finds_snapshots_by_revision() {
        let cache = tempfile::TempDir::new().unwrap();
        let own = cache.path().join("models--google--vit");
        fs::create_dir_all(own.join("refs")).unwrap();
        fs::write(own.join("refs/main"), "abc123").unwrap();
        fs::create_dir_all(own.join("snapshots/abc123")).unwrap();
        fs::create_dir_all(own.join("snapshots/def456")).unwrap();
        let found = |id: &str| find(cache.path(), Path::new(id)).unwrap().unwrap();
        assert_eq!(found("google/vit"), own.join("snapshots/abc123"));
        assert_eq!(found("google/vit@def456"), own.join("snapshots/def456"));
        assert!(message(cache.path(), "google/vit@v2").contains("no revision \"v2\""));
        assert!(message(cache.path(), "google/vim").contains("hf download google/vim"));
    }

    #[test]
    fn references_cannot_leave_the_cache() {
        let cache = tempfile::TempDir::new().unwrap();
        let own = cache.path().join("models--a--b");
        fs::create_dir_all(own.join("refs")).unwrap();
        fs::create_dir_all(own.join("snapshots")).unwrap();
        for text in ["../../..", "/", "", "..", "a/b"] {
            fs::write(own.join("refs/main"), text).unwrap();
            assert!(message(cache.path(), "a/b").contains("not a commit"), "{text}");
        }
    }

    #[test]
    fn paths_are_not_ids() {
        let cache = Path::new("/nonexistent");
        for path in ["/a/b", "./a", "../b", "a/b/c", "a", "a//b", "a b/c", "a/b@../c", ""] {
            assert!(find(cache, Path::new(path)).is_none(), "{path}");
        }
    }

    #[test]
    fn files_of_the_cache_are_known() {
        assert!(is_cached(Path::new("/c/hub/models--a--b/blobs/0123")));
        assert!(!is_cached(Path::new("/c/models/blobs/0123")));
    }
}
