"""Command lines: flags, and the keys and values after them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nl_detectron.engine import main

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--config-file must be given. The configs are in configs/."),
        (MASK, f"--config-file must be given before '{MASK}'."),
        ("--config-file no.yaml", "--config-file must be a file or a config of nl_detectron; got 'no.yaml'."),
        ("--config-file {tmp}", "--config-file must be a file or a config of nl_detectron; got '{tmp}'."),
        ("--config-file {tmp}/lazy.py", "--config-file must be a YAML; got '{tmp}/lazy.py', a LazyConfig"),
        (
            "--config-file {mask} {mask}",
            "a config must come after --config-file; got '{mask}' where keys are",
        ),
        (
            "--config-file {mask} MODEL.DEVICE cpu --eval-only",
            "--eval-only must come before the config's keys",
        ),
        (
            "--config-file {mask} SOLVER.BASE_LR=0.1",
            "keys and values must be apart, as in SOLVER.BASE_LR 0.1; got",
        ),
        (
            "--config-file {mask} SEED=1 VIS_PERIOD=1",
            "keys and values must be apart, as in SEED 1; got 'SEED=1'",
        ),
        ("--config-file {mask} SOLVER.BASE_LR", "SOLVER.BASE_LR must have a value; got none."),
        ("--config-file {mask} solver.base_lr 0.1", "is not. Did you mean SOLVER.BASE_LR"),
        (
            "--config-file {mask} SOLVER.BASELR 0.1",
            "'SOLVER.BASELR' must be a key of the config, and is not. Did you",
        ),
        ("--config-file {mask} MODEL.NON_LOCALS.RES4 [1]", "Did you mean MODEL.NON_LOCAL.RES4"),
        (
            "--config-file {mask} MODEL.NO_SUCH_KEY 1",
            "'MODEL.NO_SUCH_KEY' must be a key of the config, and is not",
        ),
        (
            "--config-file {mask} MODEL.NON_LOCAL 5",
            "'MODEL.NON_LOCAL' must be a key, not a section of keys, and is",
        ),
        ("--config-file {mask} SEED.X 5", "'SEED.X' must be a key of the config, and is not"),
        (
            "--config-file {mask} lr 5",
            "'lr' must be a key of the config, and is not. Keys are like MODEL.WEIGHTS",
        ),
        (
            "--config-file {mask} --num-gpus 64",
            "--num-gpus must be left out without a GPU (torchrun starts several processes on CPUs); got 64",
        ),
        (
            "--config-file {mask} --num-gpus -1",
            "--num-gpus must be left out without a GPU (torchrun starts several processes on CPUs); got -1",
        ),
        ("--config-file {mask} --skip-broken -1", "--skip-broken must be 0 or more; got -1."),
        ("--config-file {mask} --timeout 0", "--timeout must be above zero, in minutes; got 0."),
        (
            "--config-file {mask} --num-machines 0",
            "--num-machines must be at least 1 and --machine-rank from",
        ),
        ("--config-file {mask} --num-machines 2", "--num-machines must be 1 where there is no GPU; got 2"),
        ("--config-file {mask} --machine-rank 1", "--machine-rank from 0 to one less; got 1 and 1"),
        ("--config-file {mask} --machine-rank -1", "--machine-rank from 0 to one less; got 1 and -1"),
        (
            "--config-file {mask} --auto-scale SOLVER.IMS_PER_BATCH 4",
            "be a positive multiple of 8 (SOLVER.REFER",
        ),
        (
            "--config-file {mask} --eval-only DATASETS.TEST ()",
            "DATASETS.TEST must name a data set to evaluate on",
        ),
        (
            "--config-file {mask} DATASETS.TRAIN ()",
            "DATASETS.TRAIN must name a data set to train on; got none",
        ),
        (
            "--config-file {mask} --resume --eval-only MODEL.WEIGHTS no.pth",
            "MODEL.WEIGHTS must be a file or a URL",
        ),
        ("--config-file {mask} --register-coco a b c d", "'d' must be a key of the config, and is not"),
        ("--config-file {mask} --register-coco a no.json .", "--register-coco a: .*No such file .*'no.json'"),
        ("--config-file {mask} --register-coco a . .", "--register-coco a: .*Is a directory: '.'"),
        (
            "--config-file {mask} --register-coco a {tmp}/lazy.py .",
            "JSON must be a JSON file; got '{tmp}/lazy.py'",
        ),
        ("--config-file {mask} --register-coco a {tmp}/lazy.py no", "IMAGE_DIR must be a folder; got 'no'"),
        (
            "--config-file {mask} --register-coco shapes_val x .",
            "--register-coco must give a new name; got 'shapes_v",
        ),
    ],
)
def test_command_lines(arguments: str, message: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text("train = 1")
    names = {"mask": MASK, "tmp": tmp_path}
    said = refused(*arguments.format(**names).split())
    for part in message.format(**names).split(".*"):
        assert part in said
        said = said.partition(part)[2]
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--no-such-flag", "unrecognized arguments: --no-such-flag"),
        ("--config-file", "argument --config-file: expected one argument"),
        ("--num-gpus x", "argument --num-gpus: invalid int value: 'x'"),
        ("--register-coco name", "argument --register-coco: expected 3 arguments"),
        ("--machine-rank", "argument --machine-rank: expected one argument"),
    ],
)
def test_flags_that_are_none(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """argparse's own way: the usage, a line, and exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {message}")
