from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolchain.core.cachetypes.grammar import parse
from toolchain.core.cachetypes.table import own, type_table
from toolchain.core.errors import ArchitectureUnknown, ConfigError, ModelInvalid
from toolchain.models.memory import geometry, kv

from . import models
from .conftest import load

TABLE = type_table(own())
ALLOCATED = [
    line.split() for line in (Path(__file__).parent / "allocated.txt").read_text().splitlines() if line[0] != "#"
]


def plain(layers: int = 4, **fields: int) -> geometry.Geometry:
    """Layers of two heads of 64."""
    cached = tuple(
        geometry.CachedLayer(index=index, k=128, v=128, head_k=64, head_v=64, windowed=index % 2 == 0 and bool(fields))
        for index in range(layers)
    )
    return geometry.Geometry(
        architecture="llama",
        layers=layers,
        cached=cached,
        window=fields.get("window", 0),
        context_length=4096,
        embedding=128,
        feed_forward=128,
        heads=2,
        vocabulary=100,
    )


@pytest.mark.parametrize("row", ALLOCATED, ids="-".join)
def test_what_llama_cpp_allocated(row: list[str], tiny: dict[str, Path], large: dict[str, Path]) -> None:
    name, context, sequences, unified, batch, type_k, type_v, allocated = row
    found = geometry.read(load((tiny | large)[name]))
    setting = kv.Setting(context=int(context), sequences=int(sequences), unified=unified == "1", batch=int(batch))
    assert kv.sizes(found, parse(f"{type_k}:{type_v}"), setting, TABLE).bytes == int(allocated)


def test_what_each_kind_of_model_caches(tiny: dict[str, Path]) -> None:
    found = {name: geometry.read(load(path)) for name, path in tiny.items()}
    assert [layer.index for layer in found["hybrid-delta"].cached] == [3, 7]
    assert [layer.index for layer in found["hybrid-mamba2"].cached] == [2, 5]
    assert [layer.windowed for layer in found["window"].cached] == [True] * 5 + [False] + [True] * 2
    assert [(layer.k, layer.head_k) for layer in found["window-shared"].cached] == [
        (128, 64),
        (128, 64),
        (128, 128),
    ] * 2
    assert {(layer.k, layer.v) for layer in found["mla"].cached} == {(576, 0)}
    assert found["hybrid-conv"].recurrent_layers == 3


def test_a_rule_counts_attention_layers_over_both_caches(tiny: dict[str, Path]) -> None:
    found = geometry.read(load(tiny["window"]))  # eight layers, the sixth is full
    setting = kv.Setting(context=4096)
    full, window = kv.sizes(found, parse("turbo2,layers=5:q8_0,last=1:f16"), setting, TABLE).caches
    row = found.cached[0].k
    assert full.k == row * 34 // 32 * 4096
    assert window.k == (6 * row * 18 // 64 + row * 2) * 1024
    assert (full.layers, window.layers, window.cells) == (1, 7, 1024)


@given(
    context=st.integers(1, 1 << 20),
    more=st.integers(0, 1 << 16),
    sequences=st.integers(1, 8),
    unified=st.booleans(),
    window=st.integers(0, 5000),
    name=st.sampled_from(["f16", "q8_0", "turbo4", "turbo2"]),
)
def test_more_context_never_takes_less(
    context: int, more: int, sequences: int, unified: bool, window: int, name: str
) -> None:
    found = plain(window=window) if window else plain()

    def total(tokens: int) -> int:
        setting = kv.Setting(context=tokens, sequences=sequences, unified=unified)
        assert setting.cells >= tokens * (sequences if unified else 1)
        return kv.sizes(found, parse(name), setting, TABLE).bytes

    assert total(context) <= total(context + more)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("turbo9", "no such cache type"),
        ("turbo4,layers=4:f16", "4 attention layers"),
        ("f16:none", "no such cache type"),
    ],
)
def test_settings_that_no_model_takes(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kv.sizes(plain(), parse(setting), kv.Setting(context=512), TABLE)


def test_types_that_llama_cpp_would_refuse(tiny: dict[str, Path], tmp_path: Path) -> None:
    mla = geometry.read(load(tiny["mla"]))
    with pytest.raises(ConfigError, match="MLA"):
        kv.sizes(mla, parse("q8_0:turbo4"), kv.Setting(context=512), TABLE)
    narrow = geometry.read(load(models.write(tmp_path / "80.gguf", models.dense(head_size=80))))
    assert kv.obstacle(narrow, parse("turbo4"), TABLE) == "K has heads of 80 in layer 0, turbo4 has blocks of 64"
    assert kv.obstacle(narrow, parse("f16:q8_0"), TABLE) == "V has heads of 80 in layer 0, q8_0 has blocks of 32"
    assert kv.obstacle(narrow, parse("f16"), TABLE) == ""
    assert "blocks of 64" in kv.obstacle(narrow, parse("turbo4,first=4:f16:f16"), TABLE)  # the base type must suit, too
    assert "needs one setting for both" in kv.obstacle(mla, parse("turbo4,first=1:q8_0:turbo4"), TABLE)
    assert kv.obstacle(mla, parse("turbo4,first=1:q8_0:turbo4,layers=0:q8_0"), TABLE) == ""
    grok = geometry.read(load(models.write(tmp_path / "grok.gguf", models.dense("grok"))))
    assert "without flash attention" in kv.obstacle(grok, parse("f16:q8_0"), TABLE)
    assert kv.obstacle(grok, parse("q8_0:f16"), TABLE) == ""


def test_architectures_that_are_not_known(tmp_path: Path) -> None:
    new = geometry.read(load(models.write(tmp_path / "new.gguf", models.dense("nova"))))
    assert "nova is unknown: assuming plain attention" in new.assumed
    assert len(new.cached) == 4
    special = models.dense("nova", further={"attention.sliding_window": 512})
    with pytest.raises(ArchitectureUnknown, match=r"nova.attention.sliding_window shows"):
        geometry.read(load(models.write(tmp_path / "special.gguf", special)))
    with pytest.raises(ArchitectureUnknown, match="it has no KV cache"):
        geometry.read(load(models.write(tmp_path / "bert.gguf", models.dense("bert"))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_count": 0}, "llama.block_count is 0"),
        ({"block_count": 100_000}, "llama.block_count is 100000"),
        ({"block_count": "four"}, "llama.block_count is 'four'"),
        ({"attention.head_count_kv": [2, 2]}, "lists 2 layers, not 4"),
        ({"attention.key_length": 2**31}, "is 2147483648, which is not a valid size"),
        ({"context_length": None}, "llama.context_length is missing"),
    ],
)
def test_metadata_that_make_no_sense(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    spec = models.dense()
    changed = {key: value for key, value in {**spec.metadata, **changes}.items() if value is not None}
    path = models.write(tmp_path / "m.gguf", models.Spec("llama", changed, spec.tensors))
    with pytest.raises(ModelInvalid, match=message):
        geometry.read(load(path))


def test_a_file_without_an_architecture(tmp_path: Path) -> None:
    with pytest.raises(ModelInvalid, match="name no architecture"):
        geometry.read(load(models.write(tmp_path / "m.gguf", models.Spec("", {}, []))))
