"""What a model caches for every token: the sizes that llama.cpp derives from a GGUF's metadata.

`architectures` has what is not in the metadata. The keys are those of the format, prefixed with the architecture's
name, as in llama.attention.head_count_kv.
"""

from __future__ import annotations

from ...core.errors import ArchitectureUnknown, ModelInvalid
from ...core.records import record
from . import architectures as known
from .gguf import ModelHeader, Omitted
from .keys import Keys

MAX_LAYERS = 512
"""llama.cpp's own bound"""
_SINKS = ".attn_sinks"
_MAX_VOCABULARY = 1 << 24
_MAX_TOKENS = 1 << 27
_MAX_CACHED = 1 << 25
"""values of all layers for one token"""
_MAX_STATE = 1 << 28
"""values of a recurrent layer. All are far above any size of a real model, and keep its bytes within 64 bits"""


@record
class CachedLayer:
    """K and V of one layer: values in a row (all heads of one cell), and in one head. No V where K holds it (MLA)."""

    index: int
    k: int
    v: int
    head_k: int
    head_v: int
    windowed: bool = False


@record
class Geometry:
    """What decides how large the caches of a model are, and roughly its working memory."""

    architecture: str
    layers: int
    """all of them, with those that predict further tokens"""
    cached: tuple[CachedLayer, ...]
    """the layers with their own K and V, in order"""
    indexer: tuple[CachedLayer, ...] = ()
    """layers with a further cache of one key"""
    window: int = 0
    """tokens; 0 without a sliding window, and then there is one cache, else two: full and windowed"""
    mla: bool = False
    recurrent_layers: int = 0
    state_values: int = 0
    """f32 values of state in each recurrent layer, for each sequence"""
    context_length: int
    """tokens that the model was trained on"""
    embedding: int
    feed_forward: int
    """the largest of any layer, for one token: the sum over the experts that it uses"""
    experts: int = 0
    """how many a token uses"""
    heads: int
    latent: int = 0
    """values that K and V of MLA have in common"""
    inner: int = 0
    """width of a Mamba layer"""
    vocabulary: int
    flash_attention: bool = True
    sinks: bool = False
    """learned sinks in every head's softmax"""
    assumed: str = ""
    """what was assumed about an unknown architecture"""


def read(model: ModelHeader) -> Geometry:
    """The geometry of a model. Raises `ModelInvalid` for missing or contradictory metadata, and
    `ArchitectureUnknown` for an architecture whose cache does not follow from them."""
    name = model.metadata.get("general.architecture")
    if not isinstance(name, str) or not name:
        raise ModelInvalid(f"{model.name}: its metadata name no architecture", hint="is it a language model?")
    keys = Keys(model.name, name, model.metadata)
    assumed = _check_known(keys, name)
    layers = keys.count("block_count", low=1, high=MAX_LAYERS)
    extra = keys.count("nextn_predict_layers", 0, high=layers - 1) if name in known.EXTRA_LAYERS else 0
    heads = keys.each("attention.head_count", layers, 0)
    kv_heads = keys.each("attention.head_count_kv", layers, None) if keys.has("attention.head_count_kv") else heads
    feed_forward = keys.each("feed_forward_length", layers, 0)
    recurrent, attention = _kinds(keys, name, layers, extra, kv_heads, feed_forward)
    window, windowed = _windows(keys, name, layers, extra, recurrent)
    if name in known.EXTRA_UNCACHED:
        attention &= set(range(layers - extra))
    attention &= set(range(_shared_after(keys, name, layers)))
    mla = name in known.MLA and keys.count("attention.key_length_mla", 0) > 0
    cached = _cached(keys, layers, attention, heads, kv_heads, windowed, mla)
    embedding = keys.count("embedding_length", low=1)
    head = _head_size(keys, "key_length", heads)
    return Geometry(
        architecture=name,
        layers=layers,
        cached=cached,
        indexer=_indexer(keys, name, layers - extra),
        window=window,
        mla=mla,
        recurrent_layers=len(recurrent),
        state_values=_state(keys, name, embedding, heads, head) if recurrent else 0,
        context_length=keys.count("context_length", low=1, high=_MAX_TOKENS),
        embedding=embedding,
        feed_forward=_widest(keys, feed_forward),
        experts=keys.count("expert_used_count", 0),
        heads=max(heads),
        latent=_head_size(keys, "value_length", heads) if mla else 0,
        inner=keys.count("ssm.inner_size", 0) if recurrent else 0,
        vocabulary=_vocabulary(model, keys),
        flash_attention=name != "grok",
        sinks=name in known.ATTENTION_SINKS or any(_SINKS in tensor.name for tensor in model.tensors),
        assumed=assumed,
    )


