"""What the ablations have in common: one iteration of μCode on the embedded suite, scaled down.

They are measured on the validation split, so that the test split stays with `evidence.py`. One seed
a cell; more with `--config.seeds=0,1,2`. Every ablation ends in WORKDIR/evidence.json and
WORKDIR/report.html; cells share the stages that they have in common.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import quickstart


def of(*cells: tuple[str, dict[str, Any]], **search: Any) -> ConfigDict:
    """The settings; `cells` are (name, settings), `search` changes config.search."""
    c = quickstart.get_config()
    c.methods = ("mucode",)
    c.iterations = 1
    c.train.size = 300
    c.evaluation.split = "validation"
    c.search.update({"methods": ("mucode",), "choices": ("random", "pt", "pt+lv"), **search})
    c.cells = cells
    return c
