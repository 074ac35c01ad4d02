//! Derivatives against closed forms, and a diagnosis against a direct computation from its
//! definitions.

mod small;

use candle_core::{DType, Device, Tensor};
use planish::data::folds::stratified_halves;
use planish::diagnose::findings::{Findings, LayerResult};
use planish::diagnose::halvings::Halvings;
use planish::diagnose::{Basis, Estimator, Request, diagnose};
use planish::models::layers::{join, layers};
use planish::models::{Granularity, Layer};
use planish::objective::{Activations, Objective};
use planish::random::{stream, unit};
use small::{
    cross_entropies, dot, images, layer, mean, model, numbers, plus, softmax, weights_of,
    with_weights,
};

fn findings(objective: &Objective, validation: &Activations, layers: &[Layer]) -> Findings {
    let request = Request::new(objective, validation, layers, 7);
    diagnose(&request, &mut |_| ()).unwrap()
}

/// A random vector in the shape of a layer's tensors.
fn vector(model: &Objective, layer: &Layer, seed: u64) -> Vec<Tensor> {
    let mut rng = stream(seed, "vector");
    let one = |&i: &usize| {
        let shape = model.weights.tensor(i).dims();
        let n: usize = shape.iter().product();
        let values: Vec<f64> = (0..n).map(|_| 2.0 * unit(&mut rng) - 1.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    layer.tensors.iter().map(one).collect()
}

fn assert_close(found: &[f64], expected: &[f64], relative: f64) {
    let error = plus(found, -1.0, expected);
    let size = dot(expected, expected).sqrt();
    assert!(size > 1e-6 && dot(&error, &error).sqrt() < relative * size, "{found:?} {expected:?}");
}

#[test]
fn head_derivatives_match_linear_softmax() {
    let model = model(DType::F64);
    let (v, head) = (images(&model, 40), layer(&model, "head"));
    let at_head = model.activations(&v, model.network.stages() - 1).unwrap();
    let features = numbers([&at_head.values]);
    let w = weights_of(&model, &head);
    let (weight, bias) = w.split_at(24);
    // Index of (row c, column j of x̃) in the concatenation of weight and bias.
    let index = |c: usize, j: usize| if j < 8 { 8 * c + j } else { 24 + c };
    let mut gradient = vec![0.0; 27];
    let mut hessian = vec![vec![0.0; 27]; 27];
    for (x, &y) in features.chunks(8).zip(v.labels.iter()) {
        let x: Vec<f64> = x.iter().copied().chain([1.0]).collect();
        let logits: Vec<f64> =
            (0..3).map(|c| dot(&weight[8 * c..8 * c + 8], &x[..8]) + bias[c]).collect();
        let p = softmax(&logits);
        let equal = |a: usize, b: usize| f64::from(u8::from(a == b));
        for (c, j) in (0..3).flat_map(|c| (0..9).map(move |j| (c, j))) {
            gradient[index(c, j)] += (p[c] - equal(c, y as usize)) * x[j] / 40.0;
            for (d, k) in (0..3).flat_map(|d| (0..9).map(move |k| (d, k))) {
                hessian[index(c, j)][index(d, k)] +=
                    (equal(c, d) * p[c] - p[c] * p[d]) * x[j] * x[k] / 40.0;
            }
        }
    }
    for seed in 0..3 {
        let direction = vector(&model, &head, seed);
        let found = model.hvp(&v, &head, &direction).unwrap();
        let direction = numbers(&direction);
        let product: Vec<f64> = hessian.iter().map(|row| dot(row, &direction)).collect();
        assert_close(&numbers(&found.gradient), &gradient, 1e-12);
        assert_close(&numbers(&found.hvp), &product, 1e-12);
        assert!((found.loss - mean(&cross_entropies(&model, &v))).abs() < 1e-12);
    }
}

#[test]
fn hessians_are_symmetric() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    let mut all = layers(&model.network, Granularity::Block);
    all.extend(layers(&model.network, Granularity::Sublayer));
    all.push(join(&all));
    for (i, layer) in all.iter().enumerate() {
        let [a, b] = [0, 1].map(|k| vector(&model, layer, 2 * i as u64 + k));
        let [ha, hb] = [&a, &b].map(|x| numbers(&model.hvp(&v, layer, x).unwrap().hvp));
        let (a, b) = (numbers(&a), numbers(&b));
        let scale = (dot(&a, &a) * dot(&hb, &hb)).sqrt();
        assert!(scale > 1e-6, "{}", layer.name);
        assert!((dot(&a, &hb) - dot(&b, &ha)).abs() < 1e-12 * scale, "{}", layer.name);
    }
}

/// φ along one fold's gradient, on its own images and on those of the other fold.
struct Line<'a> {
    model: &'a Objective,
    layer: &'a Layer,
    own: &'a Activations,
    other: &'a Activations,
    start: Vec<f64>,
    g: Vec<f64>,
}

