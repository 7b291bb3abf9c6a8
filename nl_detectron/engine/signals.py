"""Ctrl-C and SIGTERM: a training stops after the current step, with a checkpoint."""

import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from types import FrameType
from typing import NoReturn

from detectron2.engine import HookBase
from detectron2.utils import comm

# Seconds that a step may take after SIGTERM. torchrun and the launcher of --num-gpus send it to the other
# processes when one ends, and kill after 30 s.
GRACE = 20.0
_ONE_PRESS = 2.0  # seconds: a launcher passes on what the terminal has sent to its processes already


class SignalHook(HookBase):
    """Raises KeyboardInterrupt between two steps, in all processes after the same one; within an evaluation
    at once. A second Ctrl-C ends everything at once.

    With several processes, one exits GRACE seconds after SIGTERM if its step has not finished: if another is
    gone, it may hang in a collective, where Python runs no handler.

    It belongs after the hooks that change the state of the training, and before those that evaluate, every
    `eval_period` steps.
    """

    def __init__(self, eval_period: int) -> None:
        self.finished_step: int | None = None  # the last one, while what the trainer holds is its outcome
        self._eval_period, self._at_once, self._agreed = eval_period, True, False
        self._requested: float | None = None  # when, in seconds
        self._interrupted = False  # not an Event, whose lock a handler could wait for
        self._before = ExitStack()  # undoes before_train

    def before_train(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers only there
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.signal(number, self._handle) or signal.SIG_DFL  # None: not Python's
            self._before.callback(signal.signal, number, handler)
        if comm.get_world_size() > 1:
            received, sent = socket.socketpair()
            sent.setblocking(False)  # as Python demands
            self._before.callback(sent.close)
            self._before.callback(sent.shutdown, socket.SHUT_RDWR)  # ends the thread, unlike `close`
            self._before.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(sent.fileno()))
            threading.Thread(target=self._end_if_stuck, args=(received,), daemon=True).start()

    def before_step(self) -> None:
        self.finished_step, self._at_once = None, False

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        is_last = done >= self.trainer.max_iter
        self.finished_step = self.trainer.iter
        self._agreed = any(comm.all_gather(self._requested is not None))
        if self._agreed and not is_last:
            self._interrupt()
        # Elsewhere between two steps other processes may be within one, which would wait for this one.
        self._at_once = self._eval_period > 0 and done % self._eval_period == 0
        if self._at_once and self._requested is not None and not is_last:  # since they agreed
            self._interrupt()

    def after_train(self) -> None:
        self._at_once = True  # the last evaluation
        is_asked = self._agreed or self._requested is not None
        if is_asked and self.finished_step == self.trainer.max_iter - 1:
            self._interrupt()

    def disarm(self) -> None:
        """Disable the timer: saving a checkpoint may take longer than GRACE."""
        self._interrupted = True

    def restore(self) -> None:
        """Handle signals as before the training. Call it after the checkpoint is saved: more may come."""
        self.disarm()
        self._before.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._requested is None:
            self._requested = now
            if self._at_once:
                self._interrupt()
            # Not by print or a logger, which this may have interrupted
            name = signal.Signals(number).name
            os.write(sys.__stderr__.fileno(), f"{name} received; stopping after the current step\n".encode())
        elif number == signal.SIGINT and now - self._requested > _ONE_PRESS:
            self.finished_step, self._agreed = None, True
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        self._interrupted = True
        raise KeyboardInterrupt

    def _end_if_stuck(self, received: socket.socket) -> None:
        """A thread: Python sends it the numbers of signals also while the main thread waits in C."""
        with received:
            while number := received.recv(1):  # none after `restore`
                if number == bytes([signal.SIGTERM]) and not self._interrupted:
                    time.sleep(GRACE)
                    if not self._interrupted:
                        _exit_stuck()


def _exit_stuck() -> NoReturn:
    reason = f"SIGTERM was received, and the current step did not finish within {GRACE:g} seconds"
    remedy = "another process has probably ended; see its log, then --resume."
    text = f"error in process {comm.get_rank()}: {reason}: {remedy}\n"
    os.write(sys.__stderr__.fileno(), text.encode())
    os._exit(1)
