//! Reference implementations: naive loops in f64, index by index.

use planish_kernels::registry::Sample;

/// y of `sample` at inputs `x`.
pub fn value(sample: &Sample, x: &[Vec<f64>]) -> Vec<f64> {
    let d = &sample.dims;
    let debug = format!("{:?}", sample.op);
    match sample.op.name() {
        "linear" => linear(&x[0], &x[1], x.get(2), d[1][1], d[1][0]),
        "matmul" => {
            let r = d[0].len();
            matmul(&x[0], &x[1], d[0][r - 2], d[0][r - 1], d[1][r - 1])
        }
        "attention" => attention(x, d, field(&debug, "heads") as usize),
        "weight_rows" => {
            let row: usize = d[0][1..].iter().product();
            let [from, to] = ["from", "to"].map(|name| field(&debug, name) as usize);
            x[0][from * row..to * row].to_vec()
        }
        "layer_norm" => layer_norm(&x[0], &x[1], &x[2], field(&debug, "eps")),
        "softmax" => x[0].chunks(last(&d[0])).flat_map(softmax).collect(),
        "gelu" => x[0].iter().map(|&x| gelu_form(&debug)(x)).collect(),
        "swiglu" => x[0].iter().zip(&x[1]).map(|(a, b)| a / (1.0 + (-a).exp()) * b).collect(),
        "bias_gelu" => {
            let form = gelu_form(&debug);
            let bias = |i: usize| x[1][i % x[1].len()];
            x[0].iter().enumerate().map(|(i, x)| form(x + bias(i))).collect()
        }
        "bias_residual" => {
            let bias = |i: usize| x[1][i % x[1].len()];
            x[0].iter().zip(&x[2]).enumerate().map(|(i, (x, r))| r + (x + bias(i))).collect()
        }
        "add" => x[0].iter().enumerate().map(|(i, a)| a + x[1][i % x[1].len()]).collect(),
        "layer_scale" => x[0].iter().enumerate().map(|(i, a)| a * x[1][i % x[1].len()]).collect(),
        "scale" => x[0].iter().map(|a| a * field(&debug, "factor")).collect(),
        "patches" => patches(&x[0], &d[0], &debug),
        "depthwise_conv" => depthwise_conv(x, d, &debug),
        "global_response_norm" => {
            global_response_norm(&x[0], &x[1], &x[2], d[0][1], field(&debug, "eps"))
        }
        "token_patches" => token_patches(&x[0], &d[0], &debug),
        "transpose_tokens" => {
            let (t, c) = (d[0][1], d[0][2]);
            let image = |x: &[f64]| -> Vec<f64> {
                (0..c)
                    .flat_map(|j| (0..t).map(move |i| (i, j)))
                    .map(|(i, j)| x[i * c + j])
                    .collect()
            };
            x[0].chunks(t * c).flat_map(image).collect()
        }
        "flatten" | "regroup" => x[0].clone(),
        "prepend" => {
            let rows = d[1][1] * d[1][2];
            x[1].chunks(rows).flat_map(|image| [&x[0][..], image].concat()).collect()
        }
        "concat" => {
            let rows = x[0].chunks(last(&d[0])).zip(x[1].chunks(last(&d[1])));
            rows.flat_map(|(a, b)| [a, b].concat()).collect()
        }
        "mix_tokens" => mix_tokens(&x[0], &d[0], &debug),
        "pick_token" => {
            let (t, c, i) = (d[0][1], d[0][2], field(&debug, "index") as usize);
            x[0].chunks(t * c).flat_map(|image| image[i * c..(i + 1) * c].to_vec()).collect()
        }
        "first_tokens" => {
            let (t, c, n) = (d[0][1], d[0][2], field(&debug, "count") as usize);
            x[0].chunks(t * c).flat_map(|image| image[..n * c].to_vec()).collect()
        }
        "skip_tokens" => {
            let (t, c, n) = (d[0][1], d[0][2], field(&debug, "count") as usize);
            x[0].chunks(t * c).flat_map(|image| image[n * c..].to_vec()).collect()
        }
        "mean_tokens" => mean_tokens(&x[0], &d[0], field(&debug, "skip") as usize),
        "cross_entropy" => cross_entropy(&x[0], &d[0], &debug),
        other => panic!("{other} has no naive loop: add one here"),
    }
}

