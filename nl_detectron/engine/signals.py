"""Ctrl-C and SIGTERM: a training stops after the current step, with a checkpoint."""

import os
import signal
import sys
import threading
import time
from types import FrameType

from detectron2.engine import HookBase
from detectron2.utils import comm

_ONE_PRESS = 2.0  # seconds: a launcher passes on what the terminal has sent to its processes already


class SignalHook(HookBase):
    """Raises KeyboardInterrupt between two steps, in all processes after the same one; within an evaluation
    at once. A second Ctrl-C ends everything at once.

    It belongs after the hooks that change the state of the training, and before those that evaluate, every
    `eval_period` steps.
    """

    def __init__(self, eval_period: int) -> None:
        self.finished_step: int | None = None  # the last one, while what the trainer holds is its outcome
        self._eval_period, self._at_once, self._agreed = eval_period, True, False
        self._requested: float | None = None  # when, in seconds
        self._handlers: dict[int, object] = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._handlers = {number: signal.signal(number, self._handle) for number in numbers}

    def before_step(self) -> None:
        self.finished_step, self._at_once = None, False

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        self.finished_step = self.trainer.iter
        self._agreed = any(comm.all_gather(self._requested is not None))
        if self._agreed and done < self.trainer.max_iter:
            raise KeyboardInterrupt
        # Elsewhere between two steps other processes may be within one, which would wait for this one.
        self._at_once = self._eval_period > 0 and done % self._eval_period == 0

    def after_train(self) -> None:
        self._at_once = True  # the last evaluation
        if self._agreed and self.trainer.iter >= self.trainer.max_iter - 1:
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Handle signals as before the training. Call it after the checkpoint is saved: more may come."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: one that Python has not installed
        self._handlers = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested is None:
            self._requested = now
            if self._at_once:
                raise KeyboardInterrupt
            # Not by print or a logger, which this may have interrupted
            name = signal.Signals(number).name
            os.write(sys.__stderr__.fileno(), f"{name} received; stopping after the current step\n".encode())
        elif number == signal.SIGINT and now - self._requested > _ONE_PRESS:
            self.finished_step, self._agreed = None, True
            raise KeyboardInterrupt
