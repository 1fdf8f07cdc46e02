"""What every command shares: where it prints, and how an error ends it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from sidecar.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:  # a sidecar that serves prints nothing unless it ends
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

FINDING = 1
USAGE = 2
_ANY_WIDTH = 10_000


def out() -> "Console":
    """Standard output, for what was asked. Into a file or a pipe nothing is folded or cut to a width."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False, emoji=False, width=None if sys.stdout.isatty() else _ANY_WIDTH)


def err() -> "Console":
    """Standard error, for what went wrong and for progress."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def plain(value: object) -> "Text":
    """What came from elsewhere (a record, a file, a peer), for a terminal: no markup, no control characters, one line."""
    from rich.text import Text

    return Text("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value)))


def fail(message: str, code: int) -> NoReturn:
    """Say what is wrong, on one line, and end."""
    err().print(plain(" ".join(message.split())), style="red" if code == FINDING else "yellow")
    raise SystemExit(code)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors a person can mend into one line and an exit code; never a traceback."""
    try:
        yield
    except ConfigurationError as error:
        fail(f"configuration: {error}", USAGE)
    except IntegrityError as error:
        fail(f"damaged: {error}", FINDING)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FINDING) from None
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except OSError as error:
        fail(f"{error.filename or 'system'}: {error.strerror or error}", USAGE)


def progress() -> "Progress":
    """A progress bar on standard error, shown only to people."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=err(), transient=True, disable=not sys.stderr.isatty(),
    )  # fmt: skip
