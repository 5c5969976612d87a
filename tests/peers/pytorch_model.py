"""The decoder of tern's bench recipes in plain PyTorch: BitLinear W1.58A8, norms as in b1.58-2B-4T.

Quantizers use the formulas of transformers' WeightQuant and ActQuant with straight-through
gradients. Two ways of writing it, both common: style `hf` (every BitLinear quantizes its own input,
`.detach()`) and style `tuned` (q, k, v share one quantized input, so do gate and up;
autograd.Function instead of `.detach()`, so no extra additions). `dense` swaps BitLinear for
nn.Linear. Same values in all styles. Letters: B batch, T tokens, D width, H heads, J key/value
heads, E head width, F FFN width, V vocabulary.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass(frozen=True)
class Shape:
    vocab_size: int
    width: int
    ffn_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    batch: int = 8
    sequence: int = 256
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_width(self):
        return self.width // self.num_heads


SHAPES = {
    "d256": Shape(4096, 256, 768, 6, 4, 4),
    "d512": Shape(8192, 512, 1536, 8, 8, 8),
}


def quantize_weight(w_NK):
    """Ternary codes times mean|W|, in float32 whatever autocast says."""
    w = w_NK.float()
    scale = 1.0 / w.abs().mean().clamp_(min=1e-5)
    return (w * scale).round().clamp(-1, 1) / scale


def quantize_activation(x_BTK):
    """Absmax int8 a token, dequantized."""
    x = x_BTK.float()
    scale = 127 / x.abs().amax(dim=-1, keepdim=True).clamp_(min=1e-5)
    return (x * scale).round().clamp(-128, 127) / scale


class StraightThrough(torch.autograd.Function):
    """forward: quantizer(x); backward: identity."""

    @staticmethod
    def forward(_ctx, x, quantizer):
        return quantizer(x).to(x.dtype)

    @staticmethod
    def backward(_ctx, grad):
        return grad, None


class BitLinear(nn.Linear):
    """HF style: quantizes its input and its weight on every call."""

    def __init__(self, num_in, num_out):
        super().__init__(num_in, num_out, bias=False)

    def forward(self, x):
        x = x + (quantize_activation(x) - x).detach()
        w = self.weight + (quantize_weight(self.weight) - self.weight).detach()
        return F.linear(x, w)


class SharedBitLinear(nn.Linear):
    """Tuned style: the caller hands over an input that is already quantized."""

    def __init__(self, num_in, num_out):
        super().__init__(num_in, num_out, bias=False)

    def forward(self, x):
        return F.linear(x, StraightThrough.apply(self.weight, quantize_weight))


class DenseLinear(nn.Linear):
    def __init__(self, num_in, num_out):
        super().__init__(num_in, num_out, bias=False)


LINEAR = {"hf": BitLinear, "tuned": SharedBitLinear, "dense": DenseLinear}


class Attention(nn.Module):
    def __init__(self, shape, style):
        super().__init__()
        self.shape, self.tuned = shape, style == "tuned"
        linear, kv_width = LINEAR[style], shape.num_kv_heads * shape.head_width
        self.q_proj = linear(shape.width, shape.width)
        self.k_proj = linear(shape.width, kv_width)
        self.v_proj = linear(shape.width, kv_width)
        self.o_proj = linear(shape.width, shape.width)
        self.attn_sub_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        if self.tuned:
            x = StraightThrough.apply(x, quantize_activation)
        heads = lambda y: y.view(b, t, -1, self.shape.head_width).transpose(1, 2)
        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        q, k = apply_rope(q, cos, sin).to(v.dtype), apply_rope(k, cos, sin).to(v.dtype)
        grouped = self.shape.num_kv_heads != self.shape.num_heads
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        y = self.attn_sub_norm(y.transpose(1, 2).reshape(b, t, -1))
        if self.tuned:
            y = StraightThrough.apply(y, quantize_activation)
        return self.o_proj(y)


class GatedFfn(nn.Module):
    def __init__(self, shape, style):
        super().__init__()
        self.tuned = style == "tuned"
        linear = LINEAR[style]
        self.gate_proj = linear(shape.width, shape.ffn_width)
        self.up_proj = linear(shape.width, shape.ffn_width)
        self.down_proj = linear(shape.ffn_width, shape.width)
        self.ffn_sub_norm = nn.RMSNorm(shape.ffn_width, eps=shape.norm_eps)

    def forward(self, x):
        if self.tuned:
            x = StraightThrough.apply(x, quantize_activation)
        y = self.ffn_sub_norm(F.silu(self.gate_proj(x)) * self.up_proj(x))
        if self.tuned:
            y = StraightThrough.apply(y, quantize_activation)
        return self.down_proj(y)


class Block(nn.Module):
    def __init__(self, shape, style):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.self_attn = Attention(shape, style)
        self.post_attention_layernorm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.mlp = GatedFfn(shape, style)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """forward(ids_BT, targets_BT) gives the mean cross-entropy; the head is the embedding, tied."""

    def __init__(self, shape, style):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.layers = nn.ModuleList(Block(shape, style) for _ in range(shape.num_layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        cos, sin = rope_tables(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids_BT, targets_BT):
        x = self.embed_tokens(ids_BT)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits_BTV = F.linear(self.norm(x), self.embed_tokens.weight)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


def rope_tables(shape):
    inverse = shape.rope_theta ** (-torch.arange(0, shape.head_width, 2) / shape.head_width)
    angle = torch.outer(torch.arange(shape.sequence).float(), inverse)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def apply_rope(x_BHTE, cos_TE, sin_TE):
    a, b = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * cos_TE + torch.cat([-b, a], dim=-1) * sin_TE
