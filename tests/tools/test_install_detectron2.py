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
        assert old not in text.replace(new or "\0", "")


def test_another_source_is_noticed(tmp_path: Path) -> None:
    """Files that hold just what the mends look for, but for the last."""
    *others, (last, missing, _) = install_detectron2.MENDS
    for name, old, _ in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / name).open("a") as file:
            file.write(old)
    with pytest.raises(SystemExit, match=f"error: {last} lacks .*: this is not Detectron2 0.5"):
        install_detectron2.mend(tmp_path)
    with (tmp_path / last).open("a") as file:
        file.write(f"import pkg_resources\n{missing}")
    (tmp_path / "export" / "__init__.py").write_text("from .api import *\n")
