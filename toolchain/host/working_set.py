"""A program by itself: prints the bytes that Metal recommends to use at most on the default GPU, 0 without one.

    python -I working_set.py [METAL CORE_GRAPHICS LIBOBJC]

It has a process of its own, so that a wrong call ends that and not the toolkit. The limit that iogpu.wired_limit_mb
sets is in the number.
"""

from __future__ import annotations

import ctypes
import sys

LIBRARIES = (
    "/System/Library/Frameworks/Metal.framework/Metal",
    "/System/Library/Frameworks/CoreGraphics.framework/CoreGraphics",  # without it Metal names no default device
    "/usr/lib/libobjc.A.dylib",
)


def recommended(metal: str, graphics: str, objc: str) -> int:
    """`MTLCreateSystemDefaultDevice().recommendedMaxWorkingSetSize`; 0 without a device. Raises `OSError`."""
    ctypes.CDLL(graphics)
    create = ctypes.CDLL(metal).MTLCreateSystemDefaultDevice
    create.restype, create.argtypes = ctypes.c_void_p, ()
    runtime = ctypes.CDLL(objc)
    runtime.sel_registerName.restype, runtime.sel_registerName.argtypes = ctypes.c_void_p, (ctypes.c_char_p,)
    ask = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", runtime))
    device = create()
    return int(ask(device, runtime.sel_registerName(b"recommendedMaxWorkingSetSize"))) if device else 0


if __name__ == "__main__":
    sys.stdout.write(f"{recommended(*(sys.argv[1:] or LIBRARIES))}\n")
