"""A tiny decoder and its plain float64 forward, in numpy.

The oracle of the peer checks: it shares no code with tern, llama.cpp or transformers. Quantizers
are computed in float32 in the order ARCHITECTURE.md gives (the codes are integers, so they must
agree exactly); everything else is float64. Shapes: T tokens, D width, H heads, J key/value heads, E
head width, F FFN width, V vocabulary, N out, K in.

Three families: `bitnet` (sub-norms before o_proj and down_proj, tied head), `llama` (no sub-norms),
`qwen3` (RMSNorm of every query and key head before RoPE). It does not do caching, batches, or
anything fast.
"""

import dataclasses

import numpy as np

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    """Shape of the model. Rows of TQ types must divide by 256: D and F are multiples of 256."""

    family: str = "bitnet"
    vocab_size: int = 384
    width: int = 256
    ffn_width: int = 512
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = True
    context: int = 256

    @property
    def head_width(self):
        return self.width // self.num_heads

    def linear_shape(self, name):
        """[N, K] of one of LINEARS."""
        kv_width = self.num_kv_heads * self.head_width
        return {
            "q": (self.width, self.width),
            "k": (kv_width, self.width),
            "v": (kv_width, self.width),
            "o": (self.width, self.width),
            "gate": (self.ffn_width, self.width),
            "up": (self.ffn_width, self.width),
            "down": (self.width, self.ffn_width),
        }[name]


def ternary(w_NK):
    """Codes int8 in {-1, 0, 1} and float32 beta = max(mean|W|, 1e-5); rint is half-to-even."""
    w_NK = w_NK.astype(np.float32)
    beta = np.float32(max(np.abs(w_NK).astype(np.float64).mean(), 1e-5))
    r = np.float32(1) / beta
    return np.clip(np.rint(w_NK * r), -1, 1).astype(np.int8), beta


def make_model(config, seed=7):
    """Random latents and norms: {"embed" [V, D], "head", "norm", "layers": [{name: array}]}."""
    rng = np.random.default_rng(seed)
    norm = lambda n: (1 + 0.1 * rng.standard_normal(n)).astype(np.float32)
    layers = []
    for _ in range(config.num_layers):
        layer = {}
        for name in LINEARS:
            shape = config.linear_shape(name)
            latents = (rng.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            codes, beta = ternary(latents)
            layer[name] = {"latents": latents, "codes": codes, "beta": beta}
        layer["attn_norm"], layer["ffn_norm"] = norm(config.width), norm(config.width)
        if config.family == "bitnet":
            layer["attn_sub_norm"], layer["ffn_sub_norm"] = (
                norm(config.width),
                norm(config.ffn_width),
            )
        if config.family == "qwen3":
            layer["q_norm"], layer["k_norm"] = norm(config.head_width), norm(config.head_width)
        layers.append(layer)
    # Rounded to F16 so that a file may hold the table as F16 or F32 with equal values.
    table = lambda: (0.1 * rng.standard_normal((config.vocab_size, config.width))).astype(
        np.float16
    )
    embed = table().astype(np.float32)
    head = embed if config.tied else table().astype(np.float32)
    return {"embed": embed, "head": head, "norm": norm(config.width), "layers": layers}


def quantize_int8_token(x_TK):
    """BitNet's rule: one scale a token, absmax to 127. Returns dequantized float64."""
    x = x_TK.astype(np.float32)
    gamma = np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
    s = np.float32(127) / gamma
    q = np.clip(np.rint(x * s), -128, 127)
    return q.astype(np.float64) * (gamma / np.float32(127)).astype(np.float64)


def quantize_q8_k(x_TK):
    """llama.cpp's Q8_K: one scale a block of 256, the signed extreme maps to -127."""
    x = x_TK.astype(np.float32).reshape(*x_TK.shape[:-1], -1, 256)
    index = np.abs(x).argmax(axis=-1)[..., None]
    extreme = np.take_along_axis(x, index, axis=-1)
    safe = np.where(extreme == 0, np.float32(1), extreme)
    inverse = np.float32(-127) / safe
    q = np.minimum(np.rint(x * inverse), 127)
    y = np.where(
        extreme == 0, 0, q.astype(np.float64) * (np.float32(1) / inverse).astype(np.float64)
    )
    return y.reshape(x_TK.shape)


ACTIVATIONS = {
    "int8_token": quantize_int8_token,
    "q8_k": quantize_q8_k,
    "none": lambda x_TK: x_TK,
}


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight.astype(np.float64)


def rope(x_HTE, theta):
    """Rotate-half RoPE: pair (i, i + E/2)."""
    _, num_tokens, width = x_HTE.shape
    inverse = theta ** (-np.arange(0, width, 2) / width)
    angle = np.arange(num_tokens)[:, None] * inverse[None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x_HTE[..., : width // 2], x_HTE[..., width // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention(q_HTE, k_JTE, v_JTE):
    repeat = q_HTE.shape[0] // k_JTE.shape[0]
    k, v = np.repeat(k_JTE, repeat, axis=0), np.repeat(v_JTE, repeat, axis=0)
    num_tokens, width = q_HTE.shape[1:]
    scores = q_HTE @ k.transpose(0, 2, 1) / np.sqrt(width)
    scores = np.where(np.tril(np.ones((num_tokens, num_tokens), bool)), scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True) @ v


def block(config, layer, x_TD, quantize):
    def linear(name, x):
        w = layer[name]
        return quantize(x) @ w["codes"].T.astype(np.float64) * np.float64(w["beta"])

    def heads(x, count):
        return x.reshape(x.shape[0], count, -1).transpose(1, 0, 2)

    h = rms_norm(x_TD, layer["attn_norm"], config.norm_eps)
    q = heads(linear("q", h), config.num_heads)
    k = heads(linear("k", h), config.num_kv_heads)
    v = heads(linear("v", h), config.num_kv_heads)
    if config.family == "qwen3":
        q = rms_norm(q, layer["q_norm"], config.norm_eps)
        k = rms_norm(k, layer["k_norm"], config.norm_eps)
    mixed = attention(rope(q, config.rope_theta), rope(k, config.rope_theta), v)
    mixed = mixed.transpose(1, 0, 2).reshape(x_TD.shape)
    if config.family == "bitnet":
        mixed = rms_norm(mixed, layer["attn_sub_norm"], config.norm_eps)
    x_TD = x_TD + linear("o", mixed)

    h = rms_norm(x_TD, layer["ffn_norm"], config.norm_eps)
    gate = linear("gate", h)
    inner = gate / (1 + np.exp(-gate)) * linear("up", h)
    if config.family == "bitnet":
        inner = rms_norm(inner, layer["ffn_sub_norm"], config.norm_eps)
    return x_TD + linear("down", inner)


def forward(config, model, ids, activation):
    """Logits [T, V], float64, of one sequence of token ids under a rule of ACTIVATIONS."""
    x_TD = model["embed"][np.asarray(ids)].astype(np.float64)
    for layer in model["layers"]:
        x_TD = block(config, layer, x_TD, ACTIVATIONS[activation])
    x_TD = rms_norm(x_TD, model["norm"], config.norm_eps)
    return x_TD @ model["head"].T.astype(np.float64)
