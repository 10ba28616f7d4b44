"""The files that a run writes; tables and plots are built only from them.

Below a results folder (`--out`): `runs/ID.json` holds one `Result` each, `predictions/ID.npz` the predictions for
every test clip, `curves/ID.npz` those of every draw of a label-efficiency curve, `failures/ID.json` the cells of a grid
without a result, `searches/ID.json` the candidates of a search, `hints/ID.json` measures of layers that need no labels,
`costs/ID.json` the cost of an encoder.
"""

from evar.results.costs import CostRecord, load_costs, save_cost
from evar.results.draws import load_draws, save_draws
from evar.results.files import (
    Failure,
    clear_failure,
    load,
    load_all,
    load_failures,
    run_path,
    save,
    save_failure,
)
from evar.results.hints import HINTS_IDENTITY_KEYS, HintsRecord, hints_id, hints_path, load_hints, save_hints
from evar.results.identity import IDENTITY_KEYS, plain, run_id
from evar.results.predictions import keep_predictions, load_confidence, load_predictions, save_predictions
from evar.results.row import FUSIONS, SCHEMA, Result, utc_now
from evar.results.searches import SearchRecord, load_search, load_searches, save_search, search_path

__all__ = [
    "FUSIONS",
    "HINTS_IDENTITY_KEYS",
    "IDENTITY_KEYS",
    "SCHEMA",
    "CostRecord",
    "Failure",
    "HintsRecord",
    "Result",
    "SearchRecord",
    "clear_failure",
    "hints_id",
    "hints_path",
    "keep_predictions",
    "load",
    "load_all",
    "load_confidence",
    "load_costs",
    "load_draws",
    "load_failures",
    "load_hints",
    "load_predictions",
    "load_search",
    "load_searches",
    "plain",
    "run_id",
    "run_path",
    "save",
    "save_cost",
    "save_draws",
    "save_failure",
    "save_hints",
    "save_predictions",
    "save_search",
    "search_path",
    "utc_now",
]
