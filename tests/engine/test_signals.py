"""Ctrl-C and SIGTERM, without a training."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from runs import ROOT, finish, free_port, start

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


@pytest.mark.slow
def test_processes_that_hang_end_with_one_line() -> None:
    """The first in a collective of an evaluation, where Python calls no handler; the other within a step."""
    port, grace = free_port(), 1.5
    words = (str(ROOT / "tests" / "engine" / "hanging_step.py"),)
    ranks = [start(ROOT, *words, rank, port, str(grace)) for rank in "01"]
    for rank in ranks:
        assert rank.stdout.readline() == "ready\n"
    time.sleep(0.5)  # for the first to reach the collective
    before = time.monotonic()
    ranks[0].send_signal(signal.SIGTERM)
    printed = finish(ranks[0], 20)
    assert grace <= time.monotonic() - before < grace + 5
    assert ranks[0].returncode == 1
    reason = "SIGTERM was received, and the current step did not finish within 1.5 seconds"
    remedy = "another process has probably ended; see its log, then --resume."
    assert printed == f"error in process 0: {reason}: {remedy}\n"
    ranks[1].send_signal(signal.SIGTERM)
    printed = finish(ranks[1], 20)
    assert ranks[1].returncode == 1
    assert f"error in process 1: {reason}: {remedy}\n" in printed


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which this process would have ended, as one of two that have 1 s after SIGTERM."""
    codes: list[int] = []
    functions = {"get_world_size": lambda: 2, "get_rank": lambda: 1, "all_gather": lambda value: [value]}
    monkeypatch.setattr(signals, "comm", SimpleNamespace(**functions))
    monkeypatch.setattr(signals, "GRACE", 1.0)
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_a_step_that_does_not_end_ends_the_process(exits: list[int], hook: SignalHook) -> None:
    send(signal.SIGINT)  # from a terminal, whose user may wait
    time.sleep(1.5)
    assert exits == []
    send(signal.SIGTERM)
    patience = time.monotonic() + 10
    while not exits and time.monotonic() < patience:
        time.sleep(0.01)
    assert exits == [1]


def test_what_follows_the_step_has_time(exits: list[int], hook: SignalHook) -> None:
    """Its checkpoint, above all."""
    send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        hook.after_step()
    time.sleep(1.5)
    assert exits == []


def test_a_signal_while_the_processes_agree_ends_the_evaluation(
    exits: list[int], hook: SignalHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(value: bool) -> list[bool]:
        send(signal.SIGTERM)
        return [value]

    monkeypatch.setattr(signals.comm, "all_gather", gather)
    hook.trainer.iter = 1
    with pytest.raises(KeyboardInterrupt):
        hook.after_step()
    assert hook.finished_step == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_the_wakeup_descriptor_of_before_comes_back(
    processes: int, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process has no timer and leaves it alone."""
    monkeypatch.setattr(signals.comm, "get_world_size", lambda: processes)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threads = threading.enumerate()  # others may end meanwhile
    try:
        signal.set_wakeup_fd(writing)
        hook = SignalHook(eval_period=0)
        hook.before_train()
        started = [thread for thread in threading.enumerate() if thread not in threads]
        assert len(started) == processes - 1
        hook.restore()
        assert signal.set_wakeup_fd(-1) == writing
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reading)
        os.close(writing)
    patience = time.monotonic() + 5
    while any(thread.is_alive() for thread in started):
        assert time.monotonic() < patience
        time.sleep(0.01)
