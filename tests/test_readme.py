"""The README's Python examples run as they stand, and the files and commands that it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(PYTHON) == 2
    assert all("nl_detectron" in example for example in PYTHON)


@pytest.mark.parametrize("example", PYTHON, ids=["built model", "config"])
def test_example_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert any("non_local_" in name for name, _ in names["model"].named_modules())


def test_what_it_names_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    paths = re.findall(r"`(configs/[\w-]+/)`", README) + re.findall(r"--config-file (configs/\S+)", README)
    scripts = re.findall(r"^python (\S+)", README, re.MULTILINE)
    assert links
    assert paths
    assert scripts
    assert [name for name in (*links, *paths, *scripts) if not (ROOT / name).exists()] == []
