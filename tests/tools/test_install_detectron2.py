"""The mends of Detectron2 0.5: that a wrong source is noticed, and what the installed build can do."""

import importlib
from importlib.metadata import version
from pathlib import Path

import detectron2
import install_detectron2
import pytest

of_the_pure_build = pytest.mark.skipif(
    version("detectron2") != install_detectron2.VERSION, reason="is about the pure-Python build"
)


@of_the_pure_build
def test_every_mend_is_in_the_installed_build() -> None:
    package = Path(detectron2.__file__).parent
    for name, old, new in install_detectron2.MENDS:
        text = (package / name).read_text()
        assert new in text
        assert old not in text.replace(new, "")


def test_another_source_is_noticed(tmp_path: Path) -> None:
    """Files that hold just what the mends look for, but for one text of two in data/build.py."""
    for name, old, _ in install_detectron2.MENDS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("a") as file:
            file.write(old)
    (tmp_path / "data" / "build.py").write_text("dtype=np.int)\n")
    with pytest.raises(SystemExit, match=r"error: data/build.py lacks 'np.int\\n': this is not Detectron2"):
        install_detectron2.mend(tmp_path)


def test_an_importable_detectron2_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["install_detectron2.py"])
    monkeypatch.setattr(install_detectron2, "build_wheel", lambda _: pytest.fail("a wheel is built"))
    install_detectron2.main()
    place = Path(detectron2.__file__).parent
    assert capsys.readouterr().out == f"Detectron2 {detectron2.__version__} at {place} is kept\n"


@of_the_pure_build
def test_missing_operators_say_so() -> None:
    from detectron2.layers.rotated_boxes import pairwise_iou_rotated

    with pytest.raises(ImportError, match=r"box_iou_rotated .*(?i:install upstream Detectron2)"):
        pairwise_iou_rotated(None, None)


def test_what_used_to_need_caffe2_and_removed_names_imports() -> None:
    for name in ("export", "utils.analysis", "model_zoo", "projects.point_rend", "evaluation"):
        assert importlib.import_module(f"detectron2.{name}")
