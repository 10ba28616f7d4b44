"""A sound classifier of your own in one command: embed, train, score on held-out clips, save, predict.

    python examples/classify_folder.py train recordings/ --encoder=aisfx --out=mine.npz
    python examples/classify_folder.py predict mine.npz new.wav another.ogg

The data are a folder with one sub-folder a class, or a CSV with the columns `path`, `label` and, where clips belong
together (one speaker, one recording), `group`. The encoder is frozen; a scikit-learn classifier learns on its vectors.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import evar
from evar.exporting import Source

STRENGTHS = [0.001, 0.01, 0.1, 1.0, 10.0]  # C of the logistic regression; the best in cross-validation is taken
FOLDS = 4  # one part in four of the clips is held out
Z_95 = 1.96  # of the normal distribution


@dataclass(frozen=True)
class Classifier:
    """A fitted StandardScaler and LogisticRegression as plain arrays, and the encoder that they belong to.

    Attributes:
        mean, scale: (width,) of the training vectors.
        weight, bias: (classes, width) and (classes,) of the softmax.
        classes: (classes,) names.
        made_with: encoder, weights_sha256, layers.
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    made_with: dict[str, Any]

    @classmethod
    def of(cls, fitted: Pipeline, made_with: dict[str, Any]) -> Classifier:
        """Take the arrays out of a fitted pipeline."""
        scaler, regression = fitted[0], fitted[1]
        weight, bias = regression.coef_, regression.intercept_
        if len(weight) == 1:  # two classes: a sigmoid, which is the softmax of minus and plus one half of it
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return cls(scaler.mean_, scaler.scale_, weight, bias, np.asarray(regression.classes_, str), made_with)

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """(clips, width) vectors -> (clips, classes), each row adding up to 1."""
        scores = (vectors - self.mean) / self.scale @ self.weight.T + self.bias  # (clips, classes)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def save(self, path: Path) -> None:
        """Write an .npz of plain arrays: unlike a pickle, it can be opened without running what is in it."""
        arrays = {name: getattr(self, name) for name in ("mean", "scale", "weight", "bias", "classes")}
        np.savez(path, **arrays, made_with=np.array(json.dumps(self.made_with)))

    @classmethod
    def load(cls, path: Path) -> Classifier:
        """Read what `save` wrote.

        Raises:
            ValueError: if it is something else.
        """
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        if set(values) != set(cls.__dataclass_fields__):
            raise ValueError(f"{path} holds {', '.join(values)}; expected a classifier as `train` saves it")
        return cls(**{**values, "made_with": json.loads(values["made_with"].item())})


def labelled(data: str) -> tuple[list[Path], np.ndarray, np.ndarray, bool]:
    """Files, labels and groups of a folder or CSV, and whether the groups were given (else each clip is one).

    Raises:
        ValueError: if there are no labels, or a class has fewer groups than there are folds.
    """
    source = Source([data])
    clips = list(source)
    if source.columns and "label" not in source.columns:
        raise ValueError(f"{data} needs a column 'label', it has {', '.join(('path', *source.columns))}")
    if "label" in source.columns:
        labels = np.array([clip.columns[source.columns.index("label")] for clip in clips])
    else:
        labels = np.array([clip.file.parent.name for clip in clips])
    grouped = "group" in source.columns
    groups = (
        np.array([clip.columns[source.columns.index("group")] for clip in clips]) if grouped else np.arange(len(clips))
    )
    for label in np.unique(labels):
        n_groups = len(set(groups[labels == label]))
        if n_groups < FOLDS:
            what = "groups" if grouped else "clips"
            raise ValueError(
                f"class {str(label)!r} has {n_groups} {what}, expected at least {FOLDS}, to hold some of them out"
            )
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"expected at least 2 classes in {data}, got {str(labels[0])!r} alone; is it one folder too deep?"
        )
    return [clip.file for clip in clips], labels, groups, grouped


def fit(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> GridSearchCV:
    """Standardise, choose C by cross-validation that keeps groups together, and fit on all of what was given."""
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, cv=folds, scoring="accuracy")
    return search.fit(vectors, labels, groups=groups)


