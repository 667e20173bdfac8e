"""The event loop's thread and those beside it: whoever of them works, the loop gets the processor as soon as it wakes.

A thread that wakes while another one works on its core may have to wait until that one's slice is over: on Linux some
milliseconds, with a message in hand. Since Linux 6.12 a thread that asks for a shorter slice goes first when it wakes,
and has its share of the processor as before (the kernel's Documentation/scheduler/sched-eevdf.rst).
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_SHORTEST_SECONDS = 0.0001
"""The kernel gives none that is shorter."""
_USUAL = 0.0
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of `sched_setattr`, for which the C library has no function."""


class Attributes(ctypes.Structure):
    """`struct sched_attr`, as sched_setattr(2) has it."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def go_first() -> bool:
    """Let the calling thread, which wakes often and works briefly, go before others when it wakes.

    Whether the system was told so, which not every one can be; an older kernel takes it and does nothing. A thread of
    another policy than the usual stays as it is. Threads that this one makes are like it, unless they `give_way`.
    """
    return _set_slice(_SHORTEST_SECONDS)


def give_way() -> bool:
    """Let the calling thread be as threads are, whoever made it; whether the system was told so."""
    return _set_slice(_USUAL)


def _set_slice(seconds: float) -> bool:
    if sys.platform != "linux":
        return False
    number = _SET_ATTRIBUTES.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    told = Attributes(ctypes.sizeof(Attributes), os.SCHED_OTHER, nice=nice, runtime=round(seconds * 1e9))
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(told), 0) == 0)
