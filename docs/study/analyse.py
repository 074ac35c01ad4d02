"""Tables of docs/study.md from a study's runs.csv and layers.csv.

    python docs/study/analyse.py FOLDER… [--test]

Without --test only columns of V are read: what is chosen, and what V says of it. Needs numpy,
pandas and scipy.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from common import REGIMES, best, combinations, holm, interval, pairs_of, read, verdict
from scipy import stats


def told(values):
    mean, half, _ = interval(values)
    return f"{mean:+.4f} ± {half:.4f}" if np.isfinite(half) else f"{mean:+.4f}"


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(x) for x in row) + " |")
    print()


def name(row):
    where = f"{row.perturb} → {row.update}" if row.method in ("pol", "pof") else row.update
    return f"{row.method} {where}, rate {row.lr:g}, {row.epochs:.0f} epochs"


def starting_points(runs, on):
    print("### The checkpoints\n")
    rows = []
    for width, regime, part in combinations(runs):
        first = part.groupby("model").first()
        rows.append(
            (width, regime, len(first))
            + tuple(
                f"{first[f'{on}_before_{c}'].mean():.4f}"
                for c in ("nll", "calibrated_nll", "ece", "temperature")
            )
            + (f"{100 * first[f'{on}_before_top1'].mean():.1f}%",)
        )
    table(["width", "regime", "n", "NLL", "calibrated", "ECE", "T", "top-1"], rows)


def over_control(runs, on):
    """(a): each method at the rate V chooses, against plain SGD of the same layers at that rate and
    at the rate V chooses for SGD."""
    print("### (a) Gain over the control\n")
    found = []
    for width, regime, part in combinations(runs):
        methods = part[part.bench == "methods"]
        for method in ("pof", "sam"):
            if not (methods.method == method).any():
                continue
            chosen = best(methods[methods.method == method]).set_index("model")
            layers = chosen["update"].iloc[0]
            sgd = methods[(methods.method == "sgd") & (methods["update"] == layers)]
            found.append((width, regime, method, chosen, best(sgd).set_index("model")))
        for u in ("norm", "block.5"):
            pol = part[(part.method == "pol") & (part.perturb == "head") & (part["update"] == u)]
            pol = pol[(pol.epochs == 3) & (pol.weight_decay == 0) & (pol.gamma == 2)]
            if len(pol):
                chosen = best(pol).set_index("model")
                sgd = part[(part.method == "sgd") & (part["update"] == u)]
                sgd = sgd[(sgd.epochs == 3) & (sgd.weight_decay == 0)]
                found.append(
                    (width, regime, f"pol head → {u}", chosen, best(sgd).set_index("model"))
                )
    for figure, title in (("nll", "NLL"), ("calibrated_nll", "NLL after a temperature")):
        print(f"{title}, nats; mean over checkpoints ± half of the 95% interval.\n")
        gains = [chosen[f"{on}_{figure}_gain_over_control"] for *_, chosen, _ in found]
        ps = [interval(g)[2] for g in gains]
        adjusted = np.ones(len(ps))
        for method in {m for _, _, m, _, _ in found}:
            at = [i for i, f in enumerate(found) if f[2] == method]
            adjusted[at] = holm([ps[i] for i in at])
        rows = []
        for (width, regime, method, chosen, sgd), gain, p in zip(found, gains, adjusted):
            yes = verdict(interval(gain)[0], p)
            tuned = sgd[f"{on}_after_{figure}"] - chosen[f"{on}_after_{figure}"]
            rows.append(
                (width, regime, method, ", ".join(f"{x:g}" for x in chosen.lr))
                + (told(chosen[f"{on}_{figure}_gain"]), told(gain), f"{p:.3f}", yes, told(tuned))
            )
        head = ["width", "regime", "method", "rates chosen", "over the start", "over its control"]
        table(head + ["p (Holm)", "yes?", "over SGD at its own best rate"], rows)
    print("Top-1 (run − control) and ECE (control − run) of the same runs.\n")
    columns = [f"{on}_{c}_gain_over_control" for c in ("top1", "ece")]
    rows = [f[:3] + tuple(told(f[3][c]) for c in columns) for f in found]
    table(["width", "regime", "method", "top-1", "ECE"], rows)


def decided(rows):
    """A table of what is asked, with Holm's correction over its rows: (label, values) each."""
    found = [interval(values) for _, values in rows]
    adjusted = holm([p for *_, p in found])
    for (label, values), (mean, _, _), p in zip(rows, found, adjusted):
        above = "yes" if p < 0.05 and mean > 0 else "no"
        yield label + (told(values), f"{p:.3f}", above)


