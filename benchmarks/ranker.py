"""How well the fusion search's cheap ranker agrees with the protocol's probe on every pair of layers, and what it saves.

    python benchmarks/ranker.py --data_root=DIR [--encoders=crepe.tiny,aisfx] [--tasks=esc10,spoken_words]

For each encoder, over all tasks: every single layer and pair is scored on the validation clips by the ranker and by the
probe. Printed: Spearman's rank correlation of the two over the combinations (mean over tasks of the mean over rounds), the
place that the probe's best combination has with the ranker, what the search would lose by probing only the ranker's best
six, in percent points of validation score, and the seconds of both.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time

import numpy as np
from scipy.stats import spearmanr

from evar.config.protocol import load_protocol_config
from evar.data.task import load_task, prepare
from evar.encoders import load_encoder
from evar.experiment.cell import Cell
from evar.experiment.spec import CellSpec, Resources
from evar.lineval.cell_features import encode_cell
from evar.lineval.fusion_search import SEED, make_rounds, probe_sets
from evar.lineval.ranker import Ranker
from evar.lineval.search import N_FINALISTS, objectives
from evar.storage.feature_store import FeatureStore


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--encoders", default="crepe.tiny,aisfx")
    parser.add_argument("--tasks", default="esc10,spoken_words")
    parser.add_argument("--store", default="")
    arguments = parser.parse_args()
    protocol = load_protocol_config("linear")
    tasks = [load_task(name, arguments.data_root) for name in arguments.tasks.split(",")]
    for task in tasks:
        prepare(task)
    for name in arguments.encoders.split(","):
        encoder = load_encoder(name)
        names = [layer.name for layer in encoder.layer_infos]
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore(arguments.store or folder)
            rounds = []
            for task in tasks:
                cell = Cell(encoder, task, CellSpec(name, task.name, protocol, "linear", layers="all", fusion="search"))
                rounds += make_rounds(task, encode_cell(cell, store, Resources(), {SEED}), names)
            every = [layers for size in (1, 2) for layers in itertools.combinations(range(len(names)), size)]
            began = time.perf_counter()
            rankers = [Ranker(a_round, len(names)) for a_round in rounds]
            ranked = {layers: np.array([ranker.score(layers) for ranker in rankers]) for layers in every}
            of_ranker = time.perf_counter() - began
            began = time.perf_counter()
            asked = [(layers, index) for index in range(len(rounds)) for layers in every]
            columns = np.reshape([score for score, _ in probe_sets(protocol, rounds, asked)], (len(rounds), -1))
            of_probe = time.perf_counter() - began
        probed = {layers: np.array([column[at] for column in columns]) for at, layers in enumerate(every)}
        cheap = objectives(ranked, rounds, None, "mean_score")
        full = objectives(probed, rounds, None, "mean_score")
        order = sorted(every, key=lambda layers: -cheap[layers])
        best = max(every, key=lambda layers: full[layers])
        found = max(order[:N_FINALISTS], key=lambda layers: full[layers])
        agreement = spearmanr(list(cheap.values()), [full[layers] for layers in cheap]).statistic

        def said(layers: tuple[int, ...]) -> str:
            return f"{'+'.join(names[at] for at in layers)} ({100 * full[layers]:.1f})"  # noqa: B023

        print(
            f"{name} on {arguments.tasks}: {len(every)} combinations, Spearman {agreement:.2f}; the probe's best "
            f"{said(best)} has place {order.index(best) + 1} with the ranker; of the ranker's best {N_FINALISTS} the probe "
            f"takes {said(found)}; ranker {of_ranker:.1f} s, probe of all {of_probe:.1f} s"
        )


if __name__ == "__main__":
    main()
