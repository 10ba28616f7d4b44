"""The command line: wrong words fail before any work is done, and the commands print what they promise."""

from __future__ import annotations

import re

import pytest
from toy import Bands

from evar import cli, config
from evar.cli import run
from evar.cli.lineval import lineval
from evar.cli.words import UsageError, check_words

USAGE = [
    (["toy", "tones", "--layer=all"], "no flag --layer; did you mean --layers"),
    (["toy", "tones", "--limits", "3"], "no flag --limits; did you mean --limit"),
    (["toy", "tones", "--colour=red"], "no flag --colour; it has --encoders"),
    (["toy", "tones", "-l", "3"], "no flag -l"),
    (["toy", "tones", "more"], "takes at most 2 words .*got 3"),
    (["toy", "tones", "--limit=3", "--limit=4"], "--limit is given twice"),
    (["toy", "tones", "--encoders=toy"], "encoders is given twice"),
    (["toy", "tones", "--limit"], "--limit needs a value"),
    (["toy", "tones", "--limit", "--dry_run"], "--limit needs a value"),
]


@pytest.mark.parametrize(("words", "message"), USAGE)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        check_words("lineval", lineval, words)


@pytest.mark.parametrize("words", [words for words, _ in USAGE])
def test_wrong_words_do_no_work(tones, capsys, words):
    root = tones()
    assert run(["lineval", *words, f"--out={root / 'results'}"]) == cli.WRONG
    assert not Bands.calls and not (root / "results").exists() and not (root / "store").exists()
    captured = capsys.readouterr()
    assert captured.err.startswith("evar lineval") and captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toyy", "tones"], "no encoder 'toyy'.*did you mean 'toy'"),
        (["toy", "tone"], "no task 'tone'.*did you mean 'tones'"),
        (["toy", "tones", "--layers=band"], "no layer 'band' in toy; it has level, bands; did you mean 'bands'"),
        (["toy", "tones", "--protocol=liner"], "no protocol 'liner'.*did you mean 'linear'"),
        (["toy", "tones", "--fusion=concatenate"], "no fusion 'concatenate'.*did you mean 'concat'"),
        (["toy", "tones", "--fusion=concat"], "--fusion needs --layers"),
        (["toy", "tones", "--limit=ten"], "--limit must be a whole number, got 'ten'"),
        (["toy", "tones", "--limit=1"], "--limit must be at least 2"),
        (["toy", "tones", "--seeds=0"], "seeds must be at least 1"),
        (["toy", "tones", "--norm_stats=3"], "--norm_stats must be default, train, task, or two numbers"),
        (["toy", "tones", "--norm_stats=trian"], "no norm_stats 'trian'.*did you mean 'train'"),
        (["toy", "tones", "--norm_stats=1,0"], "standard deviation above 0"),
        (["toy", "tones", "--device=cuda:7"], "device 'cuda:7' is not available here.*try auto"),
        (["toy", "tones", "--dry_run=perhaps"], "--dry_run must be true or false"),
        (["toy"], "expected ENCODERS and TASKS, or a grid, got 'toy' alone"),
        (["toy,toy", "tones"], "encoders must be named once each"),
        (["toy,toy_broken", "tones", "--weights=x.pth"], "--weights=x.pth is one checkpoint for one encoder"),
    ],
)
def test_wrong_values_fail_before_any_work(tones, capsys, words, message):
    root = tones()
    assert run(["lineval", *words, f"--out={root / 'results'}"]) == cli.WRONG
    captured = capsys.readouterr()
    assert not Bands.calls and not (root / "results").exists()
    assert captured.err.count("\n") == 1
    assert re.search(message, captured.err), captured.err


