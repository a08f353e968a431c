"""A tiny Ollama and llama.cpp that build with CMake and Go in a second or two, with no network.

They have the shape that a build relies on: llama/server with presets and an install component, a pinned
llama.cpp that CMake is pointed to, patches under llama/compat, and a Go module with the version variable.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.sources.gitrepo import commit, git, new
from toolchain.build import build
from toolchain.core import config
from toolchain.core.config import Config
from toolchain.core.console import Console
from toolchain.core.records import sha256_bytes
from toolchain.sources import create, prepare, scratch_root
from toolchain.stages import CacheType, Release, Rendered, RenderedTarget, Scratch, Sources

LLAMA_CPP = {
    "CMakeLists.txt": """\
add_library(tiny SHARED one.c two.c)
target_compile_definitions(tiny PRIVATE BUILD="${LLAMA_BUILD_NUMBER}")
add_executable(llama-server server.c)
add_executable(llama-quantize server.c)
add_executable(llama-bench EXCLUDE_FROM_ALL server.c)
foreach(program llama-server llama-quantize llama-bench)
    target_link_libraries(${program} PRIVATE tiny)
endforeach()
set_target_properties(tiny PROPERTIES VERSION 0.1.0 SOVERSION 0)
""",
    "one.c": 'const char * tiny_build(void) { return "build " BUILD; }\n',
    "two.c": "int tiny_types(void) { return 1; }\n",
    "server.c": """\
#include <stdio.h>
const char * tiny_build(void);
int tiny_types(void);
int main(void) { printf("%s, %d types\\n", tiny_build(), tiny_types()); return 0; }
""",
    "LICENSE": "licence of llama.cpp\n",
    "licenses/LICENSE-part": "licence of a part\n",
}

_SERVER = """\
cmake_minimum_required(VERSION 3.20)
project(tiny C)
set(CMAKE_INSTALL_RPATH "$<IF:$<PLATFORM_ID:Darwin>,@loader_path,$ORIGIN>")
foreach(kind RUNTIME LIBRARY)
    set(CMAKE_${kind}_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
endforeach()
option(OLLAMA_LLAMA_CPP_SKIP_COMPAT_PATCH "the source is prepared" OFF)
if(NOT OLLAMA_LLAMA_CPP_SKIP_COMPAT_PATCH)
    message(FATAL_ERROR "the patches would be applied a second time")
endif()
add_subdirectory("${FETCHCONTENT_SOURCE_DIR_LLAMA_CPP}" llama.cpp)
install(TARGETS llama-server llama-quantize tiny
    RUNTIME DESTINATION lib/ollama COMPONENT llama-server
    LIBRARY DESTINATION lib/ollama COMPONENT llama-server)
install(PROGRAMS "$<TARGET_FILE:llama-server>" DESTINATION lib/ollama RENAME copied COMPONENT llama-server)
install(FILES CMakeLists.txt DESTINATION share COMPONENT other)
"""

_PRESETS = {
    "version": 3,
    "configurePresets": [
        {"name": name, "binaryDir": "${sourceDir}/build", "cacheVariables": {"CMAKE_BUILD_TYPE": "Release"}}
        for name in ("cpu", "darwin")
    ],
}

OLLAMA = {
    "go.mod": "module example.org/ollama\n\ngo 1.21\n",
    "main.go": """\
package main

import "example.org/ollama/version"

func main() { println(version.Version) }
""",
    "version/version.go": 'package version\n\nvar Version = "0.0.0"\n',
    "LLAMA_CPP_VERSION": "b1\n",
    "llama/compat/README.md": "patches\n",
    "llama/server/CMakeLists.txt": _SERVER,
    "llama/server/CMakePresets.json": json.dumps(_PRESETS),
    "LICENSE": "licence of Ollama\n",
}


def patch(types: str) -> str:
    """The series: llama.cpp returns another number of types, brought by a patch under llama/compat/."""
    inner = (
        "diff --git a/two.c b/two.c\n--- a/two.c\n+++ b/two.c\n@@ -1 +1 @@\n"
        f"-int tiny_types(void) {{ return 1; }}\n+int tiny_types(void) {{ return {types}; }}\n"
    )
    lines = inner.splitlines()
    return (
        "diff --git a/llama/compat/900-turboquant.patch b/llama/compat/900-turboquant.patch\nnew file mode 100644\n"
        f"--- /dev/null\n+++ b/llama/compat/900-turboquant.patch\n@@ -0,0 +1,{len(lines)} @@\n"
        + "".join(f"+{line}\n" for line in lines)
    )


class Tiny:
    """The two repositories, a workspace, and the stages up to a release."""

    def __init__(self, folder: Path) -> None:
        self.ollama, self.llama_cpp = new(folder / "ollama"), new(folder / "llama.cpp")
        commit(self.llama_cpp, LLAMA_CPP)
        commit(self.ollama, OLLAMA)
        git(self.ollama, "tag", "v0.33.0-rc2")
        self.workspace = folder / "ws"
        self.scratch: Scratch | None = None

    def config(self, **flags: object) -> Config:
        """Settings of this world; `flags` have their dots written as two underscores."""
        own = {
            "workspace": str(self.workspace),
            "sources.ollama": str(self.ollama),
            "sources.llama_cpp": str(self.llama_cpp),
            "build.min_free_gb": 0.1,
        }
        return config.load(environ={}, flags=own | {name.replace("__", "."): value for name, value in flags.items()})

    def stages(self, types: str = "4", **flags: object) -> tuple[Config, Sources, Rendered, Scratch]:
        """Everything that a build needs, with the series that returns `types`."""
        settings = self.config(**flags)
        sources = prepare(settings, Console())
        target = RenderedTarget(target="ollama", commit=sources.ollama.commit, diff=patch(types), sha256="", files=())
        rendered = Rendered(
            series_sha256=sha256_bytes(types.encode()),
            targets=(target,),
            edits=(),
            facts={},
            cache_types=(CacheType(name="turbo4", block=128, bytes=68),),
        )
        self.scratch = create(sources, rendered, scratch_root(settings, sources), Console())
        return settings, sources, rendered, self.scratch

    def build(self, types: str = "4", *, extra_targets: tuple[str, ...] = (), **flags: object) -> Release:
        """All stages up to the release."""
        settings, sources, rendered, made = self.stages(types, **flags)
        return build(
            made, sources, rendered, settings, Console(), workspace=self.workspace, extra_targets=extra_targets
        )
