//! The prefix cache: results are bit-identical, keys cover all inputs, and damaged files are
//! rejected.

mod damage;
mod keys;
mod place;
#[path = "../small/mod.rs"]
#[allow(dead_code, reason = "these tests use only a part of it")]
mod small;
mod views;

use planish::cache::{About, CachePolicy, StorageChoice, StoragePlan, plan};
use planish::objective::Examples;
use planish::train::Prefix;
use planish::train::source::{Source, SourceEvent};
use std::path::Path;

/// Records the events of opening a source.
#[derive(Debug, Default, PartialEq)]
struct CacheEvents {
    computed: usize,
    found: usize,
    damaged: Vec<String>,
    stale: usize,
}

/// The cache plan for a mode and a folder, with a gigabyte of memory.
fn chosen(
    policy: CachePolicy,
    folder: &Path,
    prefix: &Prefix,
) -> planish::cache::Result<StoragePlan> {
    plan(&StorageChoice {
        policy,
        ram: 1 << 30,
        there: false,
        folder: Some(folder.into()),
        layout: prefix.layout(),
        views: prefix.views(),
        pixels: prefix.stage() == 0,
        keys: &|| prefix.keys(),
    })
}

/// Opens a source as a run would.
fn open<'a>(prefix: Prefix<'a>, policy: CachePolicy, folder: &Path) -> (Source<'a>, CacheEvents) {
    let plan = chosen(policy, folder, &prefix).unwrap();
    let mut events = CacheEvents::default();
    let source = Source::open(prefix, &plan, &|_| About::default(), &mut |event| match event {
        SourceEvent::Computed(images) => events.computed += images,
        SourceEvent::Found(_) => events.found += 1,
        SourceEvent::Damaged(error) => events.damaged.push(error.to_string()),
        SourceEvent::Stale(_) => events.stale += 1,
    });
    (source.unwrap(), events)
}

/// All rows of all views, as bits.
fn rows(source: &Source, views: usize) -> Vec<u32> {
    let picks: Vec<(usize, usize)> =
        (0..views).flat_map(|view| (0..source.len()).map(move |image| (view, image))).collect();
    let values = source.batch(&picks).unwrap().values.flatten_all().unwrap();
    values.to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
}

/// Sorted names in a folder; empty if the folder does not exist.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The frozen layers below a stage over these images, in f32.
fn prefix<'a>(
    model: &planish::objective::Objective,
    images: &'a dyn Examples,
    stage: usize,
) -> Prefix<'a> {
    Prefix::new(model, vec![images], stage, false)
}
