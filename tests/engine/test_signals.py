"""Ctrl-C and SIGTERM, without a training."""

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from nl_detectron.engine import signals
from nl_detectron.engine.signals import SignalHook


@pytest.fixture
def hook() -> Iterator[SignalHook]:
    """Within step 0 of 10, with an evaluation after every second one."""
    hook = SignalHook(eval_period=2)
    hook.trainer = SimpleNamespace(iter=0, max_iter=10)
    hook.before_train()
    hook.before_step()
    yield hook
    hook.restore()


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_is_finished_first(number: int, hook: SignalHook) -> None:
    send(number)
    with pytest.raises(KeyboardInterrupt):
        hook.after_step()
    assert hook.finished_step == 0


def test_an_evaluation_ends_at_once(hook: SignalHook) -> None:
    hook.trainer.iter = 1
    hook.after_step()
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGTERM)
    assert hook.finished_step == 1


def test_the_last_step_is_followed_by_its_checkpoint(hook: SignalHook) -> None:
    hook.trainer.iter = 9
    send(signal.SIGTERM)
    hook.after_step()
    with pytest.raises(KeyboardInterrupt):
        hook.after_train()


def test_a_second_ctrl_c_ends_everything(hook: SignalHook, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not the same one, which torchrun passes on."""
    hook.after_step()
    hook.before_step()
    send(signal.SIGINT)
    send(signal.SIGINT)
    monkeypatch.setattr(signals, "_ONE_PRESS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    assert hook.finished_step is None  # what the trainer holds is the outcome of no step


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    hook = SignalHook(eval_period=0)
    hook.before_train()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
    hook.restore()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
