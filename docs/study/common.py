"""What tables and plots of docs/study.md share: a study's rows, and statistics over checkpoints."""

import numpy as np
import pandas as pd
from scipy import stats

REGIMES = ["fitted", "memorised", "augmented", "few"]
PAIRS = 81  # p and u among nine layers
SMALLEST = 0.005  # nats: less is too little to matter, whatever its p


def read(folders, test):
    """Rows of runs.csv and layers.csv, or of the same as .csv.gz; without `test`, without what test
    images say."""

    def table(name):
        paths = [next(iter(sorted(folder.glob(f"{name}.csv*"))), None) for folder in folders]
        if name == "runs" and None in paths:
            raise SystemExit(f"{folders[paths.index(None)]}: no runs.csv and no runs.csv.gz")
        found = [pd.read_csv(path) for path in paths if path]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    runs, layers = table("runs"), table("layers")
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


def verdict(mean, p):
    """What a figure says: `yes` above 0 at 95% and large enough to matter."""
    if not (p < 0.05 and mean > 0):
        return "no"
    return "yes" if mean >= SMALLEST else "too small"


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
    return pairs[pairs.model.isin(count[count == PAIRS].index)]