def _check_known(keys: Keys, name: str) -> str:
    if name in known.UNSERVED:
        fails = known.QUANTIZED_FAILS.get(name, "")
        raise ArchitectureUnknown(
            f"{keys.file}: {name}: {known.UNSERVED[name]}", hint=f"{fails}: f16 is the safe type" if fails else ""
        )
    if name in known.KNOWN:
        return ""
    if telling := [key for key in keys.own() if any(part in key for part in known.TELLING_KEYS)]:
        raise ArchitectureUnknown(
            f"{keys.file}: the architecture {name} is unknown, and {telling[0]} shows that it is not plain attention",
            hint="load it once: llama-server's log states the size of the cache",
        )
    return f"the architecture {name} is unknown: assuming plain attention in every layer"


def _kinds(
    keys: Keys, name: str, layers: int, extra: int, kv_heads: tuple[int, ...], feed_forward: tuple[int, ...]
) -> tuple[set[int], set[int]]:
    """The indices of recurrent layers and of attention layers."""
    everything, trunk = set(range(layers)), set(range(layers - extra))
    if name in known.RECURRENT_ONLY:
        return everything, set()
    if name in known.RECURRENT_AND_ATTENTION:
        return everything, everything
    if name in known.RECURRENT_WITHOUT_KV_HEADS:
        recurrent = {index for index in trunk if kv_heads[index] == 0}
        return recurrent, everything - recurrent
    if name in known.RECURRENT_WITHOUT_KV_HEADS_OR_FF:
        bare = {index for index in everything if feed_forward[index] == 0}
        recurrent = {index for index in bare & trunk if kv_heads[index] == 0}
        return recurrent, bare - recurrent
    if name in known.RECURRENT_BUT_EVERY:
        if keys.has("attention.recurrent_layers"):
            listed = keys.each("attention.recurrent_layers", layers, 0)
            recurrent = {index for index in trunk if listed[index]}
        else:
            step = keys.count("full_attention_interval", known.RECURRENT_BUT_EVERY[name], low=1)
            recurrent = {index for index in trunk if (index + 1) % step}
        return recurrent, trunk - recurrent
    return set(), everything


def _windows(keys: Keys, name: str, layers: int, extra: int, recurrent: set[int]) -> tuple[int, set[int]]:
    """The size of the sliding window, or 0, and the layers that have it."""
    key, pattern = "attention.sliding_window", "attention.sliding_window_pattern"
    if name in known.WINDOW_ON_ALL:
        size = keys.count(key, 0, high=_MAX_TOKENS)
        return size, set(range(layers)) - recurrent if size else set()
    rule = known.WINDOWS.get(name)
    if rule is None or known.WINDOW_ONLY_AT.get(name, layers - extra) != layers - extra:
        return 0, set()
    size = keys.count(key, None if rule.required else rule.default, high=_MAX_TOKENS)
    if size == 0 and not (rule.required or (rule.default and not rule.fixed)):
        return 0, set()
    size = rule.fixed or size
    among = layers if name in known.WINDOW_BEFORE_EXTRA else layers - extra
    if not keys.is_number(pattern) and (rule.period == 0 or (rule.listed and keys.has(pattern))):
        listed = keys.each(pattern, among, None)
        return size, {index for index in range(among) if listed[index]}
    if rule.period == 0 and not rule.listed:
        return size, set(range(among)) if keys.count(pattern) else set()
    period = keys.count(pattern, rule.period) if keys.is_number(pattern) else rule.period
    if period == 0:
        return size, set(range(among))
    full = 0 if rule.dense_first else period - 1
    return size, {index for index in range(among) if index % period != full}


def _shared_after(keys: Keys, name: str, layers: int) -> int:
    if name == "gemma4":
        return layers - keys.count("attention.shared_kv_layers", 0, high=layers)
    return known.SHARED_AFTER.get(name, layers)