impl Line<'_> {
    fn at(&self, alpha: f64) -> Objective {
        with_weights(self.model, self.layer, &plus(&self.start, -alpha, &self.g))
    }

    fn phi(&self, alpha: f64) -> f64 {
        mean(&cross_entropies(&self.at(alpha), self.own))
    }

    /// gᵀHg from fourth-order differences of the gradient, independent of the tangents being
    /// tested.
    fn curvature(&self) -> f64 {
        let slope = |h: f64| {
            dot(&self.g, &numbers(&self.at(-h).gradient(self.own, self.layer).unwrap().gradient))
        };
        let h = 1e-3 / dot(&self.g, &self.g).sqrt();
        (8.0 * (slope(h) - slope(-h)) - (slope(2.0 * h) - slope(-2.0 * h))) / (12.0 * h)
    }

    /// The first local minimum: a grid with spacing of 1/100 of the quadratic step, then golden
    /// section.
    fn minimum(&self) -> f64 {
        let step = 0.01 * dot(&self.g, &self.g) / self.curvature().abs();
        let mut k = 1;
        while self.phi(step * f64::from(k + 1)) < self.phi(step * f64::from(k)) {
            k += 1;
        }
        let (mut low, mut high) = (step * f64::from(k - 1), step * f64::from(k + 1));
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        while high - low > 1e-7 * high {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if self.phi(a) < self.phi(b) { high = b } else { low = a }
        }
        0.5 * (low + high)
    }

    /// The move by α, on both folds.
    fn moved(&self, alpha: f64) -> Moved {
        let gaps = |on: &Activations| {
            plus(&cross_entropies(self.model, on), -1.0, &cross_entropies(&self.at(alpha), on))
        };
        let (own, other) = (gaps(self.own), gaps(self.other));
        let (n, gap) = (other.len() as f64, mean(&other));
        let variance = other.iter().map(|x| (x - gap).powi(2)).sum::<f64>() / (n - 1.0) / n;
        let square = alpha * alpha * dot(&self.g, &self.g);
        Moved { own: mean(&own), gap, variance, square, alpha }
    }
}

/// A move along one fold's gradient: the gap on its own images, the gap on the other fold's and its
/// squared error, ‖Δw‖² and α.
#[derive(Clone, Copy)]
struct Moved {
    own: f64,
    gap: f64,
    variance: f64,
    square: f64,
    alpha: f64,
}

/// In-sample ΔL, cross-fitted ΔL and its squared error; the same for κ; ‖Δw‖ and α.
fn figures(pair: [Moved; 2]) -> [f64; 8] {
    let average = |f: fn(&Moved) -> f64| 0.5 * (f(&pair[0]) + f(&pair[1]));
    let (own, gap, square) = (average(|m| m.own), average(|m| m.gap), average(|m| m.square));
    // The squared errors of two independent folds sum to four times that of their mean. With one
    // halving, the variance given the directions is multiplied by 2.5.
    let variance = 2.5 * 0.5 * average(|m| m.variance);
    [
        own,
        gap,
        variance,
        own / square,
        gap / square,
        variance / square.powi(2),
        average(|m| m.square.sqrt()),
        average(|m| m.alpha),
    ]
}

