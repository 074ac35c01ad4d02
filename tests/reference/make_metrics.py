"""Writes metrics.json: figures of merit for seeded logits, by numpy and scipy in f64.

Run manually, not in CI (numpy, scipy):

    python tests/reference/make_metrics.py

Each case holds `logits` (n × classes, rounded to four decimals, which text represents exactly)
and `labels`, then the expected figures. The expected calibration error follows Guo et al.,
ICML 2017: 15 bins of equal width over the confidence (the largest probability), and the sum over
them of (bin's share) × |accuracy − mean confidence|. Bins are closed on the left; the last one
is also closed at 1.
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 15


def losses(logits, labels, temperature=1.0):
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels]


def mean_stderr(x):
    return x.mean(), x.std(ddof=1) / np.sqrt(len(x))


def top(logits, labels, k):
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]  # ties: the lower class first
    return (best == labels[:, None]).any(axis=1).mean()


def ece(logits, labels):
    p = softmax(logits, axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    total = 0.0
    for i, (low, high) in enumerate(zip(edges, edges[1:])):
        last = i == BINS - 1
        inside = (confidence >= low) & ((confidence <= high) if last else (confidence < high))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def brier(logits, labels):
    return ((softmax(logits, axis=1) - np.eye(logits.shape[1])[labels]) ** 2).sum(axis=1).mean()


def case(name, seed, n, classes, signal, scale):
    """Labels follow softmax(z); logits are z, blurred and stretched: over-confident by `scale`."""
    rng = np.random.default_rng(seed)
    z = signal * rng.standard_normal((n, classes))
    labels = np.array([rng.choice(classes, p=p) for p in softmax(z, axis=1)])
    logits = np.round(scale * (z + 0.5 * rng.standard_normal(z.shape)), 4)
    fit = minimize_scalar(lambda log_t: losses(logits, labels, np.exp(log_t)).mean(),
                          bounds=(np.log(1e-3), np.log(1e3)), method="bounded",
                          options=dict(xatol=1e-12))
    temperature = np.exp(fit.x)
    nll, stderr = mean_stderr(losses(logits, labels))
    calibrated, calibrated_stderr = mean_stderr(losses(logits, labels, temperature))
    return dict(
        name=name, classes=classes, logits=logits.ravel().tolist(), labels=labels.tolist(),
        nll=nll, nll_stderr=stderr, top1=top(logits, labels, 1), top5=top(logits, labels, 5),
        brier=brier(logits, labels), ece=ece(logits, labels), temperature=temperature,
        calibrated_nll=calibrated, calibrated_nll_stderr=calibrated_stderr,
        calibrated_ece=ece(logits / temperature, labels),
    )


if __name__ == "__main__":
    cases = [
        case("overconfident", seed=0, n=200, classes=7, signal=1.5, scale=3.0),
        case("underconfident", seed=1, n=200, classes=7, signal=2.0, scale=0.4),
        case("two_classes", seed=2, n=60, classes=2, signal=1.0, scale=2.0),
    ]
    for c in cases:
        print(c["name"], {k: round(v, 4) for k, v in c.items() if isinstance(v, float)})
    (Path(__file__).parent / "metrics.json").write_text(json.dumps(cases) + "\n")
