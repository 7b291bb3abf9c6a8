"""The wheel: that it carries the configs, and works outside the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, as setuptools writes build/ and *.egg-info where it builds.
    tracked = (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "nl_detectron",
        "nl_detectron_cli",
        "configs",
        "projects",
    )
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in tracked), str(folder)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(folder)], check=True, capture_output=True)
    (path,) = folder.glob("nl_detectron-*.whl")
    return path


@pytest.mark.slow
def test_wheel_carries_every_config(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.*")}
    assert len([name for name in configs if name.endswith(".yaml")]) > 40
    assert len([name for name in configs if name.endswith(".py")]) == 24
    assert {f"nl_detectron/{name}" for name in configs} <= names
    assert not [name for name in names if name.startswith(("tests", "tools", "datasets"))]


@pytest.mark.slow
def test_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    program = (
        "import nl_detectron; from nl_detectron import model_zoo; print(nl_detectron.__file__);"
        "name = 'COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml';"
        "print(model_zoo.get_config(name).MODEL.BACKBONE.NAME);"
        "print(model_zoo.get_config(name.replace('.yaml', '.py')).model.backbone._target_.__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"PYTHONPATH": str(site), "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    place, builder, target = result.stdout.split()
    assert Path(place).is_relative_to(site)
    assert (builder, target) == ("build_nl_resnet_fpn_backbone", "non_local_fpn")