/// The model with head/T, where T is the temperature of these images, by golden section over log T. The
/// model itself for the raw basis.
fn on_basis(model: &Objective, basis: Basis, images: &Activations) -> Objective {
    if basis == Basis::Raw {
        return model.clone();
    }
    let head = layer(model, "head");
    let divided = |log: f64| -> Objective {
        let scaled: Vec<f64> = weights_of(model, &head).iter().map(|w| w / log.exp()).collect();
        with_weights(model, &head, &scaled)
    };
    let loss = |log: f64| mean(&cross_entropies(&divided(log), images));
    let (mut low, mut high) = (-4.0, 4.0);
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    while high - low > 1e-9 {
        let (a, b) = (high - golden * (high - low), low + golden * (high - low));
        if loss(a) < loss(b) { high = b } else { low = a }
    }
    divided(0.5 * (low + high))
}

/// The model with logits three times as large.
fn over_confident(model: &Objective) -> Objective {
    let head = layer(model, "head");
    let scaled: Vec<f64> = weights_of(model, &head).iter().map(|w| 3.0 * w).collect();
    with_weights(model, &head, &scaled)
}

/// The least, exact and largest figures for steps within a fraction t of α*, and the quadratic
/// predictions.
fn by_definition(
    model: &Objective,
    basis: Basis,
    v: &Activations,
    layer: &Layer,
    t: f64,
) -> ([[f64; 8]; 3], [f64; 3]) {
    let (a, b) = stratified_halves(&v.labels, 7);
    let (a, b) = (v.select(&a).unwrap(), v.select(&b).unwrap());
    let mut quadratic = [0.0; 3];
    let steps = [(&a, &b), (&b, &a)].map(|(own, other)| {
        let model = &on_basis(model, basis, own);
        let g = numbers(&model.gradient(own, layer).unwrap().gradient);
        let line = Line { model, layer, own, other, start: weights_of(model, layer), g };
        let (alpha, square, curvature) = (line.minimum(), dot(&line.g, &line.g), line.curvature());
        quadratic[0] += 0.5 * square / curvature;
        quadratic[1] += 0.5 * square * square / (2.0 * curvature);
        quadratic[2] += 0.5 * curvature / (2.0 * square);
        [1.0 - t, 1.0, 1.0 + t].map(|f| line.moved(f * alpha))
    });
    let all = (0..9).map(|k| figures([steps[0][k % 3], steps[1][k / 3]]));
    let exact = figures([steps[0][1], steps[1][1]]);
    let mut range = [exact; 3];
    for found in all {
        for k in 0..8 {
            range[0][k] = range[0][k].min(found[k]);
            range[2][k] = range[2][k].max(found[k]);
        }
    }
    (range, quadratic)
}

fn reported(l: &LayerResult) -> [f64; 8] {
    let (d, k) = (l.delta_l_nats, l.kappa);
    [
        d.in_sample,
        d.cross_fit,
        d.stderr.map(|s| s * s),
        k.in_sample,
        k.cross_fit,
        k.stderr.map(|s| s * s),
        Some(l.displacement),
        Some(l.alpha),
    ]
    .map(Option::unwrap)
}

#[test]
fn diagnosis_matches_its_definitions() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    // The search stops within 1% of α*, and a parabola through nearby points may add the same
    // error. For blocks it stops after five points, that is two or three parabolas.
    for (name, t) in [("head", 0.02), ("norm", 0.02), ("block.1", 0.1)] {
        follows_its_definitions(&model, Basis::Raw, &v, name, t);
        follows_its_definitions(&over_confident(&model), Basis::Calibrated, &v, name, t);
    }
}

