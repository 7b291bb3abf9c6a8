"""How a user's mistake is refused, and how a command line reports it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.multiprocessing import ProcessExitedException

_INTERRUPTED = 130  # the shell's code for what Ctrl-C has ended


class UserError(ValueError):
    """A user's mistake. The message is one line with the name, the rule, the value and the remedy."""


class ArgumentError(UserError):
    """A refused argument: its name, the rule it broke, the value received and the remedy."""

    def __init__(self, name: str, rule: str, value: object, remedy: str) -> None:
        super().__init__(f"{name} must be {rule}; got {value!r}. {remedy}")
        self.name, self.rule, self.value, self.remedy = name, rule, value, remedy

    def renamed(self, name: str) -> "ArgumentError":
        """The same refusal under the name by which the user gave the value, e.g. a config key."""
        return ArgumentError(name, self.rule, self.value, self.remedy)


@contextmanager
def reported_as_user_errors(what: str) -> Iterator[None]:
    """Within it, whatever a library raises is taken for a user's mistake: `what`, and the reason."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or getattr(error, "filename", None):  # which say it all
            raise
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        message = " ".join(str(reason).split())  # YAML's errors have several lines
        reasons = filter(None, (what, type(error).__name__, message))  # assertions may have no message
        raise UserError(": ".join(reasons)) from error


def wants_tracebacks() -> bool:
    return bool(os.environ.get("NL_DETECTRON_TRACEBACK"))


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Within it, a user's mistake or a file that fails ends the program in one line, with exit code 1.

    Anything else is a bug and keeps its traceback; with NL_DETECTRON_TRACEBACK set, so does everything.
    """
    if wants_tracebacks():
        yield
        return
    try:
        yield
    except (UserError, OSError) as error:
        *_, reason = ["", *str(error).splitlines()]  # a data loader's worker sends its traceback along
        rank = dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))
        process = f" in process {rank}" if rank else ""  # of several
        reason = reason.strip().removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        sys.exit(f"error{process}: {reason or type(error).__name__}")
    except ProcessExitedException as error:  # a process of a launcher
        if error.signal_name:
            sys.exit(f"error: process {error.error_index} was ended by {error.signal_name}")
        sys.exit(error.exit_code)  # which has said why
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