def test_values_stay_text_as_typed(tones, monkeypatch):
    """Words that look like numbers, tuples or None stay text."""
    seen = {}
    tones()

    def capture(encoders="", tasks="", out="", weights="", limit=""):
        seen.update(encoders=encoders, tasks=tasks, out=out, weights=weights, limit=limit)
        return 0

    monkeypatch.setitem(cli.COMMANDS, "lineval", capture)
    assert run(["lineval", "a.b,c", "1e5", "--out=2026", "--weights=None", "--limit=[1,2]"]) == 0
    assert seen == {"encoders": "a.b,c", "tasks": "1e5", "out": "2026", "weights": "None", "limit": "[1,2]"}


def test_unknown_command_and_overview(capsys):
    assert run(["linval"]) == cli.WRONG
    assert "no command 'linval'" in capsys.readouterr().err
    assert run([]) == cli.DONE
    overview = capsys.readouterr().out
    assert all(f"evar {name}" in overview for name in cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_teaches(name, capsys):
    assert run([name, "--help"]) == cli.DONE
    assert f"evar {name}" in capsys.readouterr().out


def test_layers_lists_name_width_hop_depth(tones, capsys):
    tones()
    assert run(["layers", "toy"]) == cli.DONE
    out = capsys.readouterr().out
    assert "8000 Hz" in out and "bands*" in out and "400 (50 ms)" in out and "0.50" in out and "1.00" in out


def test_encoders_and_tasks_are_listed(tones, capsys):
    root = tones()
    (root / "data" / "tones" / "low_3.wav").unlink()
    assert run(["encoders"]) == run(["tasks"]) == cli.DONE
    out = capsys.readouterr().out
    assert "toy_fragile" in out and "crepe.tiny" in out and "1 of 36 missing" in out and "CC-BY-3.0" in out


def test_the_list_of_encoders_fits_a_terminal_and_one_entry_is_whole(capsys):
    assert run(["encoders"]) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and all(name in "\n".join(lines) for name in config.names("encoders"))
    assert run(["encoders", "cnn14.fusion_3_6"]) == cli.DONE
    out = capsys.readouterr().out
    for fact in ("blocks 3 and 6 fused, 6144-d", "variant of:", "block3, block6", "https://zenodo.org", "CC BY 4.0"):
        assert fact in out
    assert run(["encoders", "cnn15"]) == cli.WRONG
    assert "did you mean 'cnn14" in capsys.readouterr().err


def test_encoders_are_found_by_words_of_their_entries(capsys):
    assert run(["encoders", "--search=million song"]) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:] if line][:1] == ["musicnn.msd"] and max(map(len, lines)) <= 100
    assert "crepe.tiny" not in "".join(lines)
    assert run(["encoders", "--search=no-such-word"]) == cli.WRONG
    assert "no encoder has no-such-word in its entry; `evar encoders` lists all" in capsys.readouterr().err


def test_verify_reports_and_exits(tones, capsys):
    root = tones()
    assert run(["verify", "tones"]) == cli.DONE
    assert "36 of 36 clips are as published" in capsys.readouterr().out
    (root / "data" / "tones" / "low_3.wav").write_bytes(b"x")
    assert run(["verify", "tones"]) == cli.SOME_FAILED
    assert "undecodable: low_3.wav" in capsys.readouterr().out
    assert run(["verify"]) == cli.WRONG


def test_store_ls_and_prune(tones, capsys):
    root = tones()
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    capsys.readouterr()
    assert run(["store"]) == run(["store", "ls"]) == cli.DONE
    assert "toy" in capsys.readouterr().out
    assert run(["store", "prune", "--encoder=toy"]) == cli.DONE
    assert run(["store", "ls"]) == cli.DONE
    assert "0.0 MB" in capsys.readouterr().out
    assert run(["store", "clean"]) == cli.WRONG


def test_the_list_of_tasks_and_the_overview_fit_a_terminal(capsys):
    assert run(["tasks", "--data_root=nowhere"]) == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and all(name in "\n".join(lines) for name in config.names("tasks"))
    assert run([]) == cli.DONE
    overview = capsys.readouterr().out
    assert max(map(len, overview.splitlines())) <= 100
    assert [
        word for word in ("compare:", "use:", "make:", "look:") if word in overview
    ] and "to be there." not in overview
