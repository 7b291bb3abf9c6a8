"""Config files: what is no config, and what a config says wrongly."""

import shutil
from collections.abc import Callable
from pathlib import Path

import detectron2.model_zoo
import pytest

from nl_detectron import model_zoo
from nl_detectron.config import get_cfg
from nl_detectron.engine.config_loading import merge_file

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
        ("MODEL:", "{file}: 'MODEL' is no section with keys in it."),
        ("1: 2", "{file}: 1 is no section with keys in it."),
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


@pytest.mark.parametrize("where", ["file", "base", "merged base", "key", "recursive"])
def test_code_in_a_config_is_not_run(where: str, refused: Refused, tmp_path: Path) -> None:
    """Detectron2 would follow these tags."""
    marker, file = tmp_path.parent / f"{tmp_path.name}_ran", tmp_path / "evil.yaml"
    evil = f"!!python/object/apply:os.system ['touch {marker}']"
    content = f"? {evil}\n: 1" if where == "key" else f"MODEL: &again {{DEVICE: {evil}}}"
    file.write_text(content if where != "recursive" else f"MODEL: &again {{a: *again, DEVICE: {evil}}}")
    config = file
    if "base" in where:
        config = tmp_path / "config.yaml"
        config.write_text("_BASE_: evil.yaml" if where == "base" else "<<: {_BASE_: evil.yaml}")
    said = refused("--config-file", str(config))
    assert said.startswith(
        f"{file} would run code, by its tag !!python/object/apply:os.system. Write the value"
    )
    assert not marker.exists()


def test_detectron2s_own_tags_are_followed(tmp_path: Path) -> None:
    """The sizes of RetinaNet's anchors are a formula, in its own file and in a copy of it."""
    own = Path(detectron2.model_zoo.get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    for folder in (own.parents[1], tmp_path):
        if folder == tmp_path:
            shutil.copy(own.parents[1] / "Base-RetinaNet.yaml", tmp_path)
        cfg = get_cfg()
        merge_file(cfg, str(folder / "Base-RetinaNet.yaml"))
        assert cfg.MODEL.ANCHOR_GENERATOR.SIZES[0] == [32, 32 * 2 ** (1 / 3), 32 * 2 ** (2 / 3)]
