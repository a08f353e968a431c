from __future__ import annotations

from pathlib import Path

from tests.fork.world import METAL, World
from tests.sources.gitrepo import git
from toolchain.upstream.fork.metal import MetalBranch, audit

_HOST = "ggml/src/ggml-metal/ggml-metal-device.m"
_SHADERS = """
template [[host_name("kernel_flash_attn_ext_turbo3_dk128_dv128")]] kernel flash_t kernel_flash_attn_ext<turbo3>;
template [[host_name("kernel_flash_attn_ext_vec_turbo3_dk128_dv128")]] kernel flash_t kernel_flash_attn_ext_vec<turbo3>;
template [[host_name("kernel_flash_attn_ext_vec_turbo4_dk128_dv128")]] kernel flash_t kernel_flash_attn_ext_vec<turbo4>;
kernel void kernel_set_rows_turbo3(device char * dst) { quantize_turbo3_0(dst); }
kernel void kernel_set_rows_turbo4(device char * dst) { }
kernel void kernel_turbo_wht(device char * dst) { }
"""


def _audited(world: World) -> dict[str, MetalBranch]:
    with world.joined() as both:
        return {one.branch: one for one in audit(both.repository, both.branches)}


def test_kernels_are_found_on_a_branch_that_is_not_the_default_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    git(world.fork, "switch", "--quiet", "--create", "feature/metal")
    world.work({METAL: _SHADERS, _HOST: "case GGML_TYPE_TURBO3_0: return true;\ncase GGML_TYPE_TURBO4_0: break;\n"})
    git(world.fork, "switch", "--quiet", "--create", "shaders-only", "HEAD~1")
    world.work({METAL: _SHADERS})
    git(world.fork, "switch", "--quiet", "--create", "host-only", "HEAD~1")
    world.work({_HOST: "case GGML_TYPE_POLAR3: return false;\n"})
    git(world.fork, "switch", "--quiet", "--create", "elsewhere", "HEAD~1")
    world.work({"ggml/src/ggml-cuda/turbo.cu": "kernel_turbo3\n", "docs/metal.md": "kernel_turbo3\n"})
    found = _audited(world)
    assert {name: one.verdict for name, one in found.items()} == {
        "master": "none",
        "elsewhere": "none",
        "feature/metal": "kernels and dispatch",
        "shaders-only": "kernels without dispatch",
        "host-only": "dispatch without kernels",
    }
    whole = found["feature/metal"]
    assert whole.dispatch == ("GGML_TYPE_TURBO3_0", "GGML_TYPE_TURBO4_0")
    assert whole.kernels == (
        "kernel_flash_attn_ext_turbo3_dk128_dv128",
        "kernel_flash_attn_ext_vec_turbo3_dk128_dv128",
        "kernel_flash_attn_ext_vec_turbo4_dk128_dv128",
        "kernel_set_rows_turbo3",
        "kernel_set_rows_turbo4",
        "kernel_turbo_wht",
    )
    assert whole.operations["turbo3"] == (
        "flash attention of prompts",
        "flash attention of one token",
        "write to the cache",
    )
    assert whole.gaps == ("turbo4: no flash attention of prompts",)
    assert whole.files == (_HOST, METAL)


def test_upstreams_own_sources_are_none(tmp_path: Path) -> None:
    world = World(tmp_path, {METAL: "kernel void kernel_set_rows_q8_0() { }\n", _HOST: "case GGML_TYPE_Q8_0:\n"})
    assert {one.verdict for one in _audited(world).values()} == {"none"}
