"""Threads beside the event loop: whoever of them works, the loop gets the processor as soon as it wakes.

A thread that wakes while another one works on its core may have to wait until that one's slice is over: on Linux some
milliseconds, with a message in hand. Since Linux 6.12 a thread that asks for a long slice lets those with shorter ones
go first, and has its share of the processor all the same (the kernel's Documentation/scheduler/sched-eevdf.rst).
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

_SLICE_SECONDS = 0.05
"""The kernel's own are some milliseconds; it takes a tenth of a second at most."""
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


def give_way() -> bool:
    """Let whichever thread wakes go before the calling one; whether the system was told so, which not every one can be.

    A kernel that is older takes it and does nothing. Where threads run by another policy than the usual it stays as
    it is.
    """
    if sys.platform != "linux":
        return False
    number = _SET_ATTRIBUTES.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    told = Attributes(ctypes.sizeof(Attributes), os.SCHED_OTHER, nice=nice, runtime=round(_SLICE_SECONDS * 1e9))
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(told), 0) == 0)