/// The number after `name: ` in an operation's debug output.
fn field(debug: &str, name: &str) -> f64 {
    let rest = debug.split(&format!("{name}: ")).nth(1).unwrap();
    rest.split([' ', ',', '}']).next().unwrap().parse().unwrap()
}

/// The list after `name: ` in an operation's debug output.
fn list(debug: &str, name: &str) -> Vec<usize> {
    let rest = debug.split(&format!("{name}: [")).nth(1).unwrap();
    rest.split(']').next().unwrap().split(", ").map(|n| n.parse().unwrap()).collect()
}

fn last(dims: &[usize]) -> usize {
    dims[dims.len() - 1]
}

fn linear(x: &[f64], w: &[f64], b: Option<&Vec<f64>>, i: usize, o: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for row in x.chunks(i) {
        for k in 0..o {
            let sum: f64 = (0..i).map(|j| row[j] * w[k * i + j]).sum();
            y.push(sum + b.map_or(0.0, |b| b[k]));
        }
    }
    y
}

fn matmul(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for (a, b) in a.chunks(m * k).zip(b.chunks(k * n)) {
        for i in 0..m {
            for j in 0..n {
                y.push((0..k).map(|l| a[i * k + l] * b[l * n + j]).sum());
            }
        }
    }
    y
}

/// softmax(q kᵀ/√d) v, number by number, for both input forms.
fn attention(x: &[Vec<f64>], dims: &[Vec<usize>], heads: usize) -> Vec<f64> {
    let (images, queries) = (dims[0][0], dims[0][1]);
    let fused = x.len() == 1;
    let (tokens, dim) = if fused { (queries, dims[0][2] / 3) } else { (dims[1][1], dims[0][2]) };
    let d = dim / heads;
    let part = |part: usize, b: usize, t: usize, c: usize| match (fused, part) {
        (true, _) => x[0][(b * tokens + t) * 3 * dim + part * dim + c],
        (false, 0) => x[0][(b * queries + t) * dim + c],
        (false, _) => x[1][(b * tokens + t) * 2 * dim + (part - 1) * dim + c],
    };
    let mut y = Vec::new();
    for b in 0..images {
        for i in 0..queries {
            for at in (0..dim).step_by(d) {
                let score = |j: usize| -> f64 {
                    (at..at + d).map(|c| part(0, b, i, c) * part(1, b, j, c)).sum()
                };
                let scores: Vec<f64> = (0..tokens).map(|j| score(j) / (d as f64).sqrt()).collect();
                let p = softmax(&scores);
                for c in at..at + d {
                    y.push((0..tokens).map(|j| p[j] * part(2, b, j, c)).sum());
                }
            }
        }
    }
    y
}

