"""libclang of this machine. It is the extra `clang`, so import this module only where it is used."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from clang import cindex

from ..core.errors import MissingTool

_XCODE = Path("/Library/Developer/CommandLineTools/usr/lib/libclang.dylib")


@cache
def index() -> Any:
    """libclang's index: with the wheel's library, or that of Xcode's command line tools if the wheel has none."""
    native = Path(cindex.__file__).parent / "native"
    if not any(native.glob("libclang.*")) and _XCODE.is_file():
        cindex.Config.set_library_file(str(_XCODE))
    try:
        index = cindex.Index.create()
    except cindex.LibclangError as error:
        raise MissingTool(f"libclang cannot be loaded: {error}", hint="./inv doctor; the wheel is libclang") from error
    library = cindex.conf.lib
    library.clang_Cursor_Evaluate.argtypes = [cindex.Cursor]
    library.clang_Cursor_Evaluate.restype = ctypes.c_void_p
    for name, result in (
        ("getKind", ctypes.c_int),
        ("getAsLongLong", ctypes.c_longlong),
        ("isUnsignedInt", ctypes.c_uint),
        ("getAsUnsigned", ctypes.c_ulonglong),
        ("getAsDouble", ctypes.c_double),
        ("getAsStr", ctypes.c_char_p),
        ("dispose", None),
    ):
        function = getattr(library, f"clang_EvalResult_{name}")
        function.argtypes, function.restype = [ctypes.c_void_p], result
    return index
