"""Fine-tuning after interruptions: halved batches, damaged files, parts of killed processes, encoders without parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import torch
from toy import Bands

from evar import cli, results
from evar.cli import run
from evar.finetune.checkpoints import load_checkpoint
from evar.finetune.training import Training
from evar.storage.atomic import remove_dead_parts

LOSSES = Training._compute_losses
FAST = ["--epochs=3", "--learning_rate=0.01", "--head_learning_rate=0.1", "--batch_size=8", "--warmup_epochs=0"]


def finetune(root, *words, encoder="toy"):
    status = run(["finetune", encoder, "tones", "--protocol=finetune_quick", *words, f"--out={root / 'results'}"])
    return status, [row for row in results.load_all(root / "results") if row.protocol.startswith("finetune")]


def limit_memory(monkeypatch, most: int, seen: list[int]) -> None:
    """Batches of more clips than `most` do not fit."""

    def losses(self, outputs, targets, training):
        if training:
            seen.append(len(outputs))
            if len(outputs) > most:
                raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return LOSSES(self, outputs, targets, training)

    monkeypatch.setattr(Training, "_compute_losses", losses)


def test_a_halved_batch_is_remembered_and_shown(tones, monkeypatch):
    root = tones()
    seen: list[int] = []
    limit_memory(monkeypatch, 4, seen)
    interrupted = Training._end_epoch

    def end_epoch(self, speed):
        interrupted(self, speed)
        if self.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_end_epoch", end_epoch)
    assert finetune(root, *FAST)[0] not in (cli.DONE, cli.SOME_FAILED)  # interrupted in the second epoch
    (checkpoint,) = (root / "results" / "finetuned").rglob("checkpoint.pt")
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 2
    monkeypatch.setattr(Training, "_end_epoch", interrupted)
    seen.clear()
    status, (row,) = finetune(root, *FAST)
    assert status == cli.DONE and max(seen) == 4  # no batch of 8 is tried again
    assert row.params["chosen"][0]["batch_size"] == 4 and row.params["chosen"][0]["epochs"] == 3
    assert "batches of 4 instead of 8 clips, for lack of memory" in row.flags


def test_too_little_memory_in_a_later_epoch_goes_on_from_the_checkpoint(tones, monkeypatch):
    root = tones()
    seen: list[int] = []
    limit_memory(monkeypatch, 8, seen)
    plain = Training._end_epoch

    def end_epoch(self, speed):
        plain(self, speed)
        if self.epoch == 1:
            limit_memory(monkeypatch, 4, seen)

    monkeypatch.setattr(Training, "_end_epoch", end_epoch)
    status, (row,) = finetune(root, *FAST)
    history = row.params["chosen"][0]
    assert status == cli.DONE and history["epochs"] == 3 and history["batch_size"] == 4
    assert max(seen[:3]) == 8  # the first epoch was not trained again
    assert sum(seen) == 18 + 8 + 2 * 18  # an epoch, the batch that did not fit, and two epochs


def test_only_the_head_of_an_encoder_without_parameters_is_trained(tones, capsys):
    root = tones()
    status, (row,) = finetune(root, *FAST, "--freeze=encoder", encoder="logmel")
    assert status == cli.DONE and row.encoder == "logmel"
    status, _ = finetune(root, *FAST, encoder="logmel")
    assert status == cli.SOME_FAILED and "has no parameters to fine-tune" in capsys.readouterr().out


def test_damaged_files_are_made_again(tones, capsys):
    root = tones()
    _, (row,) = finetune(root, *FAST)
    path = root / "results" / "runs" / f"{row.id}.json"
    (checkpoint,) = (root / "results" / "finetuned").rglob("checkpoint.pt")
    (waveforms,) = (root / "store").rglob("*.f32")
    path.write_text(path.read_text()[:100])
    checkpoint.write_bytes(checkpoint.read_bytes()[:200])
    waveforms.write_bytes(waveforms.read_bytes()[:1000])
    status, (again,) = finetune(root, *FAST)
    out = capsys.readouterr().out
    assert status == cli.DONE and again.score == row.score and again.rounds == row.rounds
    assert f"computing {row.id} again" in out and "is damaged" in out


def test_waveforms_stay_in_the_store_and_parts_of_dead_processes_go(tones, tmp_path):
    root = tones()
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    store, folder = tmp_path / "own" / "store", tmp_path / "own" / "store" / "waveforms"
    folder.mkdir(parents=True)
    part = folder / f"tones-x.{dead.stdout.strip()}.part"
    part.write_bytes(b"half")
    os.utime(part, (1, 1))
    own = folder / f"tones-y.{os.getpid()}.part"
    own.write_bytes(b"being written")
    assert finetune(root, *FAST, f"--store={store}")[0] == cli.DONE
    assert sorted(path.name for path in store.parent.iterdir()) == ["store"]
    assert not part.exists() and own.exists() and len(list(folder.glob("*.f32"))) == 1
    remove_dead_parts(tmp_path / "none")


def test_a_checkpoint_of_something_else_is_no_state(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"weights": torch.zeros(3)}, path)
    assert load_checkpoint(path, torch.device("cpu")) is None and not path.exists()
    assert load_checkpoint(path, torch.device("cpu")) is None


def test_a_row_of_fine_tuning_encodes_nothing_again_after_a_damaged_result(tones):
    root = tones()
    _, (row,) = finetune(root, *FAST)
    path = root / "results" / "runs" / f"{row.id}.json"
    path.write_text("{")
    Bands.calls.clear()
    _, (again,) = finetune(root, *FAST)
    assert json.loads(path.read_text())["id"] == row.id and np.isclose(again.score, row.score)