def factors(runs, on):
    """(b): means over seeds by every factor, all others held."""
    print("### (b) By setting, smallest width: PoL head → u, gain over the start, and over the control\n")
    pol = runs[(runs.method == "pol") & runs.bench.isin(["settings", "epochs", "gamma"])]
    pol = pol[pol.model_width == pol.model_width.min()]
    # Rates and decay are crossed with one another, Γ and epochs are varied at one rate alone.
    held = {"lr": 0.1, "epochs": 3, "gamma": 2, "weight_decay": 0}
    rows, regimes = [], [r for r in REGIMES if (pol.model_regime == r).any()]
    for u in ("norm", "block.5"):
        for factor in held:
            at = pol[pol["update"] == u]
            for other, value in held.items():
                if other != factor:
                    at = at[at[other] == value]
            for level in sorted(at[factor].unique()):
                row = [u, f"{factor} {level:g}"]
                for regime in regimes:
                    one = at[(at[factor] == level) & (at.model_regime == regime)]
                    row += [
                        told(one.groupby("model")[f"{on}_{c}"].mean())
                        for c in ("nll_gain", "calibrated_nll_gain", "nll_gain_over_control")
                    ]
                rows.append(row)
    head = ["u", "level"]
    for regime in regimes:
        head += [regime, "calibrated", "over control"]
    table(head, rows)


def rank_correlation(own, fixed, x, gain):
    """Spearman's ρ of x and gain over pairs that share the layer `fixed`, averaged over that layer."""
    rhos = [
        stats.spearmanr(g[x], g[gain], nan_policy="omit").statistic
        for _, g in own.groupby(fixed)
        if g[x].nunique() > 1 and g[gain].nunique() > 1
    ]
    return np.nanmean(rhos) if rhos else np.nan


def named_by(layers, model, plan):
    """p and u of a checkpoint's plan, if it has one."""
    own = layers[layers.model == model]
    p = own.loc[own[f"{plan}_perturb"].astype(bool), "layer"]
    u = own.loc[own[f"{plan}_update"].astype(bool), "layer"]
    return (p.iloc[0], u.iloc[0]) if len(p) and len(u) else None


