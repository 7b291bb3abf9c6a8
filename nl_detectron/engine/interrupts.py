"""Ctrl-C and SIGTERM: a training ends after the step that is running, with a checkpoint."""

import logging
import signal
import threading
import time
from types import FrameType

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_PRESS = 2.0  # seconds: a launcher passes on what the terminal has sent to its processes already


class Interrupts(HookBase):
    """Raises KeyboardInterrupt where the state of the training is whole: between two steps, in all processes
    after the same one. Evaluation is interrupted at once. A second signal ends everything at once.

    It belongs after the hooks that change the state, and before those that evaluate.

    Attributes:
        finished_step: the number of the last step whose state is whole; None before the first one, and after
            a second signal.
    """

    def __init__(self) -> None:
        self.finished_step: int | None = None
        self._in_step = False
        self._requested: float | None = None  # when, in seconds

    def before_train(self) -> None:
        self._handlers = {}
        if threading.current_thread() is threading.main_thread():  # only there Python lets handle them
            self._handlers = {number: signal.signal(number, self._handle) for number in _SIGNALS}

    def before_step(self) -> None:
        self._in_step = True

    def after_step(self) -> None:
        self.finished_step, self._in_step = self.trainer.iter, False
        is_last = self.trainer.iter == self.trainer.max_iter - 1  # whose evaluation is still to come
        if any(comm.all_gather(self._requested is not None)) and not is_last:
            raise KeyboardInterrupt

    def after_train(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._requested is not None and self.trainer.iter >= self.trainer.max_iter - 1:
            raise KeyboardInterrupt  # before the evaluation after the last step

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested is None:
            self._requested = now
            if not self._in_step:
                raise KeyboardInterrupt
            logger.warning("%s: this ends after the step that is running", signal.Signals(number).name)
        elif now - self._requested > _ONE_PRESS:
            self.finished_step = None
            raise KeyboardInterrupt
