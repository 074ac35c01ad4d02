"""Writes effects.json: Student's t by SciPy, tests of equivalence and an analysis of variance by
statsmodels."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.weightstats import DescrStatsW

student = [
    {
        "df": df,
        "share": share,
        "quantile": t.ppf(share, df),
        "t": x,
        "cdf": t.cdf(x, df),
        "tail": t.sf(x, df),
    }
    for df in [1, 2, 3.7, 4, 9, 47.3, 1e4]
    for share, x in [(0.975, 0.1), (0.8, -1.3), (0.025, 2.5), (0.6, 4.2), (0.9995, 9.0)]
]

rng = np.random.default_rng(0)
equivalence = []
for mean, deviation, n, margin in [
    (0.0, 0.004, 5, 0.005),
    (0.003, 0.002, 5, 0.005),
    (-0.006, 0.003, 8, 0.005),
    (0.001, 0.05, 200, 0.005),
]:
    sample = DescrStatsW(rng.normal(mean, deviation, n))
    df = n - 1
    stderr = sample.std_mean
    equivalence.append(
        {
            "mean": sample.mean,
            "stderr": stderr,
            "df": df,
            "margin": margin,
            "p": sample.ttost_mean(-margin, margin)[0],
            "interval": sample.tconfint_mean(),
            "smallest_visible": (t.ppf(0.975, df) + t.ppf(0.8, df)) * stderr,
        }
    )

crossed = []
# The effects of seeds, of images, and neither prevail.
for a, b, e in [(1.0, 0.3, 0.5), (0.1, 1.0, 0.5), (0.0, 0.0, 1.0)]:
    s, n = 4, 9
    table = a * rng.normal(size=(s, 1)) + b * rng.normal(size=(1, n)) + e * rng.normal(size=(s, n))
    if (a, b) == (0.0, 0.0):
        # Columns with equal means: fewer than the rest alone would give.
        table -= 0.9 * table.mean(axis=0, keepdims=True)
    seed, image = np.indices((s, n))
    rows = pd.DataFrame({"x": table.ravel(), "seed": seed.ravel(), "image": image.ravel()})
    anova = anova_lm(ols("x ~ C(seed) + C(image)", rows).fit())
    ms, df = anova["mean_sq"], anova["df"]
    parts = {"C(seed)": 1}
    if ms["C(image)"] > ms["Residual"]:
        parts |= {"C(image)": 1, "Residual": -1}
    total = sum(sign * ms[name] for name, sign in parts.items())
    crossed.append(
        {
            "table": table.tolist(),
            "mean": table.mean(),
            "stderr": np.sqrt(total / (s * n)),
            "degrees_of_freedom": total**2 / sum(ms[name] ** 2 / df[name] for name in parts),
        }
    )

out = {"student": student, "equivalence": equivalence, "crossed": crossed}
Path(__file__).with_name("effects.json").write_text(json.dumps(out) + "\n")