def choosing(runs, layers, on):
    """(c): do κ_p and ΔL_u order the pairs, and how good is the pair that the diagnosis names?"""
    print("### (c) Does the diagnosis choose well?\n")
    rows, between, asked = [], [], {}
    for width, regime, part in combinations(pairs_of(runs)):
        for gain in (
            f"{on}_nll_gain_over_control",
            f"{on}_nll_gain",
            f"{on}_calibrated_nll_gain",
        ):
            chosen = {}
            for basis, plan in (("cross_fit", "plan"), ("in_sample", "plan_in_sample")):
                by_p, by_u, below, gains = [], [], [], {}
                for model, own in part.groupby("model"):
                    by_p.append(rank_correlation(own, "update", f"kappa_{basis}_p", gain))
                    by_u.append(rank_correlation(own, "perturb", f"delta_l_{basis}_u", gain))
                    pair = named_by(layers, model, plan)
                    if pair:
                        at = own[(own.perturb == pair[0]) & (own["update"] == pair[1])]
                        gains[model] = at[gain].iloc[0]
                        below.append((own[gain] < gains[model]).mean())
                chosen[basis] = gains
                if gain == f"{on}_nll_gain_over_control":
                    for of, values in (("κ_p", by_p), ("ΔL_u", by_u)):
                        label = (basis, of, width, regime)
                        asked.setdefault((basis, of), []).append((label, values))
                rows.append(
                    (width, regime, basis, gain.removeprefix(f"{on}_"), told(by_p), told(by_u))
                    + (f"{np.mean(below):.2f} of {len(below)}" if below else "no plan",)
                    + (told(list(gains.values())) if gains else "",)
                    + (f"{part.groupby('model')[gain].max().mean():+.4f}",)
                    + (f"{part.groupby('model')[gain].median().mean():+.4f}",)
                )
            both = [m for m in chosen["cross_fit"] if m in chosen["in_sample"]]
            paired = [chosen["cross_fit"][m] - chosen["in_sample"][m] for m in both]
            between.append((width, regime, gain.removeprefix(f"{on}_"), len(both), told(paired)))
    table(
        ["width", "regime", "diagnosis", "gain", "ρ(κ_p, gain)", "ρ(ΔL_u, gain)"]
        + ["share of pairs worse than its choice", "gain of its choice"]
        + ["of the best pair", "of the median pair"],
        rows,
    )
    print("Is the rank correlation with the gain in NLL over the control above 0?\n")
    head = ["diagnosis", "of", "width", "regime", "ρ", "p (Holm)", "yes?"]
    table(head, [row for group in asked.values() for row in decided(group)])
    print("Cross-fitted choice − in-sample choice, where there are both.\n")
    table(["width", "regime", "gain", "n", "difference"], between)


def recipes(runs, on):
    """(d): the recipe that V finds best over the other seeds, taken on each; and on its own V."""
    print("### (d) Recipes chosen on V\n")
    rows, asked = [], []
    single = runs[~runs["update"].isin(["*", "features"])].copy()
    single["recipe"] = [
        f"{name(r)}, decay {r.weight_decay:g}" + (f", Γ {r.gamma:g}" if r.gamma == r.gamma else "")
        for r in single.itertuples()
    ]
    for width, regime, part in combinations(single):
        for what, pool in (
            ("any", part),
            ("no decay", part[part.weight_decay == 0]),
            ("SGD alone", part[part.method == "sgd"]),
        ):
            for figure in ("nll", "calibrated_nll"):
                every = pool.pivot_table(
                    index="recipe", columns="model", values=f"val_{figure}_gain"
                )
                gains = {
                    c: pool.pivot_table(index="recipe", columns="model", values=f"{on}_{c}_gain")
                    for c in ("nll", "calibrated_nll")
                }
                others, own = [], []
                for model in every:
                    rest = every.drop(columns=model).dropna()
                    if len(rest) and rest.shape[1]:
                        others.append((rest.mean(axis=1).idxmax(), model))
                    own.append((every[model].idxmax(), model))
                for how, picks in (("the other seeds", others), ("its own V", own)):
                    values = {c: [g.loc[r, m] for r, m in picks] for c, g in gains.items()}
                    if (what, figure, how) == ("any", "calibrated_nll", "the other seeds"):
                        asked.append(((width, regime), values["calibrated_nll"]))
                    usual = pd.Series([r for r, _ in picks]).mode()
                    rows.append(
                        (
                            width,
                            regime,
                            what,
                            figure.replace("_", " "),
                            how,
                            usual.iloc[0] if len(usual) else "",
                            told(values["nll"]),
                            told(values["calibrated_nll"]),
                        )
                    )
    table(
        [
            "width",
            "regime",
            "recipes",
            "chosen by",
            "on",
            "most often",
            "gain in NLL",
            "gain after a temperature",
        ],
        rows,
    )

    print("Any recipe, chosen by the calibrated NLL on V of the other seeds: gain after a temperature.\n")
    table(["width", "regime", "gain", "p (Holm)", "above 0?"], list(decided(asked)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--test", action="store_true")
    args = parser.parse_args()
    runs, layers = read(args.folders, args.test)
    on = "test" if args.test else "val"
    starting_points(runs, on)
    over_control(runs, on)
    factors(runs, on)
    if len(layers):
        choosing(runs, layers, on)
    recipes(runs, on)


main()
