"""The mends of Detectron2 0.5: that a wrong source is noticed, and what the installed build can do."""

import importlib.util
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import detectron2
import pytest

TOOL = Path(__file__).parents[2] / "tools" / "install_detectron2.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_detectron2", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def source_tree(tool: ModuleType, folder: Path) -> Path:
    """Files that hold just what the mends look for."""
    for name, replacements in tool.MENDS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(old * count for old, _, count in replacements))
    return folder


@pytest.mark.skipif(version("detectron2") != "0.5+pure", reason="is about the pure-Python build")
def test_every_mend_is_in_the_installed_build(tool: ModuleType) -> None:
    package = Path(detectron2.__file__).parent
    for name, replacements in tool.MENDS.items():
        text = (package / name).read_text()
        for old, new, count in replacements:
            assert text.count(new) >= count
            assert text.replace(new, "").count(old) == 0


def test_another_source_is_noticed(tool: ModuleType, tmp_path: Path) -> None:
    package = source_tree(tool, tmp_path)
    (package / "data" / "build.py").write_text("dtype=np.int)\n")
    with pytest.raises(SystemExit, match=r"error: data/build.py has 0 times"):
        tool.mend(package)


def test_an_importable_detectron2_is_kept(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["install_detectron2.py"])
    monkeypatch.setattr(tool, "build_wheel", lambda folder: pytest.fail("built it all the same"))
    tool.main()
    place = Path(detectron2.__file__).parent
    assert capsys.readouterr().out == f"Detectron2 {detectron2.__version__} at {place} is kept\n"


@pytest.mark.skipif(version("detectron2") != "0.5+pure", reason="is about the pure-Python build")
def test_missing_operators_say_so() -> None:
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    with pytest.raises(ImportError, match=r"box_iou_rotated .* install upstream Detectron2"):
        pairwise_iou_rotated(None, None)


def test_what_used_to_need_caffe2_and_removed_names_imports() -> None:
    for name in ("export", "utils.analysis", "model_zoo", "projects.point_rend", "evaluation"):
        assert importlib.import_module(f"detectron2.{name}")
