"""A finished training, which several files look at, and dry runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from runs import MASK, STEPS, arguments, load_config, run_here

from nl_detectron.engine import main

DryRun = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture(scope="session")
def trained(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training with STEPS: model_0000001.pth and model_final.pth. Don't write into it."""
    output = tmp_path_factory.mktemp("trained") / "run"
    run_here(*arguments(MASK, output, *STEPS))
    return output


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A folder of one's own with the checkpoints of `trained`. Replace them; don't write into them."""
    folder = tmp_path / "copied"
    folder.mkdir()
    for checkpoint in trained.glob("*.pth"):
        (folder / checkpoint.name).hardlink_to(checkpoint)
    (folder / "last_checkpoint").write_text("model_final.pth")
    return folder


@pytest.fixture
def small_cfg(shapes_root: Path, tmp_path: Path) -> CfgNode:
    """The config of `trained`, with a folder of its own, which is there."""
    (tmp_path / "output").mkdir()
    return load_config(*arguments(MASK, tmp_path / "output", *STEPS))


@pytest.fixture
def dry_run(shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> DryRun:
    """Run --dry-run on a config: the exit code, and the line of each check by its name."""

    def run(*options: str, config: str = MASK) -> tuple[int, dict[str, str]]:
        capsys.readouterr()
        output = () if "OUTPUT_DIR" in options else ("OUTPUT_DIR", str(tmp_path / "output"))
        with pytest.raises(SystemExit) as stopped:
            main(["--config-file", config, "--dry-run", *options, "MODEL.DEVICE", "cpu", *output])
        printed = capsys.readouterr().out.splitlines()
        lines = [line for line in printed if line[:6] in ("ok    ", "warn  ", "FAIL  ")]
        failed = sum(line.startswith("FAIL") for line in lines)
        assert printed[-1] == (f"{failed} of the checks failed." if failed else "All checks passed.")
        return stopped.value.code, {line[6:].split(": ")[0]: line for line in lines}

    return run
