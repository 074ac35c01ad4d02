"""Writes scaling.json: structured vector and matrix scaling of small sets of logits.

Needs numpy, scipy, torch, numba, pytorch-minimize and probmetrics (1.3.0). The objective is probmetrics'; its inputs are logits
centred by their mean, where probmetrics' own calibrators centre by the log-sum-exp. `scipy` is the
minimum of the same objective by L-BFGS to machine accuracy.
"""

import json
from pathlib import Path

import numpy as np
import torch
from probmetrics.calibrators.logistic import SMSCalibrator, SVSCalibrator
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp


def mean_loss(z, y):
    return float(np.mean(logsumexp(z, axis=1) - z[np.arange(len(y)), y]))


def temperature(z, y):
    found = minimize_scalar(lambda t: mean_loss(z / np.exp(t), y), bounds=(-5, 5), method="bounded",
                            options={"xatol": 1e-13})
    return float(np.exp(found.x))


def case(name, z, y, t=None):
    n, k = z.shape
    t = temperature(z, y) if t is None else t
    x = (z - z.mean(axis=1, keepdims=True)) / t
    ridge, between = k / n, k * (k - 1) / n
    tx, ty = torch.tensor(x), torch.tensor(y)
    out = {"name": name, "classes": k, "logits": z.ravel().tolist(), "labels": y.tolist(), "temperature": t}

    def solve(loss, size):
        def both(p):
            p = torch.tensor(p, requires_grad=True)
            value = loss(p)
            value.backward()
            return value.item(), p.grad.numpy()
        found = minimize(both, np.zeros(size), jac=True, method="L-BFGS-B",
                         options={"maxiter": 5000, "maxfun": 20000, "ftol": 1e-16, "gtol": 1e-11})
        return found.x

    def svs(p):
        v, b = p[:k], p[k:]
        loss = torch.nn.functional.cross_entropy(tx * (1 + v) + b, ty)
        return loss + ridge * (b.pow(2).sum() + v.pow(2).sum())

    def sms(p):
        w, b = p[: k * k].view(k, k), p[k * k :]
        diagonal = w.diagonal().pow(2).sum()
        loss = torch.nn.functional.cross_entropy(tx + torch.nn.functional.linear(tx, w, b), ty)
        return loss + ridge * (b.pow(2).sum() + diagonal) + between * (w.pow(2).sum() - diagonal)

    p = solve(svs, 2 * k)
    scale, bias = SVSCalibrator()._fit_bfgs(tx, ty, k, ridge, ridge)
    out["svs"] = {"factors": p[:k].tolist(), "bias": p[k:].tolist(),
                  "probmetrics": {"factors": (scale - 1).tolist(), "bias": bias.tolist()}}
    p = solve(sms, k * k + k)
    both = SMSCalibrator()._fit_bfgs(tx, ty, k, ridge, ridge, between)
    factors, bias = both[:, :k] - np.eye(k), both[:, k]
    out["sms"] = {"factors": p[: k * k].tolist(), "bias": p[k * k :].tolist(),
                  "probmetrics": {"factors": factors.ravel().tolist(), "bias": bias.tolist()}}
    return out


def main():
    rng = np.random.default_rng(0)
    cases = []
    # Overconfident logits with class-dependent scale and offset.
    n, k = 300, 5
    z = rng.normal(size=(n, k)) * 1.5
    y = np.array([rng.choice(k, p=np.exp(r - logsumexp(r))) for r in z])
    z = 3 * z * np.linspace(0.7, 1.3, k) + np.linspace(-1, 1, k)
    cases.append(case("overconfident", np.round(z, 6), y))
    # Class 3 has no image.
    kept = y != 3
    cases.append(case("absent class", np.round(z[kept], 6), y[kept]))
    # No image is wrong: the temperature stays 1.
    z = rng.normal(size=(40, 3))
    y = z.argmax(axis=1)
    cases.append(case("separable", np.round(2 * z, 6), y, t=1.0))
    Path(__file__).with_name("scaling.json").write_text(json.dumps(cases) + "\n")


main()
