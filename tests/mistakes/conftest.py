"""How every mistake is answered: one line, exit code 1, and nothing half-written."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runs import refusal, registrations_forgotten

from nl_detectron.engine import main

Refused = Callable[..., str]


@pytest.fixture
def refused(without_gpu: None, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run train_net.py on a machine without a GPU: the message of its refusal."""
    monkeypatch.chdir(tmp_path)  # ./output would be here

    def run(*words: str) -> str:
        message = refusal(main, words)
        assert not [*tmp_path.rglob("model_*.pth"), *tmp_path.rglob("last_checkpoint")]
        assert message.startswith("error: ")  # which Python prints, and the exit code is 1
        return message.removeprefix("error: ")

    return run


@pytest.fixture
def forget() -> Iterator[None]:
    """Data sets that a test registers are gone after it."""
    with registrations_forgotten():
        yield
