"""Plots of docs/study.md from a study's runs.csv and layers.csv, as SVG with text that can be read.

    python docs/study/plots.py FOLDER… --out OUT [--test]

Without --test only columns of V are read. Needs matplotlib, numpy, pandas and scipy.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from common import REGIMES, SMALLEST, best, combinations, interval, pairs_of, read

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)
from matplotlib.colors import SymLogNorm  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

LAYERS = ["embed"] + [f"block.{i}" for i in range(6)] + ["norm", "head"]
FIGURES = {"nll": ("NLL", "#1f6f8b"), "calibrated_nll": ("after a temperature", "#d1751f")}


def save(figure, out, name, title):
    figure.suptitle(title, fontsize=11)
    metadata = {"Date": None, "Creator": "planish docs/study/plots.py"}
    figure.savefig(out / f"{name}.svg", metadata=metadata, bbox_inches="tight")
    plt.close(figure)


def methods(runs, on):
    """Rows of (label, chosen runs) of one combination."""
    compared = runs[runs.bench == "methods"]
    for method in ("pof", "sam"):
        rows = compared[compared.method == method]
        if len(rows):
            yield method.upper().replace("POF", "PoF"), best(rows)
    for u in ("norm", "block.5"):
        pol = runs[(runs.method == "pol") & (runs.perturb == "head") & (runs["update"] == u)]
        pol = pol[(pol.epochs == 3) & (pol.weight_decay == 0) & (pol.gamma == 2)]
        if len(pol):
            yield f"PoL head → {u}", best(pol)


def gains(runs, on, out):
    parts = list(combinations(runs))
    widths = sorted({width for width, _, _ in parts})
    size = (10, 0.6 + 1.9 * len(widths))
    figure, axes = plt.subplots(
        len(widths), len(REGIMES), figsize=size, squeeze=False, sharey=True, layout="constrained"
    )
    for width, regime, part in parts:
        axis = axes[widths.index(width)][REGIMES.index(regime)]
        axis.axvspan(-SMALLEST, SMALLEST, color="#00000014", lw=0)
        axis.axvline(0, color="#888888", lw=0.8)
        labels = []
        for y, (label, chosen) in enumerate(methods(part, on)):
            labels.append(label)
            for shift, (column, (title, colour)) in zip((-0.14, 0.14), FIGURES.items()):
                values = chosen[f"{on}_{column}_gain_over_control"]
                mean, half, _ = interval(values)
                axis.errorbar(
                    mean, y + shift, xerr=half, fmt="o", ms=4, color=colour, capsize=2, label=title
                )
                axis.plot(values, [y + shift] * len(values), ".", ms=3, color=colour, alpha=0.5)
        axis.set_yticks(range(len(labels)), labels)
        axis.invert_yaxis() if axis is axes[0][0] else None
        axis.set_title(f"{regime}, width {width}", fontsize=9)
        axis.set_xlabel("gain over the control, nats", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(labelsize=8)
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    handles, titles = axes[0][0].get_legend_handles_labels()
    figure.legend(handles[:2], titles[:2], loc="outside lower center", ncols=2, fontsize=8)
    save(figure, out, "methods", "Gain over plain SGD of the same layers, mean over seeds and 95%")


def pairs(runs, on, out):
    found = pairs_of(runs)
    parts = list(combinations(found))
    if not parts:
        return
    figure, axes = plt.subplots(
        1, len(parts), figsize=(3.6 * len(parts), 3.6), squeeze=False, layout="constrained"
    )
    column = f"{on}_nll_gain_over_control"
    tables = [
        part.pivot_table(index="perturb", columns="update", values=column) for _, _, part in parts
    ]
    most = max(np.nanmax(np.abs(t.to_numpy())) for t in tables)
    for axis, (width, regime, _), t in zip(axes[0], parts, tables):
        names = [layer for layer in LAYERS if layer in t.index]
        t = t.reindex(index=names, columns=[layer for layer in LAYERS if layer in t.columns])
        # Most gains are thousandths of a nat, and a control that diverged is a whole one.
        norm = SymLogNorm(linthresh=0.001, vmin=-most, vmax=most)
        image = axis.imshow(t, cmap="RdBu", norm=norm)
        axis.set_xticks(range(len(t.columns)), t.columns, rotation=60, fontsize=8)
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_xlabel("updated, u", fontsize=8)
        axis.set_ylabel("perturbed, p", fontsize=8)
        axis.set_title(f"{regime}, width {width}", fontsize=9)
    figure.colorbar(image, ax=axes[0], label="gain over the control, nats", shrink=0.8)
    save(figure, out, "pairs", "PoL over all pairs of layers: NLL, mean over seeds")


def settings(runs, on, out):
    """PoL's gain by rate and Γ; and that of plain SGD, which is its control."""
    pol = runs[(runs.bench == "settings") & (runs.epochs == 3) & (runs["update"] == "block.5")]
    pol = pol[pol.model_width == pol.model_width.min()]
    figure, axes = plt.subplots(
        1, len(REGIMES), figsize=(10, 3), squeeze=False, layout="constrained"
    )
    for axis, regime in zip(axes[0], REGIMES):
        part = pol[pol.model_regime == regime]
        for decay, style in ((0.0, "-"), (0.01, "--")):
            at = part[part.weight_decay == decay]
            column = f"{on}_calibrated_nll_gain"
            lines = [("SGD", "#444444", at[at.method == "sgd"])]
            for gamma, colour in ((1, "#7fb069"), (2, "#1f6f8b")):
                rows = at[(at.method == "pol") & (at.gamma == gamma)]
                lines.append((f"PoL, Γ = {gamma}", colour, rows))
            for label, colour, rows in lines:
                mean = rows.groupby("lr")[column].mean()
                title = label + (", decay 0.01" if decay else "")
                axis.plot(mean.index, mean, style, marker="o", ms=3, color=colour, label=title)
        axis.axhline(0, color="#888888", lw=0.8)
        axis.set_xscale("log")
        axis.set_xticks(sorted(part.lr.unique()), [f"{x:g}" for x in sorted(part.lr.unique())])
        axis.minorticks_off()
        axis.set_title(regime, fontsize=9)
        axis.set_xlabel("learning rate", fontsize=8)
        axis.tick_params(labelsize=8)
    axes[0][0].set_ylabel("gain after a temperature, nats", fontsize=8)
    handles, titles = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, titles, loc="outside lower center", ncols=4, fontsize=8)
    save(figure, out, "settings", "The last block, 3 epochs: gain over the checkpoint")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", action="store_true")
    args = parser.parse_args()
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "planish", "font.size": 9})
    args.out.mkdir(parents=True, exist_ok=True)
    runs, _ = read(args.folders, args.test)
    on = "test" if args.test else "val"
    gains(runs, on, args.out)
    settings(runs, on, args.out)
    pairs(runs, on, args.out)


main()
