"""experiment.py: a small pair through all of it, and its mistakes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from experiment import main
from far_context.matrix import trainings
from runs import refusal

Tool = Callable[..., str]
ARMS = ["--arm", "mask/baseline", "--arm", "mask/nl_res4", "--seed", "1"]
KEYS = "SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.STEPS ()".split()
KEYS += ["MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "1", "MODEL.RPN.POST_NMS_TOPK_TEST", "3"]
NAMES = ("summary", "main", "attention", "chance")
PAGE = "".join(f"<!-- results:{name} -->\n<!-- /results -->\n" for name in NAMES)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run it; what it prints."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["experiment.py", *map(str, words)])
        main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_a_pair_and_its_report(tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    output = ["--output", tmp_path / "out"]
    small = [*output, *ARMS, "--jobs", "2", "--train", "4", "--val", "2"]
    assert tool(*small, *KEYS).endswith(
        f"2 trainings are finished. What they came to is in {tmp_path}/out/results.jsonl.\n"
    )
    losses = [
        json.loads((tmp_path / "out" / "mask" / arm / "seed_1" / "metrics.json").read_text().splitlines()[0])
        for arm in ("baseline", "nl_res4")
    ]
    assert losses[0]["total_loss"] == losses[1]["total_loss"]  # a new block is the identity
    for mode in ("far", "near"):
        found = tmp_path / "out" / "mask" / "nl_res4" / "seed_1" / "inference" / f"shapes_{mode}_val"
        assert (found / "coco_instances_results.json").is_file()
    listed = [line.split() for line in tool(*output, "--list").splitlines()[2:]]
    finished = [line[:2] for line in listed if line[-1] == "finished"]
    assert finished == [["mask/baseline", "1"], ["mask/nl_res4", "1"]]
    assert len(listed) == len(trainings())
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    tool(*output, "--report", page)
    text = page.read_text()
    assert f"2 of the {len(trainings())} trainings of the matrix are finished" in text
    assert "| mask   | one        | +1 NL in res4 | res4.non_local_5 | 1 " in text
    pictures = sorted(path.name for path in (tmp_path / "docs").iterdir())
    assert pictures == ["attention_back.jpg", "attention_front.jpg", "curves.png"]
    others = refusal(tool, *small, *KEYS, "SOLVER.BASE_LR", "0.1")
    assert others.startswith(f"error: --output {tmp_path / 'out'} holds another experiment, ")
    kept = (tmp_path / "out" / "results.jsonl").rename(tmp_path / "kept.jsonl")
    elsewhere = ["--output", tmp_path / "empty", "--results", kept, "--train", "4", "--val", "2"]
    page.write_text(PAGE)
    tool(*elsewhere, "--report", page, *KEYS)
    assert page.read_text() == text
    assert tool(*elsewhere, *ARMS, *KEYS).startswith("2 trainings are finished.")  # nothing is trained


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--arm", "mask/res4"], "--arm 'mask/res4' matches no arm of the matrix. Its arms are mask/base"),
        (["--seed", "7"], "--seed 7 is not in the matrix. Its seeds are (1, 2, 3)."),
        (["--jobs", "0"], "--jobs must be at least 1; got 0."),
        (["--train", "3"], "--train and --val must be even, as pictures come in pairs; got 3 and 100."),
        (["--train", "2", "--val", "2", "SOLVER.MAX_ITERS", "3"], "'SOLVER.MAX_ITERS' is not a key"),
        (
            ["SOLVER.BASE_LR", "0.1"],
            "SOLVER.BASE_LR is set by mask/concatenation_half_rate. Leave out the key",
        ),
        (["--report", "no.md"], "holds no experiment: it has no experiment.json."),
        (["--list"], "holds no experiment: it has no experiment.json."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes(words: list[str], said: str, tool: Tool, tmp_path: Path) -> None:
    error = refusal(tool, "--output", tmp_path / "out", *words)
    assert error.startswith("error: ")
    assert said in error
