"""The flags of `evar lineval` and `evar finetune`, each described once.

A flag without a value leaves the choice to the protocol, the grid or the code; `None` means this everywhere.
"""

from __future__ import annotations

from dataclasses import replace

from evar.config.flags import Flag

_WHAT, _HOW, _WHERE, _RUN = "What is probed", "How", "Where things are", "How it runs"
_WHAT_SHOWN = "What is shown"

_SHARED = {
    flag.name: flag
    for flag in (
        Flag("seeds", "whole", "N", "repeats where something is random", _HOW, None, "the protocol's, mostly 1"),
        Flag(
            "weights",
            "text",
            "PATH|URL|hf:ORG/NAME|random",
            "another checkpoint; random is the untrained baseline, marked in tables; ENCODER=WHAT,ENCODER=WHAT for some of "
            "several encoders",
            _HOW,
        ),
        Flag(
            "norm_stats",
            "statistics",
            "default|train|task|MEAN,STD",
            "mean and std of the log-mel, for encoders that normalise by them: of the training clips of each round (one "
            "more encode a round), of all clips of the task, or as given; default does what the encoder's paper does",
            _HOW,
        ),
        Flag("data_root", "text", "DIR", "folder that holds the tasks' folders", _WHERE, None, "$EVAR_DATA, ./data"),
        Flag("device", "text", "auto|cpu|cuda|mps", "where the encoder runs", _RUN, "auto", "auto"),
        Flag("limit", "whole", "N", "class-balanced subset: at most N clips of each split or fold", _HOW),
        Flag(
            "out",
            "text",
            "DIR|ADDRESS",
            "results: runs/*.json, table.md, table.csv, plots",
            _WHERE,
            "results",
            "results",
        ),
        Flag(
            "store",
            "text",
            "DIR|ADDRESS",
            "where features live; an address (s3://..., gs://...: what fsspec knows) is worked on in a local mirror",
            _WHERE,
            None,
            "$EVAR_STORE, the user's cache",
        ),
        Flag(
            "skip_bad",
            "switch",
            "",
            "leave unreadable test clips out instead of counting them as wrong",
            _HOW,
            False,
        ),
        Flag(
            "report",
            "switch",
            "",
            "write report.html into the results folder at the end, as `evar report` does",
            _WHERE,
            False,
        ),
        Flag(
            "cost",
            "switch",
            "",
            "show in the tables what a row costs: parameters, seconds per second of audio, width, bytes per clip",
            _WHERE,
            False,
        ),
        Flag("quiet", "switch", "", "show no messages while it works; the table is printed at the end", _RUN, False),
    )
}

