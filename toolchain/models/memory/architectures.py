"""What llama.cpp (as of b10470) knows about each architecture beyond the metadata: windows, recurrent and extra layers.

Facts, read from src/models/*.cpp (load_arch_hparams) and llama_model::create_memory. An architecture in none of
these tables is unknown.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """How an architecture decides which layers have a sliding window.

    Of every `period` layers the last is full, or the first where `dense_first`; 0 means that the metadata list the
    layers. `listed` allows a list in place of a period. Without attention.sliding_window the window is `default`, or
    there is none; `fixed` overrides the metadata. `required`: llama.cpp refuses a model without it.
    """

    period: int
    dense_first: bool = False
    listed: bool = False
    default: int = 0
    fixed: int = 0
    required: bool = False


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


WINDOWS = {
    "afmoe": Window(period=4),
    "cohere2": Window(period=4, required=True),
    "cohere2moe": Window(period=0, dense_first=True, listed=True, required=True),
    "exaone-moe": Window(period=4, required=True),
    "exaone4": Window(period=4, default=4096),
    "gemma2": Window(period=2, default=4096),
    "gemma3": Window(period=6),
    "gemma3n": Window(period=5, required=True),
    "gemma4": Window(period=0, required=True),
    "gpt-oss": Window(period=2, required=True),
    "laguna": Window(period=4, dense_first=True),
    "llama4": Window(period=4, default=8192, fixed=8192),
    "mellum": Window(period=0, listed=True),
    "mimo2": Window(period=0, required=True),
    "muse-glimmer": Window(period=4, listed=True, required=True),
    "olmo2": Window(period=4),
    "plamo3": Window(period=8),
    "smallthinker": Window(period=4, dense_first=True, fixed=4096),
    "step35": Window(period=0, required=True),
}

WINDOW_ON_ALL = frozenset({"lfm2"})
"""with attention.sliding_window, every attention layer has it"""

WINDOW_BEFORE_EXTRA = frozenset({"exaone-moe", "mimo2", "step35"})
"""the pattern runs on over the extra layers at the end; elsewhere those are full"""

WINDOW_ONLY_AT = {"exaone4": 64}
"""number of layers, without the extra ones, of the one size that has a window"""

EXTRA_LAYERS = _names(
    """
    bailingmoe2 bailingmoe3 cohere2moe deepseek2 deepseek32 exaone-moe exaone4 glm-dsa glm4 glm4moe hy_v3 mimo2
    mistral4 nemotron_h nemotron_h_moe qwen35 qwen35moe qwen3next step35
    """
)
"""nextn_predict_layers is the number of layers at the end that predict further tokens"""

EXTRA_UNCACHED = _names("deepseek32 glm-dsa hy_v3 mimo2 qwen35 qwen35moe qwen3next step35")
"""those of them whose extra layers have no cache of their own"""

SHARED_AFTER = {"gemma3n": 20}
"""layers from this one on read the cache of earlier ones"""

MLA = _names("bailingmoe3 deepseek2 deepseek32 glm-dsa kimi-k3 kimi-linear mistral4")
"""with key_length_mla and value_length_mla, only K is cached, and V is a part of it"""

INDEXED = frozenset({"deepseek32", "glm-dsa"})
"""a second cache of one key of attention.indexer.key_length for each layer that has an indexer"""

RECURRENT_WITHOUT_KV_HEADS = _names("bailingmoe3 granitehybrid jamba kimi-k3 kimi-linear lfm2 lfm2moe plamo2")
RECURRENT_WITHOUT_KV_HEADS_OR_FF = frozenset({"nemotron_h", "nemotron_h_moe"})
"""a layer is attention, recurrent or feed-forward; one with a feed-forward length is neither of the others"""
RECURRENT_BUT_EVERY = {"minimax-01": 8, "qwen35": 4, "qwen35moe": 4, "qwen3next": 4}
"""every n-th layer is attention, unless set in the metadata"""
RECURRENT_AND_ATTENTION = frozenset({"falcon-h1"})
"""every layer is both"""
RECURRENT_ONLY = _names("arwkv7 mamba mamba2 rwkv6 rwkv6qwen2 rwkv7")

# The state of a recurrent layer; Mamba's for architectures in none of these.
STATE_OF_RWKV = frozenset({"arwkv7", "rwkv6", "rwkv6qwen2", "rwkv7"})
STATE_OF_SHORT_CONVOLUTION = frozenset({"lfm2", "lfm2moe"})
STATE_OF_DELTA_ATTENTION = frozenset({"bailingmoe3", "kimi-k3", "kimi-linear"})
STATE_OF_LIGHTNING_ATTENTION = frozenset({"minimax-01"})
STATE_WITHOUT_GROUPS = frozenset({"jamba", "mamba"})

PLAIN = _names(
    """
    apertus arcee arctic baichuan bailingmoe bitnet bloom chameleon chatglm codeshell cogvlm command-r dbrx deci
    deepseek deepseek2-ocr dots1 ernie4_5 ernie4_5-moe exaone falcon gemma gpt2 gptneox granite granitemoe grok
    grovemoe hunyuan-dense hunyuan-moe hunyuan_vl internlm2 jais jais2 llama llama-embed maincoder minicpm minicpm3
    minimax-m2 mistral3 mpt nemotron olmo olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plm
    qwen qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts qwen3vl qwen3vlmoe refact seed_oss smollm3 stablelm
    starcoder starcoder2 talkie xverse
    """
)
"""one full cache, every layer alike or by its own number of K and V heads"""

UNCACHED = _names(
    """
    bert dream eurobert gemma-embedding jina-bert-v2 jina-bert-v3 llada llada-moe modern-bert neo-bert nomic-bert
    nomic-bert-moe rnd1 wavtokenizer-dec
    """
)

UNSERVED = {
    **dict.fromkeys(UNCACHED, "it has no KV cache"),
    **dict.fromkeys(("clip",), "it is a projector, not a language model"),
    **dict.fromkeys(("t5", "t5encoder"), "an encoder with a decoder"),
    **dict.fromkeys(("mllama",), "its cross-attention is not llama.cpp's, so Ollama's llama-server cannot load it"),
    **dict.fromkeys(("dflash", "eagle3", "gemma4-assistant"), "a draft model, whose cache depends on another model"),
    **dict.fromkeys(("deepseek4", "minimax-m3", "qwen4exp"), "its caches of compressed keys are not modelled"),
    **dict.fromkeys(("graniteswitch", "nanbeige", "pockettts"), "its further layers are not modelled"),
}

KNOWN = (
    PLAIN
    | WINDOWS.keys()
    | EXTRA_LAYERS
    | MLA
    | RECURRENT_WITHOUT_KV_HEADS
    | RECURRENT_WITHOUT_KV_HEADS_OR_FF
    | RECURRENT_BUT_EVERY.keys()
    | RECURRENT_AND_ATTENTION
    | RECURRENT_ONLY
)

ATTENTION_SINKS = frozenset({"deepseek4", "gpt-oss", "granite-swa", "mimo2"})
"""with a learned sink in every head's softmax"""

QUANTIZED_FAILS = {
    "deepseek4": "with a quantized cache of it llama.cpp before July 2026 answers gibberish (#25382, #25202), later "
    "ones need one type for K and V (#25871), and turbo types were never measured with it",
    "qwen4exp": "with a quantized cache of it llama.cpp before September 2026 ends with a failed assertion (#27742)",
}
"""architectures whose service fails with a quantized cache, or did in builds that are in use; f16 works"""

EXTREME_KEYS = frozenset({"qwen2", "qwen2moe", "qwen2vl"})
"""architectures of Qwen2.5, whose keys have extreme channels"""

TELLING_KEYS = (
    "sliding_window",
    "key_length_mla",
    "ssm.",
    "wkv.",
    "shortconv.",
    "kda.",
    "shared_kv",
    "indexer",
    "nextn",
    "cross_attention",
    "kv_lora_rank",
    "compress_ratio",
    "hyper_connection",
    "pooling_type",
    "attention.causal",
)
"""metadata that show that an architecture is not a plain one"""

OTHER_KINDS = {
    "mmproj": "a projector",
    "adapter": "an adapter",
    "vocab": "a vocabulary",
    "imatrix": "a matrix of weights",
}
"""values of general.type for files that are no model by themselves"""
