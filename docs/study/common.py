"""What tables and plots of docs/study.md share: a study's rows, and statistics over checkpoints."""

import numpy as np
import pandas as pd
from scipy import stats

REGIMES = ["fitted", "memorised", "augmented"]
SMALLEST = 0.005  # nats: less is too little to matter, whatever its p


def read(folders, test):
    """Rows of runs.csv and layers.csv; without `test`, without what test images say."""
    runs = pd.concat([pd.read_csv(f / "runs.csv") for f in folders], ignore_index=True)
    paths = [path for path in (folder / "layers.csv" for folder in folders) if path.exists()]
    layers = [pd.read_csv(path) for path in paths]
    layers = pd.concat(layers, ignore_index=True) if layers else pd.DataFrame()
    if not test:
        runs = runs.drop(columns=[c for c in runs if "test_" in c and "digest" not in c])
    return runs, layers


def interval(values):
    """Mean, half-width of its 95% interval and two-sided p, by Student's t over checkpoints."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (values.mean() if len(values) else np.nan), np.nan, np.nan
    mean, se = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * se
    p = 2 * stats.t.sf(abs(mean) / se, len(values) - 1) if se > 0 else float(mean == 0)
    return mean, half, p


def holm(ps):
    """Holm's adjusted p-values."""
    ps = np.asarray(ps, float)
    order = np.argsort(ps)
    adjusted = np.empty_like(ps)
    worst = 0.0
    for rank, i in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = worst
    return adjusted


def best(rows, figure="val_after_nll"):
    """The row that V chooses of each model."""
    rows = rows[rows[figure].notna()]
    return rows.loc[rows.groupby("model")[figure].idxmin()]


def combinations(runs):
    for width in sorted(runs.model_width.unique()):
        for regime in REGIMES:
            part = runs[(runs.model_width == width) & (runs.model_regime == regime)]
            if len(part):
                yield width, regime, part


def pairs_of(runs):
    """PoL's runs over pairs of layers, of the models that have them all."""
    pairs = runs[(runs.method == "pol") & (runs.bench == "pairs")]
    count = pairs.groupby("model").size()
    return pairs[pairs.model.isin(count[count == count.max()].index)]