#: the flags of `evar lineval`, in the order of its help
LINEVAL_FLAGS: tuple[Flag, ...] = (
    Flag(
        "layers",
        "names",
        "default|all|NAME,NAME",
        "which layers to probe, one row each; a number is a position: 0 the first layer, -1 the last",
        _WHAT,
        None,
        "default",
    ),
    Flag(
        "fusion",
        "text",
        "none|concat|average|pca|weighted|search",
        "make one feature of the layers instead; search tries all layers, pairs and more on validation clips, for all TASKS "
        "at once, at no further encoding, and tests the best beside the default layer, the best single layers and the "
        "weighted sum of all (fusion.md)",
        _WHAT,
        None,
        "none",
    ),
    Flag(
        "objective",
        "text",
        "mean_score|mean_rank",
        "over the tasks, for a search",
        _WHAT,
        None,
        shown_default="mean_score",
    ),
    Flag("max_layers", "whole", "N", "that a search may put together", _WHAT, None, "4"),
    Flag(
        "export",
        "text",
        "NAME",
        "the layers that a search chooses become an encoder of that name (several: ENCODER.NAME)",
        _WHAT,
    ),
    Flag(
        "only",
        "names",
        "ENCODER:TASK,...",
        "these cells of the grid, and no others",
        _WHAT,
    ),
    Flag(
        "protocol",
        "names",
        "NAME,NAME",
        "hyper-parameters, config/protocols/NAME.yaml; several read the same vectors, and protocol_ranks.md compares them",
        _HOW,
        None,
        "linear",
    ),
    _SHARED["seeds"],
    Flag(
        "learning_rate",
        "text",
        "X|search",
        "of a protocol that trains by gradient steps; search: the best of its grid on validation clips",
        _HOW,
    ),
    _SHARED["weights"],
    _SHARED["norm_stats"],
    _SHARED["limit"],
    _SHARED["skip_bad"],
    _SHARED["data_root"],
    _SHARED["out"],
    Flag(
        "save_head",
        "switch",
        "",
        "keep the fitted probe of each row as heads/ID.safetensors, with a model card, for `evar predict`",
        _WHERE,
        False,
    ),
    _SHARED["report"],
    _SHARED["cost"],
    _SHARED["store"],
    _SHARED["device"],
    Flag("batch_size", "whole", "N", "clips a batch", _RUN, None, "by seconds of audio"),
    Flag(
        "frames_gb",
        "decimal",
        "N",
        "disk that the frames of a cell may take, for --protocol=attentive",
        _RUN,
        None,
        "50",
    ),
    Flag(
        "jobs",
        "whole",
        "N",
        "cells at the same time, in processes that share the cores; a killed one costs its own cell only",
        _RUN,
        None,
        "1",
    ),
    Flag("engine", "text", "local|ray", "where they run; ray needs pip install 'evar-audio[ray]'", _RUN, None, "local"),
    Flag(
        "address",
        "text",
        "auto|ray://HOST:PORT",
        "of an existing Ray cluster; results and store then lie on a folder that its nodes share, or at an address",
        _RUN,
        None,
        "one on this machine",
    ),
    _SHARED["quiet"],
    Flag(
        "dry_run",
        "switch",
        "",
        "print what would be computed, what is stored, time and disk; compute nothing",
        _RUN,
        False,
    ),
)

_TRAINING, _SEEN, _AUGMENTED = "Training", "What is trained", "Augmentation, by sample"


def _make_hyper_flag(name: str, kind: str, takes: str, help: str, group: str) -> Flag:
    return Flag(name, kind, takes, help, group, False if kind == "switch" else None, is_hyper_parameter=True)