fn layer_norm(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> Vec<f64> {
    let n = gamma.len();
    let mut y = Vec::new();
    for row in x.chunks(n) {
        let mean = row.iter().sum::<f64>() / n as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        for i in 0..n {
            y.push((row[i] - mean) / (variance + eps).sqrt() * gamma[i] + beta[i]);
        }
    }
    y
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let total: f64 = x.iter().map(|x| x.exp()).sum();
    x.iter().map(|x| x.exp() / total).collect()
}

/// erf by its Maclaurin series. Exact up to rounding for the small arguments of the tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        let k = f64::from(k);
        term *= -x * x / k;
        sum += term / (2.0 * k + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

/// The GELU that an operation's debug output names.
fn gelu_form(debug: &str) -> fn(f64) -> f64 {
    match debug {
        _ if debug.contains("form: Tanh") => gelu_tanh,
        _ if debug.contains("form: Quick") => |x| x / (1.0 + (-1.702 * x).exp()),
        _ => gelu,
    }
}

fn gelu(x: f64) -> f64 {
    x * 0.5 * (1.0 + erf(x / 2f64.sqrt()))
}

fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

fn mix_tokens(x: &[f64], dims: &[usize], debug: &str) -> Vec<f64> {
    let (tokens, c, rows) = (dims[1], dims[2], field(debug, "rows") as usize);
    let numbers = debug.split("matrix: [").nth(1).unwrap().split(']').next().unwrap();
    let matrix: Vec<f64> = numbers.split(", ").map(|n| n.parse().unwrap()).collect();
    let mut y = Vec::new();
    for image in x.chunks(tokens * c) {
        for r in 0..rows {
            for j in 0..c {
                y.push((0..tokens).map(|t| matrix[r * tokens + t] * image[t * c + j]).sum());
            }
        }
    }
    y
}

fn patches(x: &[f64], dims: &[usize], debug: &str) -> Vec<f64> {
    let (c, height, width) = (dims[1], dims[2], dims[3]);
    let size = list(debug, "size");
    let (h, w) = (size[0], size[1]);
    let mut y = Vec::new();
    for b in 0..dims[0] {
        for row in 0..height / h {
            for col in 0..width / w {
                for channel in 0..c {
                    for i in 0..h {
                        for j in 0..w {
                            let at = ((b * c + channel) * height + row * h + i) * width;
                            y.push(x[at + col * w + j]);
                        }
                    }
                }
            }
        }
    }
    y
}

fn depthwise_conv(x: &[Vec<f64>], dims: &[Vec<usize>], debug: &str) -> Vec<f64> {
    let (images, c) = (dims[0][0], dims[0][2]);
    let [grid, kernel, padding] = ["grid", "kernel", "padding"].map(|name| list(debug, name));
    let [rows, cols] = [0, 1].map(|d| grid[d] + 2 * padding[d] - kernel[d] + 1);
    let mut y = Vec::new();
    for b in 0..images {
        for i in 0..rows {
            for j in 0..cols {
                for channel in 0..c {
                    let mut sum = x.get(2).map_or(0.0, |bias| bias[channel]);
                    for u in 0..kernel[0] {
                        for v in 0..kernel[1] {
                            let (row, col) = (i + u, j + v);
                            let inside = row >= padding[0]
                                && col >= padding[1]
                                && row < grid[0] + padding[0]
                                && col < grid[1] + padding[1];
                            if inside {
                                let token = (row - padding[0]) * grid[1] + col - padding[1];
                                let w = x[1][(channel * kernel[0] + u) * kernel[1] + v];
                                sum += w * x[0][(b * grid[0] * grid[1] + token) * c + channel];
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

fn global_response_norm(
    x: &[f64],
    gamma: &[f64],
    beta: &[f64],
    tokens: usize,
    eps: f64,
) -> Vec<f64> {
    let c = gamma.len();
    let mut y = Vec::new();
    for image in x.chunks(tokens * c) {
        let g: Vec<f64> = (0..c)
            .map(|j| (0..tokens).map(|t| image[t * c + j].powi(2)).sum::<f64>().sqrt())
            .collect();
        let mean = g.iter().sum::<f64>() / c as f64;
        for (i, x) in image.iter().enumerate() {
            let n = g[i % c] / (mean + eps);
            y.push(x + gamma[i % c] * (x * n) + beta[i % c]);
        }
    }
    y
}

fn token_patches(x: &[f64], dims: &[usize], debug: &str) -> Vec<f64> {
    let (tokens, c) = (dims[1], dims[2]);
    let (grid, size) = (list(debug, "grid"), list(debug, "size"));
    let (height, width, h, w) = (grid[0], grid[1], size[0], size[1]);
    let mut y = Vec::new();
    for b in 0..dims[0] {
        for row in 0..height / h {
            for col in 0..width / w {
                for channel in 0..c {
                    for i in 0..h {
                        for j in 0..w {
                            let token = (row * h + i) * width + col * w + j;
                            y.push(x[(b * tokens + token) * c + channel]);
                        }
                    }
                }
            }
        }
    }
    y
}

fn mean_tokens(x: &[f64], dims: &[usize], skip: usize) -> Vec<f64> {
    let (t, d) = (dims[1], dims[2]);
    let mut y = Vec::new();
    for image in x.chunks(t * d) {
        for c in 0..d {
            y.push((skip..t).map(|i| image[i * d + c]).sum::<f64>() / (t - skip) as f64);
        }
    }
    y
}

fn cross_entropy(x: &[f64], dims: &[usize], debug: &str) -> Vec<f64> {
    let (labels, s) = (list(debug, "labels"), field(debug, "smoothing"));
    let classes = dims[1];
    x.chunks(classes)
        .zip(labels)
        .map(|(row, label)| {
            let p = softmax(row);
            let smooth: f64 = p.iter().map(|p| p.ln()).sum::<f64>() / classes as f64;
            -(1.0 - s) * p[label].ln() - s * smooth
        })
        .collect()
}
