//! The spectral density on the page.

use crate::common::Bench;
use std::fs;

#[test]
fn every_density_has_a_chart() {
    let bench = Bench::with_model();
    let (json, html) = (bench.path("d.json"), bench.path("d.html"));
    let words = ["diagnose", &bench.model, "--data", &bench.data, "--layer", "norm,head"];
    let rest = ["--density", "--operator", "ggn", "--json", &json, "--quiet"];
    let out = bench.run(&[words, rest].concat());
    assert!(out.success, "{}", out.errors);
    let out = bench.plain(&["report", &json, "--html", &html]);
    assert!(out.success, "{}", out.errors);
    let page = fs::read_to_string(html).unwrap();
    let tree = roxmltree::Document::parse(page.strip_prefix("<!DOCTYPE html>\n").unwrap()).unwrap();
    let section = tree.descendants().find(|n| n.attribute("id") == Some("density")).unwrap();
    let descriptions: Vec<&str> =
        section.descendants().filter(|n| n.has_tag_name("desc")).filter_map(|n| n.text()).collect();
    let report = bench.json("d.json");
    let layers = report["layers"].as_array().unwrap();
    let all: Vec<&serde_json::Value> =
        layers.iter().flat_map(|l| l["spectra"].as_array().unwrap()).collect();
    assert_eq!((descriptions.len(), all.len()), (4, 4));
    for (description, spectrum) in descriptions.iter().zip(all) {
        let below = spectrum["density"]["below_zero"]["value"].as_f64().unwrap();
        assert!(
            description.contains(&format!("{:.1}% of the eigenvalues", 100.0 * below)),
            "{description}"
        );
    }
    // The line has one point per grid position.
    let positions = layers[0]["spectra"][0]["density"]["grid"].as_array().unwrap().len();
    let line = section.descendants().filter(|n| n.has_tag_name("polyline"));
    let most =
        line.filter_map(|n| n.attribute("points")).map(|p| p.split_whitespace().count()).max();
    assert_eq!(most, Some(positions));
}
