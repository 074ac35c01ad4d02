"""Writes evaluation.json: figures of evaluate/ from published libraries, in f64.

Run manually, not in CI (numpy, scipy, scikit-learn 1.9.1, torchmetrics 1.9.0, netcal 1.4.0):

    python tests/reference/make_evaluation.py

Functions used, and how their known problems are avoided:

- scikit-learn: log_loss, brier_score_loss, top_k_accuracy_score, recall_score, confusion_matrix,
  roc_auc_score, roc_curve. log_loss
  clips probabilities at the type's epsilon, so logits are small enough to avoid clipping.
  brier_score_loss halves the score for two classes, so scale_by_half is False. top_k_accuracy
  gives ties to the higher class, so all logits are distinct.
- torchmetrics: MulticlassCalibrationError, as a second check of the ECE. It casts to float32 and its
  bins are open on the left, so it agrees to 1e-6 if no confidence is at an edge. Its BinaryAUROC treats
  scores outside [0, 1] as logits and applies a sigmoid, which makes large energies equal, so AUROC is
  only taken from scikit-learn.
- netcal: ECE over bins of equal width (top class; and each class's probability against all others,
  also averaged: the class-wise ECE) and over bins of equal mass (`equal_intervals=False`), whose edges are
  interpolated quantiles. The number of images is a multiple of the number of bins, so bins have equal
  size. netcal's mean over classes omits absent classes; ours is over all classes.
- scipy: entropy; sem for standard errors of means; binomtest for McNemar's exact test; bootstrap for paired intervals.
- The area under the risk-coverage curve is in none of these libraries: numpy, from the definition.
"""

import json
from pathlib import Path

import numpy as np
import torch
from netcal.metrics import ECE
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import binomtest, bootstrap, entropy, sem
from sklearn.metrics import (brier_score_loss, confusion_matrix, log_loss, recall_score, roc_auc_score,
                             roc_curve, top_k_accuracy_score)
from torchmetrics.classification import MulticlassCalibrationError

BINS = 15


def sample(rng, n, classes, present, scale, stretch=1.0):
    """Labels below `present` follow softmax(z) there; logits are z, blurred and stretched."""
    z = rng.standard_normal((n, classes)) * scale
    labels = np.array([rng.choice(present, p=p) for p in softmax(z[:, :present], axis=1)])
    logits = np.round(stretch * (z + 0.5 * rng.standard_normal(z.shape)), 4)
    return logits, labels


def aurc(confidence, right):
    order = np.argsort(-confidence, kind="stable")
    errors = ~right[order]
    return np.mean([errors[:k].mean() for k in range(1, len(errors) + 1)])


def of_class(c, p, labels, ece):
    own = labels == c
    recall = recall_score(labels, p.argmax(axis=1), labels=[c], average=None, zero_division=0)[0]
    right, nll = (p[own].argmax(axis=1) == c).astype(float), -np.log(p[own, c])
    error = lambda x: float(sem(x)) if len(x) > 1 else 0.0
    return dict(images=int(own.sum()), predicted=int((p.argmax(axis=1) == c).sum()), ece=float(ece),
                recall=float(recall), recall_stderr=error(right),
                nll=float(nll.mean()) if own.any() else 0.0, nll_stderr=error(nll))


def case(name, seed, n, classes, present):
    rng = np.random.default_rng(seed)
    logits, labels = sample(rng, n, classes, present, 1.5, 2.0)
    p = softmax(logits, axis=1)
    top, right = p.max(axis=1), p.argmax(axis=1) == labels
    known = list(range(classes))
    one_hot = np.eye(classes, dtype=int)[labels]
    metric = MulticlassCalibrationError(classes, n_bins=BINS, norm="l1")
    second = metric(torch.tensor(p), torch.tensor(labels)).item()
    first = ECE(BINS).measure(top, right.astype(int))
    assert abs(first - second) < 1e-6, (first, second)
    class_wise = [ECE(BINS).measure(p[:, c], one_hot[:, c]) for c in known]
    return dict(
        name=name, classes=classes, logits=logits.ravel().tolist(), labels=labels.tolist(),
        nll=log_loss(labels, p, labels=known),
        top1=top_k_accuracy_score(labels, logits, k=1, labels=known),
        top5=top_k_accuracy_score(labels, logits, k=5, labels=known),
        brier=brier_score_loss(labels, p, labels=known, scale_by_half=False),
        ece=float(first),
        ece_equal_mass=float(ECE(BINS, equal_intervals=False).measure(top, right.astype(int))),
        ece_class_wise=float(np.mean(class_wise)),
        confidence=top.mean(), entropy=entropy(p, axis=1).mean(), aurc=aurc(top, right),
        absent_classes=classes - present,
        by_class=[of_class(c, p, labels, class_wise[c]) for c in known],
        confusion=confusion_matrix(labels, p.argmax(axis=1), labels=known).tolist(),
    )


def detection():
    rng = np.random.default_rng(7)
    known, _ = sample(rng, 180, 5, 5, 2.0, 3.0)
    others, _ = sample(rng, 130, 5, 5, 1.4, 3.0)
    kinds = np.r_[np.ones(len(known)), np.zeros(len(others))]
    figures = {}
    for name, score in [("max_probability", lambda z: softmax(z, axis=1).max(axis=1)),
                        ("negative_energy", lambda z: logsumexp(z, axis=1))]:
        scores = np.r_[score(known), score(others)]
        fpr, tpr, _ = roc_curve(kinds, scores, drop_intermediate=False)
        figures[name] = dict(auroc=roc_auc_score(kinds, scores),
                             fpr95=float(fpr[np.argmax(tpr >= 0.95)]))
    return dict(classes=5, known=known.ravel().tolist(), others=others.ravel().tolist(), **figures)


def comparison():
    rng = np.random.default_rng(11)
    a, labels = sample(rng, 150, 4, 4, 1.5, 2.5)
    b = np.round(0.6 * a + 0.5 * rng.standard_normal(a.shape), 4)
    loss = lambda z: -log_softmax(z, axis=1)[np.arange(len(labels)), labels]
    gain = loss(a) - loss(b)
    right_a, right_b = a.argmax(axis=1) == labels, b.argmax(axis=1) == labels
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    found = bootstrap((gain,), np.mean, n_resamples=200_000, method="percentile", batch=1000,
                      random_state=np.random.default_rng(0))
    interval = found.confidence_interval
    return dict(classes=4, a=a.ravel().tolist(), b=b.ravel().tolist(), labels=labels.tolist(),
                gain=gain.mean(), gain_stderr=gain.std(ddof=1) / np.sqrt(len(gain)),
                interval=[interval.low, interval.high], only_a=only_a, only_b=only_b,
                p=binomtest(only_a, only_a + only_b).pvalue,
                larger=[[30, 52, binomtest(30, 82).pvalue], [410, 333, binomtest(410, 743).pvalue]])


if __name__ == "__main__":
    out = dict(
        figures=[case("six classes", 0, 150, 6, 6), case("one absent", 1, 120, 8, 7),
                 case("twelve classes", 2, 90, 12, 12)],
        detection=detection(), comparison=comparison(),
    )
    for c in out["figures"]:
        print({k: round(v, 4) for k, v in c.items() if isinstance(v, float)})
    print({k: v for k, v in out["detection"].items() if isinstance(v, dict)})
    print({k: v for k, v in out["comparison"].items() if k not in ("a", "b", "labels")})
    (Path(__file__).parent / "evaluation.json").write_text(json.dumps(out) + "\n")
