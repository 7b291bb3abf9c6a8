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
        ("", "{file} is not a config: its content is not a YAML mapping such as MODEL: ..."),
        ("just text", "{file} is not a config"),
        ("- MODEL", "{file} is not a config"),
        ("MODEL: a: b", "{file} is not valid YAML: mapping values are not allowed here"),
        ("MODEL:\n\tDEVICE: cpu", "{file} is not valid YAML: .* found character"),
        ("_BASE_: nowhere.yaml", "No such file or directory: '{folder}/nowhere.yaml'"),
        ("_BASE_: {folder}", "Is a directory: '{folder}'"),
        ("_BASE_: config.yaml", "{file}: its _BASE_ leads back to itself."),
        ("MODEL: {NON_LOCALS: {RES4: [1]}}", "'MODEL.NON_LOCALS.RES4' is not .* mean MODEL.NON_LOCAL.RES4"),
        ("MODEL: {NON_LOCAL: {RES4: x}}", "{file}: MODEL.NON_LOCAL.RES4 must be of type list; got 'x'."),
        ("MODEL: {NON_LOCAL: 5}", "{file}: 'MODEL.NON_LOCAL' is a section of keys, not a key."),
        ("MODEL: {MASK_ON: True}\nMODEL: {DEVICE: cpu}", "{file} has 'MODEL' 2 times in one section."),
        ("SOLVER: {STEPS: [1], STEPS: [2]}", "{file} has 'STEPS' 2 times in one section."),
        ("MODEL: {DEVICE: cpu}", "DATASETS.TRAIN is empty. Name a data set."),
        (f"_BASE_: {BASELINE}\nMODEL: {{NON_LOCAL: {{RES4: [-1]}}}}", "RES4 is set, but backbone"),
        (RETINANET, "TEST.AUG is for the boxes and masks of GeneralizedRCNN only"),
    ],
)
def test_config_files(content: str, message: str, refused: Refused, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content.replace("{folder}", str(tmp_path)))
    said = refused("--config-file", str(file))
    for part in message.replace("{file}", str(file)).replace("{folder}", str(tmp_path)).split(".*"):
        assert part in said
        said = said.partition(part)[2]
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
