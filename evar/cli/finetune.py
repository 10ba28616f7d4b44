"""The command that fine-tunes encoders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from evar.cli.terminal import DONE, SOME_FAILED
from evar.cli.words import UsageError, decimal, statistics, truth, whole
from evar.storage.mirror import at_hand


def finetune(
    encoders: str = "",
    tasks: str = "",
    protocol: str = "finetune",
    layers: str = "",
    learning_rate: str = "",
    head_learning_rate: str = "",
    epochs: str = "",
    batch_size: str = "",
    accumulate: str = "",
    optimizer: str = "",
    weight_decay: str = "",
    warmup_epochs: str = "",
    head_epochs: str = "",
    layer_decay: str = "",
    mixup: str = "",
    freq_mask: str = "",
    time_mask: str = "",
    rrc: bool = False,
    time_patch_out: str = "",
    freq_patch_out: str = "",
    freeze: str = "",
    train_frontend: bool = False,
    label_smoothing: str = "",
    clip_norm: str = "",
    ema: str = "",
    patience: str = "",
    amp: str = "",
    compile: bool = False,
    seeds: str = "",
    weights: str = "",
    norm_stats: str = "",
    data_root: str = "",
    device: str = "auto",
    limit: str = "",
    out: str = "results",
    store: str = "",
    skip_bad: bool = False,
    resume: bool = True,
    eval_only: bool = False,
    tensorboard: bool = False,
) -> int:
    """Fine-tuning: encoder and head trained end to end; rows of the same table as `evar lineval`.

    evar finetune ENCODERS TASKS [flags]        (the same: python finetune.py ...)

    The test clips choose nothing: the weights of the epoch with the best validation score are tested once. Where a task has
    no validation split, one is drawn from its training clips by group. Fold tasks train a fresh model for every fold.

    Examples:
      evar finetune crepe.tiny fsdd_digit --protocol=finetune_quick --data_root=/data    minutes on a laptop
      evar finetune ast esc50 --learning_rate=1e-5 --mixup=0.5
      evar lineval results/finetuned/ID/crepe.tiny_fsdd_digit.yaml esc10 --layers=all    the result, as an encoder

    Flags (hyper-parameters default to the protocol's; those given make a table of their own):
      --protocol=NAME                config/protocols/finetune*.yaml                    (default: finetune)
      --layers=default|weighted|NAME+NAME   what the head sees: concatenated, or a learnable sum of all layers;
                                       a number is a position: 0 the first layer, -1 the last
      --learning_rate=X --head_learning_rate=X --layer_decay=X     of encoder and head; share of each block's next deeper one
      --epochs=N --batch_size=N --accumulate=N --warmup_epochs=N --patience=N
      --optimizer=sgd|adamw|lars --weight_decay=X --clip_norm=X --ema=X
      --freeze=none|frontend|encoder|NAME+NAME --head_epochs=N   what stays as it is: the convolutions before a transformer,
                                     all, or parameters by the first words of their names; only the head at first
      --train_frontend               train the mel filters too
      --mixup=ALPHA --freq_mask=BANDS --time_mask=FRAMES --rrc      augmentation, by sample
      --time_patch_out=SHARE --freq_patch_out=SHARE      hide columns and rows of patches from ast and msm_mae
      --label_smoothing=X
      --amp=no|bf16|fp16             mixed precision; needs pip install 'evar-audio[finetune]'
      --compile                      through torch.compile; pays on long trainings
      --tensorboard                  write the curves for TensorBoard too; needs pip install 'evar-audio[finetune]'
      --seeds=N                      repeats                                            (default: the protocol's)
      --resume[=false]               go on from the checkpoints of an interrupted run   (default: true)
      --eval_only                    rows of what was trained to the end; train nothing
      --weights --norm_stats --data_root --device --limit --out --store --skip_bad     as in `evar lineval --help`

    Stop it whenever you like: the same command goes on from its last checkpoint. Several devices: `accelerate launch
    finetune.py ...`. Exit status: 0 all rows are there, 1 some cell failed, 2 the command line is wrong.
    """
    from evar.experiment.request import split_names
    from evar.finetune.run import TuningSettings, run_tuning
    from evar.report import build, terminal_table

    if not encoders or not tasks:
        raise UsageError("expected ENCODERS and TASKS; see `evar encoders` and `evar tasks`")
    given: dict[str, Any] = {}
    texts = {"layers": layers, "optimizer": optimizer, "freeze": freeze, "amp": amp}
    counts = {
        "epochs": epochs, "batch_size": batch_size, "accumulate": accumulate, "warmup_epochs": warmup_epochs,
        "head_epochs": head_epochs, "freq_mask": freq_mask, "time_mask": time_mask, "patience": patience,
    }  # fmt: skip
    numbers = {
        "learning_rate": learning_rate, "head_learning_rate": head_learning_rate, "weight_decay": weight_decay,
        "layer_decay": layer_decay, "mixup": mixup, "label_smoothing": label_smoothing, "clip_norm": clip_norm, "ema": ema,
        "time_patch_out": time_patch_out, "freq_patch_out": freq_patch_out,
    }  # fmt: skip
    given |= {name: text for name, text in texts.items() if text}
    given |= {name: whole(text, name) for name, text in counts.items() if text}
    given |= {name: decimal(text, name) for name, text in numbers.items() if text}
    switches = {"rrc": rrc, "train_frontend": train_frontend, "compile": compile}
    given |= {name: True for name, text in switches.items() if truth(text, name)}
    settings = TuningSettings(
        split_names("encoders", encoders),
        split_names("tasks", tasks),
        protocol=protocol,
        given=given,
        seeds=whole(seeds, "seeds"),
        data_root=data_root or None,
        weights=weights or None,
        norm_stats=statistics(norm_stats, "norm_stats"),
        device=device,
        limit=whole(limit, "limit"),
        out=at_hand(out, "finetuned"),
        store=store or None,
        skip_bad=truth(skip_bad, "skip_bad"),
        resume=truth(resume, "resume"),
        eval_only=truth(eval_only, "eval_only"),
        tensorboard=truth(tensorboard, "tensorboard"),
    )
    outcome = run_tuning(settings)
    if int(os.environ.get("RANK", "0")):  # the first process writes and says what there is
        return SOME_FAILED if outcome.failures else DONE
    written = build(settings.out)
    print("\n" + terminal_table(outcome.rows, outcome.failures, Path(settings.out)))
    print(f"\n{len(outcome.rows)} rows, {outcome.n_new} of them new")
    print(f"written to {out}: " + ", ".join(path.name for path in written))
    return SOME_FAILED if outcome.failures else DONE
