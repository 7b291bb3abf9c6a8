"""The log says what a run was. That two runs are the same to the bit, test_resume.py shows."""

from pathlib import Path

import soak
import torch

from nl_detectron.engine.run_record import describe_code


def test_the_soak_can_compare_what_a_training_leaves(trained: Path) -> None:
    assert soak.difference(trained, trained) == ""


def test_the_log_says_what_there_was(trained: Path) -> None:
    log = (trained / "log.txt").read_text()
    assert f"nl_detectron {describe_code().removeprefix('nl_detectron ')}, Detectron2 " in log
    for text in (torch.__version__, "Running with full config", "SEED: 1"):
        assert text in log
    assert "This model has 1 non-local block:\n  backbone.bottom_up.res4.non_local_1" in log
