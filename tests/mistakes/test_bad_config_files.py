"""Config files: what is no config, and what a config says wrongly."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nl_detectron import model_zoo

BASELINE = model_zoo.get_config_file("quick_schedules/mask_rcnn_R_18_FPN_shapes.yaml")
RETINANET = """
MODEL: {META_ARCHITECTURE: RetinaNet, DEVICE: cpu, RETINANET: {NUM_CLASSES: 4}}
DATASETS: {TRAIN: [shapes_train]}
TEST: {AUG: {ENABLED: True}}
"""
Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{file} must be a YAML of sections and keys, like MODEL: ...; it is not."),
        ("just text", "{file} must be a YAML of sections and keys"),
        ("- MODEL", "{file} must be a YAML of sections and keys"),
        ("MODEL: a: b", "{file}: ScannerError: mapping values are not allowed here"),
        (
            "MODEL:\n\tDEVICE: cpu",
            "{file}: ScannerError: .* found character '\\t' that cannot start any token",
        ),
        (b"\x80", "{file}: UnicodeDecodeError: 'utf-8' codec can't decode byte 0x80"),
        (
            "_BASE_: nowhere.yaml",
            "{file}: its _BASE_ {folder}/nowhere.yaml cannot be read: No such file or dir",
        ),
        ("_BASE_: {folder}", "{file}: its _BASE_ {folder} cannot be read: Is a directory."),
        ("_BASE_: config.yaml", "{file}: its _BASE_ leads back to itself."),
        ("_BASE_: 5", "{file}: its _BASE_ must be the path of a config, and is not."),
        ("MODEL: 5", "'MODEL' must be a key, not a section of keys, and is not."),
        ("MODEL:", "'MODEL' must be a key, not a section of keys, and is not."),
        ("5: 6", "'5' must be a key of the config, and is not."),
        (
            "MODEL: {NON_LOCALS: {RES4: [1]}}",
            "'MODEL.NON_LOCALS.RES4' must be a key .* mean MODEL.NON_LOCAL.RES4",
        ),
        ("MODEL: {NON_LOCAL: {RES4: x}}", "MODEL.NON_LOCAL.RES4 must be a list; got 'x'."),
        ("MODEL: {NON_LOCAL: 5}", "'MODEL.NON_LOCAL' must be a key, not a section of keys, and is not."),
        ("SOLVER: {BASE_LR: 1}", "SOLVER.BASE_LR must be a number with a point; got 1. Write 1 as 1.0."),
        (
            "MODEL: {MASK_ON: True}\nMODEL: {DEVICE: cpu}",
            "{file} must have each key once; 'MODEL' is there 2 times.",
        ),
        ("SOLVER: {STEPS: [1], STEPS: [2]}", "{file} must have each key once; 'STEPS' is there 2 times."),
        ("VERSION: 3", "{file}: AssertionError: Cannot merge a v3 config into a v2 config."),
        ("MODEL: {DEVICE: cpu}", "DATASETS.TRAIN must name a data set to train on; got none."),
        (
            f"_BASE_: {BASELINE}\nMODEL: {{NON_LOCAL: {{RES4: [-1]}}}}",
            "RES4 must be left alone where nothing reads it",
        ),
        (RETINANET, "TEST.AUG.ENABLED must be False for this model; got True."),
    ],
)
def test_config_files(content: str | bytes, message: str, refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(
        content if isinstance(content, bytes) else content.replace("{folder}", str(tmp_path)).encode()
    )
    said = refused("--config-file", str(file))
    for part in message.replace("{file}", str(file)).replace("{folder}", str(tmp_path)).split(".*"):
        assert part in said
        said = said.partition(part)[2]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