def _head_size(keys: Keys, key: str, heads: tuple[int, ...]) -> int:
    if heads[0] == 0:
        return 0
    return keys.count(f"attention.{key}", keys.count("embedding_length", low=1) // heads[0])


def _cached(
    keys: Keys,
    layers: int,
    attention: set[int],
    heads: tuple[int, ...],
    kv_heads: tuple[int, ...],
    windowed: set[int],
    mla: bool,
) -> tuple[CachedLayer, ...]:
    sizes = [_head_size(keys, key, heads) for key in ("key_length", "value_length")]
    in_window = [
        keys.count(f"attention.{key}", size)
        for key, size in zip(("key_length_swa", "value_length_swa"), sizes, strict=True)
    ]
    found = []
    for index in range(layers):
        if index in attention:
            head_k, head_v = in_window if index in windowed else sizes
            head_v = 0 if mla else head_v
            found.append(
                CachedLayer(
                    index=index,
                    k=head_k * kv_heads[index],
                    v=head_v * kv_heads[index],
                    head_k=head_k,
                    head_v=head_v,
                    windowed=index in windowed,
                )
            )
    if (values := sum(layer.k + layer.v for layer in found)) > _MAX_CACHED:
        raise ModelInvalid(f"{keys.file}: its metadata give {values} values of K and V for each token")
    return tuple(found)


def _indexer(keys: Keys, name: str, trunk: int) -> tuple[CachedLayer, ...]:
    if name not in known.INDEXED:
        return ()
    width = keys.count("attention.indexer.key_length", low=1)
    full: tuple[int, ...] = (1,) * trunk
    if name == "glm-dsa" and keys.has("attention.indexer.types"):
        full = keys.each("attention.indexer.types", trunk, None)
    elif name == "glm-dsa" and keys.count("context_length") >= 1 << 20:
        raise ArchitectureUnknown(f"{keys.file}: {name}: the metadata do not say which layers have an indexer")
    return tuple(
        CachedLayer(index=index, k=width, v=0, head_k=width, head_v=0) for index in range(trunk) if full[index]
    )


def _state(keys: Keys, name: str, embedding: int, heads: tuple[int, ...], cached_head: int) -> int:
    """Number of f32 values of a recurrent layer for a sequence: its convolution's inputs and its state."""
    values = _state_values(keys, name, embedding, heads, cached_head)
    if values > _MAX_STATE:
        raise ModelInvalid(f"{keys.file}: its metadata give {values} values of state in each recurrent layer")
    return values


def _state_values(keys: Keys, name: str, embedding: int, heads: tuple[int, ...], cached_head: int) -> int:
    if name in known.STATE_OF_RWKV:
        return (keys.count("token_shift_count", 2) + keys.count("wkv.head_size")) * embedding
    if name in known.STATE_OF_SHORT_CONVOLUTION:
        return embedding * (keys.count("shortconv.l_cache", low=1) - 1)
    kernel = keys.count("ssm.conv_kernel", 0)
    if name in known.STATE_OF_DELTA_ATTENTION:
        head = keys.count("kda.head_dim")
        return (3 * (kernel - 1 if kernel else 3) + head) * heads[0] * head
    if name in known.STATE_OF_LIGHTNING_ATTENTION:
        return cached_head * cached_head * heads[0]
    inner, size = keys.count("ssm.inner_size", 0), keys.count("ssm.state_size", 0)
    groups = 0 if name in known.STATE_WITHOUT_GROUPS else keys.count("ssm.group_count", 0)
    return max(kernel - 1, 0) * (inner + 2 * groups * size) + size * inner


def _widest(keys: Keys, feed_forward: tuple[int, ...]) -> int:
    used = keys.count("expert_used_count", 0)
    expert = keys.count("expert_feed_forward_length", max(feed_forward) if used else 0)
    return max(*feed_forward, used * expert, keys.count("expert_shared_feed_forward_length", 0))


def _vocabulary(model: ModelHeader, keys: Keys) -> int:
    for tensor in model.tensors:
        if tensor.name == "token_embd.weight" and len(tensor.shape) > 1:
            if tensor.shape[1] > _MAX_VOCABULARY:
                raise ModelInvalid(f"{model.name}: its vocabulary has {tensor.shape[1]} tokens")
            return tensor.shape[1]
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    return tokens.count if isinstance(tokens, Omitted) else keys.count("vocab_size", 0, high=_MAX_VOCABULARY)
