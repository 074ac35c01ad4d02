"""Writes holm.json: p values by SciPy and their correction by statsmodels."""

import json
from pathlib import Path

from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

z = [3.1, -0.4, 2.2, 0.0, 2.21, 5.5, 1.9, -3.0]
p = norm.sf(z)
holm = lambda p: multipletests(p, method="holm")[1].tolist()
# Three further hypotheses with p = 1 stand for those tested before.
out = {"z": z, "p": p.tolist(), "p_holm": holm(p), "p_holm_of_more": holm([*p, 1, 1, 1])[: len(p)]}
Path(__file__).with_name("holm.json").write_text(json.dumps(out) + "\n")
