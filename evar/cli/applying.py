"""Commands that use what was learned: train a classifier, predict with it, and search stored vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import UsageError, decimal, takes_flags, truth, whole
from evar.config.applying_flags import SEARCH_FLAGS, TRAIN_FLAGS
from evar.config.messages import write_text


@takes_flags(TRAIN_FLAGS)
def train(task: str, encoder: str = "", output: str = "", **flags: Any) -> int:
    """Train a classifier on the vectors of a frozen encoder, and write it with a model card.

    evar train TASK --encoder=NAME -o FILE.safetensors [flags]

    TASK and NAME as `evar tasks` and `evar encoders` list them; `evar task new` makes a task of your own sounds.

    Examples:
      evar train esc10 --encoder=crepe.tiny -o esc10.safetensors
      evar train my_birds --encoder=birdnet --layers=all -o birds.safetensors    the layer is chosen on validation clips
    then
      evar predict birds.safetensors recordings/ -o table.csv

    It is the path of `evar lineval`: vectors come from the same store, and the probe is chosen in the same way. Test clips
    have no say. With a published split the probe in the file is the one that was tested. With folds the recipe is tested in
    cross-validation, and the probe in the file is then fitted on the clips of all folds. For several labels a clip, a
    threshold of each label is chosen on validation clips.

    The file holds numbers and text, no code: coefficients, classes, thresholds, and the hash of the encoder's checkpoint,
    which is not in it. FILE.md beside it is the model card: clips of each class, score with interval, licences, limits.

    {flags}

    Exit status: 0 the file is written, 2 the command line is wrong or the task cannot be used.
    """
    if not encoder:
        raise UsageError("evar train needs --encoder=NAME; evar encoders lists them")
    if not output:
        raise UsageError("evar train needs -o FILE.safetensors, where the classifier goes")
    from evar.applying.training import train_classifier
    from evar.classifiers.card import list_summary

    done = train_classifier(task, encoder, output, **flags)
    if done.layer_scores:
        shown = ", ".join(f"{name} {100 * score:.1f}" for name, score in list(done.layer_scores.items())[:5])
        write_text(f"best layers on validation clips: {shown}")
    write_text("\n".join(list_summary(done.record)))
    write_text(f"written: {done.path} and {done.card.name}; {done.n_encoded} clips encoded")
    write_text(f"next: evar predict {done.path} FILES -o table.csv")
    return DONE


def predict(
    classifier: str,
    *source: str,
    output: str = "",
    window: str = "",
    hop: str = "",
    labels: str = "",
    min_probability: str = "",
    round: str = "",
    weights: str = "",
    data_root: str = "",
    device: str = "auto",
    batch_size: str = "",
    skip_bad: bool = False,
    trust_code: bool = False,
) -> int:
    """Predict the classes of sounds with a classifier that `evar train` or `evar lineval --save_head` wrote.

    evar predict CLASSIFIER SOURCE... [-o FILE.csv] [flags]

    SOURCE is an audio file, a folder (searched to the bottom, files by name) or a CSV with a column `path`, whose other
    columns are carried along, as for `evar embed`.

    Examples:
      evar predict birds.safetensors recordings/ -o table.csv
      evar predict results/heads/ID.safetensors one.wav two.wav
      evar predict birds.safetensors night.wav --window=3 --hop=1.5 -o windows.csv --labels=night.txt

    Flags:
      --output=FILE, -o FILE   a CSV with a row for each clip, in the order of the source: path, the CSV's columns,
                               predicted, p_CLASS (the probability of each class), problem  (default: a table here)
      --window=X               predict recordings of any length in windows of X seconds: columns start and end
      --hop=X                  seconds from the beginning of a window to that of the next   (default: windows touch)
      --labels=FILE.txt|DIR    the classes of windows as Audacity labels, neighbours joined; a folder gets a file for each
                               recording
      --min_probability=X      of a class, for such a label                                 (default: 0)
      --round=NAME             of a file with a head for each round, such as "fold 1"       (default: their average)
      --weights=PATH           where the encoder's checkpoint is now, if not where the file says
      --data_root=DIR          where the CSV's relative paths begin                         (default: the CSV's folder)
      --device=auto|cpu|cuda|mps                                                            (default: auto)
      --batch_size=N           clips a batch                                                (default: by seconds of audio)
      --skip_bad               unreadable clips are no reason for exit status 1
      --trust_code             import an encoder of an author's own that the file names

    Clips are cut as those of the task were; windows are taken as they are. The last window of a recording may be shorter; it
    is left out if it is shorter than half a window. Labels of a clip are joined by ";", those whose probability reaches the
    threshold in the file; numbers have no probabilities. Encoders whose weights are others than those that the classifier
    was trained on are refused. Exit status: 0 every clip has a prediction, 1 some clip could not be used (its row has no
    values, and `problem` says why), 2 the command line is wrong.
    """
    from evar.applying.classifier import load_classifier
    from evar.applying.tables import TableOptions, predict_files
    from evar.applying.windows import Windows

    size = whole(batch_size, "batch_size")
    if size is not None and size < 1:
        raise UsageError(f"--batch_size must be at least 1, got {size}")
    options = TableOptions(
        round=round,
        data_root=data_root or None,
        windows=Windows.of(decimal(window, "window"), decimal(hop, "hop")),
        labels=Path(labels) if labels else None,
        min_probability=decimal(min_probability, "min_probability") or 0.0,
        batch_size=size,
    )
    loaded = load_classifier(classifier, weights or None, device, trust_code=truth(trust_code, "trust_code"))
    done = predict_files(loaded, source, Path(output) if output else None, options)
    write_text("\n".join(done.lines))
    return SOME_FAILED if done.n_bad and not truth(skip_bad, "skip_bad") else DONE


@takes_flags(SEARCH_FLAGS)
def search(*words: str, like: str = "", unlike: str = "", output: str = "", **flags: Any) -> int:
    """Find the sounds in a file of vectors that are most like a sound, several examples, or a sentence.

    evar search [QUERY] FEATURES [-k N] [--like=A.wav,B.wav] [--unlike=C.wav] [-o FILE.csv] [flags]

    FEATURES is a file that `evar embed` wrote. QUERY is the name of one of its rows (the path, or the end of it), or a sound
    file, which is encoded by the encoder that the file names. A row is not encoded again, and is left out of what is found.

    Examples:
      evar embed clap.laion recordings/ -o features.parquet
      evar search one.wav features.parquet -k 10
      evar search features.parquet --like=a.wav,b.wav --unlike=rain.wav -o found.csv
      evar search features.parquet --text="a dog barks"                 for encoders that read text
      evar search "day.wav#t=12.5" windows.parquet                      the window that begins there
      evar search "other.wav#t=3,6" windows.parquet                     seconds 3 to 6 of another file

    Several examples become one direction: the mean of the positive ones, each scaled to length 1, minus --unlike_weight
    times the mean of the negative ones. The similarity is the cosine, computed exactly and block by block.

    Examples of sounds:
      --like=NAME,NAME               rows or files that are like what is looked for, beside QUERY
      --unlike=NAME,NAME             rows or files that are not
      --output=FILE, -o FILE         write what is found as CSV

    {flags}

    Exit status: 0 found, 2 the command line is wrong or an example cannot be used.
    """
    from evar.applying.finding import find_and_show

    if not 1 <= len(words) <= 2:
        raise UsageError("evar search takes a query and a file of vectors: evar search one.wav features.parquet")
    query, features = (words[0], words[1]) if len(words) == 2 else (None, words[0])
    write_text(find_and_show(features, query, like, unlike, Path(output) if output else None, flags))
    return DONE
