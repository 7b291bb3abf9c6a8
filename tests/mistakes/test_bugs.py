"""What is no mistake that we know, such as a bug in a user's own code, keeps its traceback."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from runs import MASK, arguments, run_here

from nl_detectron.engine import Trainer, main
from nl_detectron.errors import ArgumentError, UserError


def build_faulty_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    raise ValueError("a bug")


@pytest.fixture(autouse=True)
def _registered(shapes_root: Path) -> Iterator[None]:
    BACKBONE_REGISTRY.register(build_faulty_backbone)
    yield
    del BACKBONE_REGISTRY._obj_map["build_faulty_backbone"]


@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--eval-only",)], ids=["train", "check", "evaluate"])
def test_a_backbone(flags: tuple[str, ...], tmp_path: Path) -> None:
    words = arguments(MASK, tmp_path, *flags, "MODEL.BACKBONE.NAME", "build_faulty_backbone")
    with pytest.raises(ValueError, match="^a bug$") as raised:
        main(words)
    assert raised.type is ValueError
    assert raised.traceback[-1].name == "build_faulty_backbone"


def test_a_step_of_a_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where images may be skipped."""

    def run_step(trainer: Trainer) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Trainer, "run_step", run_step)
    with pytest.raises(KeyError, match="a bug"):
        run_here(*arguments(MASK, tmp_path, "--skip-broken", "100", "SOLVER.MAX_ITER", "1"))


@pytest.mark.parametrize("key", ["MODEL.RESNETS.DEPTH", "MODEL.ROI_HEADS.NAME"])
def test_what_detectron2_refuses(key: str, tmp_path: Path) -> None:
    """Its own keys are its own to check."""
    value = "51" if key.endswith("DEPTH") else "Heads"
    with pytest.raises(KeyError) as raised:
        main(arguments(MASK, tmp_path, key, value))
    assert not isinstance(raised.value, UserError)


def test_a_mistake_crosses_processes() -> None:
    """Data loaders and pools of processes pickle what they raise."""
    error = ArgumentError("dim", "1, 2 or 3", 4, "Choose one of these.")
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is ArgumentError
    assert (str(other), other.remedy) == (str(error), error.remedy)
