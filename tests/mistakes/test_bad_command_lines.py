"""Command lines: flags, and the keys and values after them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from runs import MASK

from nl_detectron.engine import main

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Give a --config-file, such as quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml. All are in"),
        (MASK, f"Give a --config-file before '{MASK}', such as"),
        (
            "--config-file mask_rcnn_R_50_FPN_nl_1x.yaml",
            "Did you mean COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml?",
        ),
        (
            "--config-file keypoint_rcnn_R_101_FPN_nl.yml",
            "Did you mean COCO-Keypoints/keypoint_rcnn_R_101_FPN",
        ),
        ("--config-file {mask} MODEL.NON_LOCAL.RES4 -1", "must be of type list; got '-1'. Write \"[-1]\"."),
        (
            "--config-file {mask} DATASETS.TRAIN birds",
            "must be of type tuple; got 'birds'. Write \"('birds',)\".",
        ),
        ("--config-file no.yaml", "--config-file 'no.yaml' is neither a file nor a shipped config."),
        ("--config-file {tmp}", "--config-file '{tmp}' is neither a file nor a shipped config."),
        ("--config-file {tmp}/lazy.py", "--config-file '{tmp}/lazy.py' is a LazyConfig."),
        ("--config-file {mask} {mask}", "'{mask}' is not a key of the config."),
        ("--config-file {mask} MODEL.DEVICE cpu --eval-only", "before the config's keys; move --eval-only."),
        ("--config-file {mask} SOLVER.BASE_LR=0.1", "Write SOLVER.BASE_LR 0.1 with a space"),
        ("--config-file {mask} SEED=1 VIS_PERIOD=1", "Write SEED 1 with a space"),
        ("--config-file {mask} SOLVER.BASE_LR", "SOLVER.BASE_LR needs a value."),
        ("--config-file {mask} solver.base_lr 0.1", "Did you mean SOLVER.BASE_LR"),
        ("--config-file {mask} SOLVER.BASELR 0.1", "'SOLVER.BASELR' is not a key of the config. Did you"),
        ("--config-file {mask} MODEL.NON_LOCALS.RES4 [1]", "Did you mean MODEL.NON_LOCAL.RES4"),
        ("--config-file {mask} MODEL.NON_LOCAL 5", "'MODEL.NON_LOCAL' is a section of keys, not a key."),
        ("--config-file {mask} SEED.X 5", "'SEED.X' is not a key of the config."),
        ("--config-file {mask} lr 5", "'lr' is not a key of the config. Keys are like MODEL.WEIGHTS"),
        ("--config-file {mask} SOLVER.BASE_LR x", "SOLVER.BASE_LR must be of type float; got 'x'."),
        (
            "--config-file {mask} DATASETS.TRAIN shapes_train",
            "of type tuple; got 'shapes_train'. Write",
        ),
        ("--config-file {mask} --num-gpus 64", "--num-gpus is 64.*start them with torchrun"),
        ("--config-file {mask} --num-machines 2", "2 machines .*start them with torchrun"),
        ("--config-file {mask} DATASETS.TRAIN ()", "DATASETS.TRAIN is empty. Name a data set."),
        ("--config-file {mask} --resume --eval-only MODEL.WEIGHTS no.pth", "MODEL.WEIGHTS 'no.pth' does not"),
        ("--config-file {mask} --register-coco a b c d", "'d' is not a key of the config."),
        ("--config-file {mask} --register-coco a no.json .", "--register-coco a: .*No such file .*'no.json'"),
        ("--config-file {mask} --register-coco a . .", "--register-coco a: .*Is a directory: '.'"),
        ("--config-file {mask} --register-coco a {tmp}/lazy.py .", "{tmp}/lazy.py is not a JSON file"),
        ("--config-file {mask} --register-coco a {tmp}/lazy.py no", "IMAGE_DIR 'no' is not a folder"),
        ("--config-file {mask} --register-coco shapes_val x .", "shapes_val: another data set has this name"),
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