/// One halving of V. Its figures.
fn measured(model: &Objective, basis: Basis, v: &Activations, layer: &Layer) -> LayerResult {
    let mut request = Request::new(model, v, std::slice::from_ref(layer), 7);
    (request.options.repeats, request.options.basis) = (1, basis);
    diagnose(&request, &mut |_| ()).unwrap().layers.remove(0)
}

fn follows_its_definitions(model: &Objective, basis: Basis, v: &Activations, name: &str, t: f64) {
    let layer = layer(model, name);
    let found = measured(model, basis, v, &layer);
    let ([low, exact, high], quadratic) = by_definition(model, basis, v, &layer, t);
    assert!(!found.capped && !found.negative_curvature, "{found:?}");
    for (k, value) in reported(&found).into_iter().enumerate() {
        let slack = 1e-6 * exact[k].abs();
        let inside = value >= low[k] - slack && value <= high[k] + slack;
        assert!(inside, "{name}, figure {k}: {value} not in {}..{}", low[k], high[k]);
    }
    // φ′(α*) = 0, so a relative error t of α reduces ΔL by a fraction t², up to φ's third
    // derivative. The bound adds half of t² for it. No point on the line is below the first
    // minimum.
    let gap = found.delta_l_nats.in_sample.unwrap();
    assert!(gap <= exact[0] * (1.0 + 1e-9) && gap >= exact[0] * (1.0 - 1.5 * t * t), "{name}");
    let q = found.quadratic;
    let q = [q.alpha, q.delta_l_nats, q.kappa].map(Option::unwrap);
    assert_close(&q, &quadratic, 1e-6);
    let error = found.delta_l_nats.stderr.unwrap();
    assert_eq!(found.eligible, found.delta_l_nats.cross_fit.unwrap() > 1.96 * error);
    assert_eq!(found.raw.is_some(), basis == Basis::Calibrated);
}

#[test]
fn the_raw_loss_is_measured_beside_the_calibrated() {
    let model = over_confident(&model(DType::F64));
    let v = images(&model, 40);
    // Here the search starts without a second derivative.
    for (name, t) in [("head", 0.02), ("norm", 0.15), ("block.1", 0.15)] {
        let layer = layer(&model, name);
        let found = measured(&model, Basis::Calibrated, &v, &layer).raw.unwrap();
        let ([low, exact, high], _) = by_definition(&model, Basis::Raw, &v, &layer, t);
        let (d, k) = (found.delta_l_nats, found.kappa);
        let figures = [d.in_sample, d.cross_fit, d.stderr.map(|s| s * s), k.in_sample, k.cross_fit];
        for (i, value) in figures.into_iter().map(Option::unwrap).enumerate() {
            let slack = 1e-6 * exact[i].abs();
            let inside = value >= low[i] - slack && value <= high[i] + slack;
            assert!(inside, "{name}, figure {i}: {value} not in {}..{}", low[i], high[i]);
        }
    }
}

#[test]
fn each_half_is_scored_with_the_temperature_of_the_other() {
    let model = over_confident(&model(DType::F64));
    let v = images(&model, 40);
    let halves = stratified_halves(&v.labels, 7);
    let scale = |of: &Activations| {
        let head = layer(&model, "head");
        let folded = weights_of(&on_basis(&model, Basis::Calibrated, of), &head);
        weights_of(&model, &head)[0] / folded[0]
    };
    let [a, b] = [halves.0, halves.1].map(|half| scale(&v.select(&half).unwrap()));
    let mut request = Request::new(&model, &v, &[], 7);
    request.options.repeats = 1;
    let loss = diagnose(&request, &mut |_| ()).unwrap().loss_nats;
    // Each half is scored with the temperature of the other.
    let [of_a, of_b] = loss.temperatures_of_folds.unwrap();
    assert!((of_a / b - 1.0).abs() < 1e-6 && (of_b / a - 1.0).abs() < 1e-6, "{loss:?} {a} {b}");
    assert!((loss.temperature / scale(&v) - 1.0).abs() < 1e-6);
    assert!((a / b - 1.0).abs() > 0.05, "{a} {b}");
}