def interval(n_right: int, n_clips: int) -> tuple[float, float]:
    """95 % interval of a share of right answers. Source: Wilson, JASA 22 (1927), 209-212.

    Example:
        >>> tuple(round(end, 3) for end in interval(9, 10))
        (0.596, 0.982)
    """
    share, square = n_right / n_clips, Z_95**2
    centre = (share + square / (2 * n_clips)) / (1 + square / n_clips)
    half = Z_95 * np.sqrt(share * (1 - share) / n_clips + square / (4 * n_clips**2)) / (1 + square / n_clips)
    return float(centre - half), float(centre + half)


def train(data: str, encoder: str, layers: str | None, out: Path, seed: int) -> None:
    """Score on held-out clips, then fit on all of them and save."""
    files, labels, groups, grouped = labelled(data)
    loaded = evar.load_encoder(encoder)
    vectors = evar.embed(loaded, files, layers, "concat" if layers else None)  # (clips, width)

    split = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(vectors, labels, groups)
    fitted, held_out = next(split)
    guesses = fit(vectors[fitted], labels[fitted], groups[fitted], seed).predict(vectors[held_out])
    n_right, n_clips = int((guesses == labels[held_out]).sum()), len(held_out)
    low, high = interval(n_right, n_clips)
    names, counts = np.unique(labels[fitted], return_counts=True)
    most = float(np.mean(labels[held_out] == names[counts.argmax()]))
    print(
        f"held out: {n_right} of {n_clips} right, accuracy {100 * n_right / n_clips:.1f} % (95 % interval {100 * low:.1f} "
        f"to {100 * high:.1f}); always saying {str(names[counts.argmax()])!r} would be right on {100 * most:.1f} %"
    )
    for label in np.unique(labels):
        own = labels[held_out] == label
        print(f"  {label}: {int((guesses[own] == label).sum())} of {int(own.sum())}")
    print(
        "groups were kept on one side"
        if grouped
        else "if clips share a recording or a speaker, this is too good to be true of new ones: give a CSV with `group`"
    )

    search = fit(vectors, labels, groups, seed)
    made_with = {"encoder": encoder, "weights_sha256": loaded.weights_sha256, "layers": layers}
    Classifier.of(search.best_estimator_, made_with).save(out)
    print(f"{out}: fitted on all {len(files)} clips, C = {search.best_params_['logisticregression__C']:g}")


def predict(path: Path, files: Sequence[str]) -> None:
    """Print the likeliest classes of each file."""
    classifier = Classifier.load(path)
    made_with = classifier.made_with
    encoder = evar.load_encoder(made_with["encoder"])
    if encoder.weights_sha256 != made_with["weights_sha256"]:
        raise ValueError(f"{path} was trained on other weights of {encoder.name} than those here; train it again")
    vectors = evar.embed(encoder, list(files), made_with["layers"], "concat" if made_with["layers"] else None)
    for file, row in zip(files, classifier.probabilities(vectors), strict=True):
        best = row.argsort()[::-1][:3]
        print(f"{file}: " + ", ".join(f"{classifier.classes[place]} {100 * row[place]:.0f} %" for place in best))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    trainer = commands.add_parser("train", help="embed, score on held-out clips, fit on all, save")
    trainer.add_argument("data", help="a folder with one sub-folder a class, or a CSV with path, label[, group]")
    trainer.add_argument("--encoder", default="aisfx", help="one that `evar encoders` lists (default: aisfx)")
    trainer.add_argument("--layers", help="NAME,NAME put side by side, or all (default: as the encoder's paper does)")
    trainer.add_argument("--out", type=Path, default=Path("classifier.npz"), help="default: classifier.npz")
    trainer.add_argument("--seed", type=int, default=0, help="of the draw of the held-out clips (default: 0)")
    predictor = commands.add_parser("predict", help="name the likeliest classes of files")
    predictor.add_argument("classifier", type=Path, help="what train wrote")
    predictor.add_argument("files", nargs="+", metavar="FILE", help="audio files")
    words = parser.parse_args()
    try:
        if words.command == "train":
            train(words.data, words.encoder, words.layers, words.out, words.seed)
        else:
            predict(words.classifier, words.files)
    except (ValueError, OSError, ImportError) as error:
        parser.exit(2, f"classify_folder: {error}\n")


if __name__ == "__main__":
    main()
