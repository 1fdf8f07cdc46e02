"""What a process that serves does with its memory, once everything that stays is there."""

import ctypes
import gc
from typing import Final

YOUNG: Final = 5_000
"""Objects made and not freed before the collector looks at them, instead of 700.

A call through gRPC leaves nine in a circle (its look-up of the handler): a look for every 80 calls would be felt by more
than one caller in a hundred, one for every 550 is not, and lasts about a millisecond.
"""


def settle() -> None:
    """Free what the start has left over, and never look through the rest again. Once, before the doors open.

    The collector goes through every object that it knows, 40 ms long, while every caller waits. What there is by now
    (modules, classes, descriptors, policies) stays until the process ends: it is put aside (`gc.freeze`), and a later
    collection goes through what calls have left only. Something of it that is replaced later is freed as it is let go of,
    but not if it stands in a circle. What the C library keeps for later goes back to the system, where it can do that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    gc.enable()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