#[test]
fn halvings_are_averaged() {
    let model = over_confident(&model(DType::F64));
    let v = images(&model, 40);
    for basis in [Basis::Raw, Basis::Calibrated] {
        for (name, t) in [("head", 0.02), ("block.1", 0.1)] {
            are_averaged(&model, basis, &v, name, t);
        }
    }
}

fn are_averaged(model: &Objective, basis: Basis, v: &Activations, name: &str, t: f64) {
    let layer = layer(model, name);
    let halvings = Halvings::new(&v.labels, 3, 7).unwrap();
    let (mut own, mut gap, mut square, mut length) = (0.0, 0.0, 0.0, 0.0);
    for r in 0..3 {
        let [a, b] = halvings.halves(r).map(|half| v.select(&half).unwrap());
        for (own_images, other) in [(&a, &b), (&b, &a)] {
            let model = &on_basis(model, basis, own_images);
            let g = numbers(&model.gradient(own_images, &layer).unwrap().gradient);
            let start = weights_of(model, &layer);
            let line = Line { model, layer: &layer, own: own_images, other, start, g };
            let moved = line.moved(line.minimum());
            own += moved.own / 6.0;
            gap += moved.gap / 6.0;
            square += moved.square / 6.0;
            length += moved.square.sqrt() / 6.0;
        }
    }
    let mut request = Request::new(model, v, std::slice::from_ref(&layer), 7);
    (request.options.repeats, request.options.basis) = (3, basis);
    let findings = diagnose(&request, &mut |_| ()).unwrap();
    let found = &findings.layers[0];
    assert_eq!((findings.repeats, findings.basis), (3, basis));
    // A relative error t of α is one of t in ‖Δw‖, 2t in κ, and t² in the gap where α* is best.
    // On other images the gap aα − bα²/2 is not stationary at α*: it changes by t(aα − bα²), which is at
    // most t times the gap with the images' own slope, and twice the gap itself.
    let near = |found: f64, expected: f64, by: f64| (found - expected).abs() <= by;
    assert!(near(found.delta_l_nats.in_sample.unwrap(), own, 1.5 * t * t * own), "{name}");
    assert!(
        near(found.delta_l_nats.cross_fit.unwrap(), gap, t * (own + 2.0 * gap.abs())),
        "{name}: {gap}"
    );
    assert!(near(found.displacement, length, t * length), "{name}: {length}");
    let kappa = found.kappa.in_sample.unwrap();
    assert!(near(kappa, own / square, 2.5 * t * own / square), "{name}: {kappa}");
    let relative = found.kappa_relative.unwrap().in_sample.unwrap();
    assert!((relative / kappa / found.weight_norm.powi(2) - 1.0).abs() < 1e-12, "{name}");
    // ‖w‖ is that of the head with the temperature of all of V.
    let norm =
        |model: &Objective| dot(&weights_of(model, &layer), &weights_of(model, &layer)).sqrt();
    let expected = norm(&on_basis(model, basis, v));
    assert!((found.weight_norm / expected - 1.0).abs() < 1e-6, "{name}");
}

#[test]
fn a_layer_of_zeros_is_searched() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    for (name, t) in [("head", 0.02), ("head.bias", 0.02), ("blocks.1.mlp.fc2.bias", 0.1)] {
        let layer = layer(&model, name);
        let zeros = vec![0.0; weights_of(&model, &layer).len()];
        let zeroed = with_weights(&model, &layer, &zeros);
        follows_its_definitions(&zeroed, Basis::Raw, &v, name, t);
        let found = findings(&zeroed, &v, std::slice::from_ref(&layer));
        assert_eq!(found.layers[0].weight_norm, 0.0);
        assert!(
            found.warnings.iter().any(|w| w.starts_with(&format!("{name}: all weights are 0")))
        );
        // A Newton step with radius 2 L/‖g‖. The loss is convex in the head, so this step is at
        // least as good as the line search along the gradient.
        let layers = std::slice::from_ref(&layer);
        let mut request = Request::new(&zeroed, &v, layers, 7);
        request.options.estimator = Estimator::Newton { radius: 1.0, iterations: 20 };
        let newton = diagnose(&request, &mut |_| ()).unwrap();
        let [line, newton] = [&found, &newton].map(|f| f.layers[0].delta_l_nats.in_sample.unwrap());
        let least = if name.starts_with("head") { 0.99 * line } else { 0.0 };
        assert!(newton > least && line > 0.0, "{name}: {newton} {line}");
    }
}