#: the flags of `evar finetune`, in the order of its help
FINETUNE_FLAGS: tuple[Flag, ...] = (
    Flag("protocol", "text", "NAME", "config/protocols/finetune*.yaml", _TRAINING, "finetune", "finetune"),
    _make_hyper_flag("epochs", "whole", "N", "passes over the training clips", _TRAINING),
    _make_hyper_flag("batch_size", "whole", "N", "clips a step and device", _TRAINING),
    _make_hyper_flag("accumulate", "whole", "N", "batches whose gradients are added up before a step", _TRAINING),
    _make_hyper_flag("learning_rate", "decimal", "X", "of the encoder at its highest", _TRAINING),
    _make_hyper_flag("head_learning_rate", "decimal", "X", "of the head, where it differs", _TRAINING),
    _make_hyper_flag(
        "layer_decay", "decimal", "X", "learning rate of a block as a share of that of the next deeper one", _TRAINING
    ),
    _make_hyper_flag("warmup_epochs", "whole", "N", "over which the learning rate rises", _TRAINING),
    _make_hyper_flag(
        "patience", "whole", "N", "stop after N epochs without improvement on validation clips", _TRAINING
    ),
    _make_hyper_flag("optimizer", "text", "sgd|adamw|lars", "what takes the steps", _TRAINING),
    _make_hyper_flag("weight_decay", "decimal", "X", "of the optimizer", _TRAINING),
    _make_hyper_flag("clip_norm", "decimal", "X", "longest gradient", _TRAINING),
    _make_hyper_flag("ema", "decimal", "X", "decay of the running average of the weights that is tested", _TRAINING),
    _make_hyper_flag(
        "label_smoothing", "decimal", "X", "share of the target that is spread over all classes", _TRAINING
    ),
    replace(_SHARED["seeds"], help="repeats", shown_default="the protocol's", group=_TRAINING),
    _make_hyper_flag(
        "layers",
        "text",
        "default|weighted|NAME+NAME",
        "input of the head: concatenated layers, or a learnable sum of all; a number is a position: 0 the first layer, -1 "
        "the last",
        _SEEN,
    ),
    _make_hyper_flag(
        "freeze",
        "text",
        "none|frontend|encoder|NAME+NAME",
        "parts that are not trained: the convolutions before a transformer, all, or parameters by the start of their names",
        _SEEN,
    ),
    _make_hyper_flag("head_epochs", "whole", "N", "of which only the head is trained, at first", _SEEN),
    _make_hyper_flag("train_frontend", "switch", "", "train the mel filters too", _SEEN),
    replace(_SHARED["weights"], group=_SEEN),
    replace(_SHARED["norm_stats"], group=_SEEN),
    _make_hyper_flag("mixup", "decimal", "ALPHA", "mix pairs of clips", _AUGMENTED),
    _make_hyper_flag("freq_mask", "whole", "BANDS", "hide bands of the log-mel", _AUGMENTED),
    _make_hyper_flag("time_mask", "whole", "FRAMES", "hide frames of the log-mel", _AUGMENTED),
    _make_hyper_flag("rrc", "switch", "", "random resized crops of the log-mel", _AUGMENTED),
    _make_hyper_flag(
        "time_patch_out", "decimal", "SHARE", "hide columns of patches from the encoders that have patches", _AUGMENTED
    ),
    _make_hyper_flag(
        "freq_patch_out", "decimal", "SHARE", "hide rows of patches from the encoders that have patches", _AUGMENTED
    ),
    _SHARED["data_root"],
    _SHARED["out"],
    _SHARED["report"],
    _SHARED["cost"],
    _SHARED["store"],
    _SHARED["limit"],
    _SHARED["skip_bad"],
    _SHARED["device"],
    _make_hyper_flag("amp", "text", "no|bf16|fp16", "mixed precision; needs pip install 'evar-audio[finetune]'", _RUN),
    _make_hyper_flag("compile", "switch", "", "through torch.compile; pays on long trainings", _RUN),
    Flag(
        "tensorboard",
        "switch",
        "",
        "write the curves for TensorBoard too; needs pip install 'evar-audio[finetune]'",
        _RUN,
        False,
    ),
    Flag(
        "resume",
        "switch",
        "",
        "go on from the checkpoints of an interrupted run; --resume=false starts again",
        _RUN,
        True,
        "true",
    ),
    Flag("eval_only", "switch", "", "make rows of encoders whose training is complete; train nothing", _RUN, False),
    _SHARED["quiet"],
)

#: the flags of `evar report`, in the order of its help
REPORT_FLAGS: tuple[Flag, ...] = (
    Flag("file", "text", "FILE.html", "where the page goes", _WHERE, None, "report.html in the results folder"),
    Flag(
        "audio",
        "text",
        "embed|link|none",
        "embed puts short compressed clips into the page, at most 20 MB and 200 of them; link points to the files; none "
        "only names them",
        _WHAT_SHOWN,
        "embed",
        "embed",
    ),
    Flag(
        "maps",
        "text",
        "default|all|none",
        "t-SNE of the stored vectors of the default layers, or of every layer",
        _WHAT_SHOWN,
        "default",
        "default",
    ),
    Flag(
        "published",
        "text",
        "all|none|NAME,FILE.yaml,...",
        "numbers of others that the page offers beside yours",
        _WHAT_SHOWN,
        "all",
        "all",
    ),
    _SHARED["data_root"],
    _SHARED["store"],
)
