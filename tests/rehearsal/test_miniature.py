"""The miniature upstream as it is, without the series: its repositories, its build, and what its programs do."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import git
import numpy as np
import numpy.typing as npt
import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.shared import Miniatures
from toolchain import pipeline
from toolchain.build import release_dir
from toolchain.core.errors import ModelLoadFailed
from toolchain.core.run import Run
from toolchain.rehearsal import miniature
from toolchain.serving import cachelog
from toolchain.serving.ollama_server import serve
from toolchain.serving.probe_model import ProbeGeometry, write_probe
from toolchain.stages import Sources

pytestmark = pytest.mark.slow

Floats = npt.NDArray[np.float32]
CONTEXT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("miniature")


@pytest.fixture(scope="module")
def upstream(folder: Path, miniatures: Miniatures) -> miniature.Miniature:
    return miniatures.plain(folder)


@pytest.fixture(scope="module")
def run(folder: Path, upstream: miniature.Miniature, miniatures: Miniatures) -> Run:
    return miniatures.run(folder, upstream)


@pytest.fixture(scope="module")
def sources(run: Run) -> Sources:
    return pipeline.prepare(run)


@pytest.fixture(scope="module")
def stock(run: Run, sources: Sources) -> Path:
    """A release of the miniature without the series."""
    return release_dir(run.workspace, pipeline.build(run, sources, pipeline.stock(sources)))


@pytest.fixture(scope="module")
def probe(folder: Path) -> Path:
    write_probe(folder / "probe.gguf", head_size=64, heads=4, kv_heads=2, layers=2, context=1024, seed=7)
    return folder / "probe.gguf"


def test_the_pin_is_a_tag_and_the_length_of_the_history(upstream: miniature.Miniature, sources: Sources) -> None:
    assert (sources.era, sources.pin.exact) == ("pinned", True)
    assert sources.pin.name == f"b{sources.pin.build}"
    with git.Repo(upstream.llama_cpp) as repository:
        assert repository.git.rev_list("HEAD", count=True) == str(sources.pin.build)
        assert repository.tags[sources.pin.name].commit == repository.head.commit
        assert not repository.is_dirty(untracked_files=True)
    with git.Repo(upstream.ollama) as repository:
        assert repository.git.describe("--tags") == "v0.33.0"
        assert not repository.is_dirty(untracked_files=True)


def test_the_same_trees_give_the_same_commits(upstream: miniature.Miniature, tmp_path: Path) -> None:
    again = miniature.materialize(tmp_path)
    for path, other in ((upstream.ollama, again.ollama), (upstream.llama_cpp, again.llama_cpp)):
        with git.Repo(path) as first, git.Repo(other) as second:
            assert first.head.commit == second.head.commit


@pytest.mark.parametrize("kv_cache_type", ["", "q8_0"])
def test_ollama_serves_and_shifts_its_context(stock: Path, probe: Path, tmp_path: Path, kv_cache_type: str) -> None:
    geometry = ProbeGeometry(head_size=64, heads=4, kv_heads=2, layers=2, context=1024)
    with serve(
        stock,
        version="0.33.0-turbo1",
        home=tmp_path / "home",
        log=tmp_path / "log",
        environment={"OLLAMA_KV_CACHE_TYPE": kv_cache_type},
        timeout_s=30.0,
    ) as server:
        assert server.client.names() == ()
        server.client.create_from_gguf("probe", probe)
        assert server.client.names() == ("probe:latest",)
        first = server.client.generate("probe", "abc" * 82, 20, {"num_ctx": CONTEXT})
        again = server.client.generate("probe", "abc" * 82, 20, {"num_ctx": CONTEXT})
        assert (first.eval_count, first.done_reason, first.text) == (20, "length", again.text)
        with pytest.raises(ModelLoadFailed, match="does not fit a context of 256"):
            server.client.generate("probe", "abc" * 100, 1, {"num_ctx": CONTEXT})
        log = server.said_since(0, until=cachelog.SHIFT_LINES)
        (cache,) = cachelog.caches(log, geometry, ())
        assert cachelog.complaint([cache], kv_cache_type or "f16", geometry, CONTEXT, ()) == ""
        assert (cache.rotated_k, cache.rotated_v) == ((True, True) if kv_cache_type else (False, False))
        assert cachelog.context_shifts(log) == 2
        server.client.delete("probe")
        assert server.client.names() == ()


def test_an_unknown_type_fails_the_load_with_no_more_than_an_exit_status(
    stock: Path, probe: Path, tmp_path: Path
) -> None:
    with serve(
        stock,
        version="0.33.0-turbo1",
        home=tmp_path / "home",
        log=tmp_path / "log",
        environment={"OLLAMA_KV_CACHE_TYPE": "turbo4"},
        timeout_s=30.0,
    ) as server:
        server.client.create_from_gguf("probe", probe)
        with pytest.raises(ModelLoadFailed, match=r"exit status 1$"):
            server.client.generate("probe", "a", 1)
        assert "Unsupported cache type: turbo4" in server.tail()
        with pytest.raises(ModelLoadFailed, match="not found"):
            server.client.generate("another", "a", 1)
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(probe.read_bytes()[:-1000])
        with pytest.raises(ModelLoadFailed, match="runs past the end of the file"):
            server.client.create_from_gguf("broken", broken)


def test_llama_server_computes_what_numpy_does(stock: Path, probe: Path) -> None:
    """With an unquantized cache, before and after a context shift."""
    tokens, wanted = _reference(probe, "xyz" * 83, 16, n_keep=4)
    with _llama_server(stock, probe, "--cache-type-k", "f32", "--cache-type-v", "f32", "--keep", "4") as url:
        body = {"prompt": "xyz" * 83, "n_predict": 16}
        answer = requests.post(f"{url}/completion", json=body, timeout=30).json()
        assert (answer["tokens_evaluated"], answer["tokens_predicted"]) == (tokens, 16)
        assert answer["content"] == wanted
        assert requests.get(f"{url}/props", timeout=30).status_code == requests.codes.not_found
        assert requests.get(f"{url}/health", timeout=30).json() == {"status": "ok"}


def test_a_shift_of_unrotated_quantized_keys_ends_it_as_it_ends_upstream(stock: Path, tmp_path: Path) -> None:
    """Upstream's #25636, which the series guards against."""
    model = tmp_path / "heads-of-96.gguf"
    write_probe(model, head_size=96, heads=4, kv_heads=2, layers=2, context=1024, seed=7)
    with _llama_server(stock, model, "--cache-type-k", "q8_0", "--cache-type-v", "f32") as url:
        requests.post(f"{url}/completion", json={"prompt": "a" * 100, "n_predict": 4}, timeout=30).raise_for_status()
        with pytest.raises(requests.ConnectionError):
            requests.post(f"{url}/completion", json={"prompt": "a" * 250, "n_predict": 16}, timeout=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_model_is_refused_and_never_crashes_the_reader(
    stock: Path, probe: Path, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(probe.read_bytes())
    header = content.index(b"general.name") + 16384  # metadata, vocabulary and the first tensors' descriptions
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, header))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content[: data.draw(st.integers(0, 2 * len(content)))])
    reader = stock / "lib" / "ollama" / "llama-quantize"
    argv: list[str | Path] = [reader, path, tmp_path / "copy.gguf", "COPY"]
    done = subprocess.run(argv, capture_output=True, timeout=30, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.returncode == 0 or b"no copy was made" in done.stderr


@contextlib.contextmanager
def _llama_server(release: Path, model: Path, *arguments: str) -> Iterator[str]:
    with socket.socket() as claim:
        claim.bind(("127.0.0.1", 0))
        port = str(claim.getsockname()[1])
    program = release / "lib" / "ollama" / "llama-server"
    argv: list[str | Path] = [
        program,
        "--model",
        model,
        "--port",
        port,
        "--ctx-size",
        str(CONTEXT),
        "--context-shift",
        *arguments,
    ]
    with subprocess.Popen([*argv, *arguments], stderr=subprocess.DEVNULL) as process:
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 20
            while time.monotonic() < deadline:
                with contextlib.suppress(requests.ConnectionError):
                    requests.get(f"{url}/health", timeout=5)
                    break
                time.sleep(0.02)
            yield url
        finally:
            process.kill()


def _reference(model: Path, prompt: str, n_predict: int, *, n_keep: int) -> tuple[int, str]:
    """A llama-architecture forward pass in NumPy: the length of the prompt, and the likeliest tokens that follow it."""
    reader = gguf.GGUFReader(model)
    weights = {tensor.name: np.asarray(tensor.data, np.float32) for tensor in reader.tensors}
    vocabulary = reader.fields["tokenizer.ggml.tokens"].contents()
    head, heads, kv_heads, layers = 64, 4, 2, 2
    frequency = 10000.0 ** (-np.arange(0, head, 2, dtype=np.float32) / head)
    keys: list[list[Floats]] = [[] for _ in range(layers)]
    values: list[list[Floats]] = [[] for _ in range(layers)]

    def norm(x: Floats, name: str) -> Floats:
        scaled: Floats = x / np.sqrt(np.mean(x * x) + np.float32(1e-5)) * weights[name]
        return scaled

    def rope(x: Floats, position: int) -> Floats:
        angle = np.float32(position) * frequency
        turned = np.empty_like(x)
        turned[:, 0::2] = x[:, 0::2] * np.cos(angle) - x[:, 1::2] * np.sin(angle)
        turned[:, 1::2] = x[:, 0::2] * np.sin(angle) + x[:, 1::2] * np.cos(angle)
        return turned

    def decode(token: int) -> int:
        x = weights["token_embd.weight"][token]
        for layer in range(layers):
            blk = f"blk.{layer}."
            current, position = norm(x, blk + "attn_norm.weight"), len(keys[layer])
            query = rope((weights[blk + "attn_q.weight"] @ current).reshape(heads, head), position)
            keys[layer].append(rope((weights[blk + "attn_k.weight"] @ current).reshape(kv_heads, head), position))
            values[layer].append((weights[blk + "attn_v.weight"] @ current).reshape(kv_heads, head))
            k = np.repeat(np.stack(keys[layer], axis=1), heads // kv_heads, axis=0)
            v = np.repeat(np.stack(values[layer], axis=1), heads // kv_heads, axis=0)
            scores = np.einsum("hd,hnd->hn", query, k) / np.sqrt(np.float32(head))
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            attended = np.einsum("hn,hnd->hd", share / share.sum(axis=1, keepdims=True), v)
            x = x + weights[blk + "attn_output.weight"] @ attended.reshape(-1)
            inner = norm(x, blk + "ffn_norm.weight")
            gate = weights[blk + "ffn_gate.weight"] @ inner
            x = x + weights[blk + "ffn_down.weight"] @ (
                gate / (1 + np.exp(-gate)) * (weights[blk + "ffn_up.weight"] @ inner)
            )
        return int(np.argmax(weights["output.weight"] @ norm(x, "output_norm.weight")))

    tokens = [vocabulary.index(text) for text in ("<s>", *prompt)]
    for token in tokens:
        following = decode(token)
    text = ""
    for _ in range(n_predict):
        text += vocabulary[following].replace("\u2581", " ")
        if len(keys[0]) == CONTEXT:
            discard = (CONTEXT - n_keep) // 2
            for layer in range(layers):
                moved = [rope(key, -discard) for key in keys[layer][n_keep + discard :]]
                keys[layer] = keys[layer][:n_keep] + moved
                values[layer] = values[layer][:n_keep] + values[layer][n_keep + discard :]
        following = decode(following)
    return len(tokens), text