/// Whether two texts differ only in numbers, and these only by rounding.
fn agree(a: &str, b: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split([',', ':', '{', '}', '[', ']']).map(str::to_owned).collect()
    };
    let close = |(a, b): (&String, &String)| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1e-3),
        _ => a == b,
    };
    let (a, b) = (words(a), words(b));
    a.len() == b.len() && a.iter().zip(&b).all(close)
}

#[test]
fn findings_only_depend_on_the_seed() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    let all = layers(&model.network, Granularity::Block);
    let text = |f: &Findings| serde_json::to_string(f).unwrap();
    let with = |threads: usize, micro_batch: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let objective = Objective { micro_batch, ..model.clone() };
        let request = Request::new(&objective, &v, &all, seed);
        pool.install(|| diagnose(&request, &mut |_| ()).unwrap())
    };
    let base = with(2, 4, 7);
    for threads in [1, 2, 5] {
        assert_eq!(text(&with(threads, 4, 7)), text(&base), "{threads} threads");
    }
    assert!(agree(&text(&with(2, 11, 7)), &text(&base)));
    let other = with(2, 4, 8);
    assert_ne!(other.layers[0].gradient_norm, base.layers[0].gradient_norm);
    assert_eq!(other.loss_nats.validation, base.loss_nats.validation);
}

#[test]
fn a_layer_without_gradient_has_no_gap_and_no_sharpness() {
    let model = model(DType::F64);
    let v = images(&model, 40);
    let weight = layer(&model, "head.weight");
    let zero_head = with_weights(&model, &weight, &[0.0; 24]);
    let found = findings(&zero_head, &v, &layers(&model.network, Granularity::Block));
    for l in &found.layers[..4] {
        assert_eq!((l.gradient_norm, l.displacement, l.alpha), (0.0, 0.0, 0.0), "{}", l.name);
        assert_eq!(l.delta_l_nats.cross_fit, Some(0.0));
        assert_eq!(l.delta_l_nats.in_sample, Some(0.0));
        assert_eq!((l.kappa.in_sample, l.kappa.cross_fit, l.kappa.stderr), (None, None, None));
        assert!(!l.eligible && !l.negative_curvature && l.quadratic.kappa.is_none());
    }
    assert!(found.layers[4].delta_l_nats.in_sample.unwrap() > 0.0);
}

#[test]
fn over_confidence_is_attributed_to_the_temperature() {
    let model = model(DType::F64);
    // Labels follow the model's own probabilities: ten times its logits are over-confident, and
    // a temperature of ten is the only correction needed.
    let v = images(&model, 300);
    let head = layer(&model, "head");
    let scaled: Vec<f64> = weights_of(&model, &head).iter().map(|w| 10.0 * w).collect();
    let found = findings(&with_weights(&model, &head, &scaled), &v, std::slice::from_ref(&head));
    assert!((5.0..20.0).contains(&found.loss_nats.temperature), "{:?}", found.loss_nats);
    assert!(found.loss_nats.calibrated < 0.5 * found.loss_nats.validation);
    let head = &found.layers[0];
    assert!(!head.eligible && found.plan.is_none() && found.plan_raw.is_some(), "{head:?}");
    let (raw, rest) = (head.raw.unwrap().delta_l_nats.cross_fit, head.delta_l_nats.cross_fit);
    assert!(rest.unwrap().abs() < 0.2 * raw.unwrap(), "{raw:?} {rest:?}");
}
