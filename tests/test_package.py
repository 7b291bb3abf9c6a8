"""The wheel: that it carries the configs and the command, and works outside the checkout."""

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
    files = ("pyproject.toml", "README.md", "LICENSE")
    folders = ("nl_detectron", "nl_detectron_cli", "configs", "projects")
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in files + folders), str(folder)], check=True)
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


def run_outside(site: Path, program: str) -> str:
    """What a program prints that finds our packages in `site` alone, in the folder above it."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"PYTHONPATH": str(site), "PATH": ""},
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout


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
    printed = run_outside(site, program)
    place, builder, target = printed.split()
    assert Path(place).is_relative_to(site)
    assert (builder, target) == ("build_nl_resnet_fpn_backbone", "non_local_fpn")


@pytest.mark.slow
def test_the_command_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """All modules of its programs are there; a program runs in any folder."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (points,) = site.glob("*.dist-info/entry_points.txt")
    assert points.read_text().split() == [
        "[console_scripts]",
        "nl-detectron",
        "=",
        "nl_detectron_cli.command:main",
    ]
    program = (
        "import nl_detectron_cli as cli, pkgutil; from importlib import import_module;"
        "names = [each.name for each in pkgutil.walk_packages(cli.__path__, 'nl_detectron_cli.')];"
        "print({import_module(name).__file__.partition('nl_detectron_cli')[0] for name in names}, *names);"
        "cli.command.main(['analyze', '--config-file', 'configs/quick_schedules'])"
    )
    printed = run_outside(site, program)
    modules, *table = printed.splitlines()
    here = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "nl_detectron_cli").rglob("*.py")]
    expected = {".".join(path.parts).removesuffix(".__init__") for path in here} - {"nl_detectron_cli"}
    assert modules.split()[0] == repr({f"{site}/"})
    assert set(modules.split()[1:]) == expected
    assert any(line.startswith("mask_rcnn_R_18_FPN_nl_shapes ") for line in table)
