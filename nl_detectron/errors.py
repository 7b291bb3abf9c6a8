"""Users' mistakes, and how a command line reports them."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException

_INTERRUPTED = 130  # the shell's exit code after Ctrl-C


class UserError(ValueError):
    """A known mistake of the user. Its message is one line: what is wrong, and what to do."""


class ArgumentError(UserError):
    """A refused argument: its name, the rule it broke, the value received and the remedy."""

    def __init__(self, name: str, rule: str, value: object, remedy: str) -> None:
        super().__init__(f"{name} must be {rule}; got {value!r}. {remedy}")
        self.name, self.rule, self.value, self.remedy = name, rule, value, remedy

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:  # pickled between processes
        return ArgumentError, (self.name, self.rule, self.value, self.remedy)

    def renamed(self, name: str) -> "ArgumentError":
        """The same refusal under the name by which the user gave the value, such as a config key."""
        return ArgumentError(name, self.rule, self.value, self.remedy)


def wants_tracebacks() -> bool:
    return bool(os.environ.get("NL_DETECTRON_TRACEBACK"))


def is_user_error(error: BaseException | None) -> bool:
    """Whether to report an error in one line: a UserError, a file that fails, a full disk."""
    is_file = isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC)
    return isinstance(error, UserError) or bool(is_file)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program in one line, with exit code 1, for a user's mistake or a file that fails.

    Anything else is a bug and keeps its traceback. With NL_DETECTRON_TRACEBACK set, everything does.
    """
    if wants_tracebacks():
        yield
        return
    try:
        yield
    except (UserError, OSError) as error:
        if not is_user_error(error):
            raise
        reason = str(error)
        if "Traceback (most recent call last)" in reason:  # which a data loader's worker sends along
            last_line = reason.splitlines()[-1]
            reason = last_line.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        reason = " ".join(reason.split())
        rank = dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))
        sys.exit(f"error{f' in process {rank}' if rank else ''}: {reason or type(error).__name__}")
    except ProcessExitedException as error:  # a process of Detectron2's launcher
        if error.signal_name:
            sys.exit(f"error: process {error.error_index} was ended by {error.signal_name}")
        sys.exit(error.exit_code)  # it has said why
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
