"""Writers for the tiny model: a GGUF through gguf-py and a Hugging Face folder.

They follow the conventions of the tools that read them (llama.cpp as vendored in llama-cpp-python
0.3.36, transformers 5.23), so that a check of those tools against tiny_reference.py tells what the
tools themselves want. FACTS.md keeps what was learned. They do not use tern.
"""

import json
import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

from tiny_reference import LINEARS
from tiny_tokenizer import add_gguf_tokenizer, write_hf_tokenizer

GGUF_LINEAR = {
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip
GGUF_NORM = {
    "attn_norm": "attn_norm", "ffn_norm": "ffn_norm", "attn_sub_norm": "attn_sub_norm",
    "ffn_sub_norm": "ffn_sub_norm", "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
}  # fmt: skip
HF_LINEAR = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
HF_NORM = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_sub_norm": "self_attn.attn_sub_norm", "ffn_sub_norm": "mlp.ffn_sub_norm",
    "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm",
}  # fmt: skip


def permute_rotary(w_NK, num_heads):
    """Rows of a rotate-half projection in the order of interleaved RoPE (arch llama)."""
    n, k = w_NK.shape
    return w_NK.reshape(num_heads, 2, n // num_heads // 2, k).swapaxes(1, 2).reshape(n, k)


def tq2_0(codes_NK, d):
    """TQ2_0 bytes [N, K / 256 * 66] with the same F16 d in every block, all-zero ones too."""
    rows = gguf.quants.quantize(codes_NK.astype(np.float32), gguf.GGMLQuantizationType.TQ2_0)
    blocks = rows.reshape(-1, 66)
    blocks[:, 64:] = np.frombuffer(np.float16(d).tobytes(), np.uint8)
    return blocks.reshape(rows.shape)


def add_gguf_hparams(writer, config):
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_TQ2_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_gguf(path, config, model, tokenizer_bytes, scale="separate", embed_type="f32"):
    """scale: `separate` = d 1.0, F32 [1] `.scale`; `in_block` = d F16(beta); `both` = wrong."""
    writer = gguf.GGUFWriter(path, config.family)
    add_gguf_hparams(writer, config)
    add_gguf_tokenizer(writer, tokenizer_bytes)
    table_type = np.float16 if embed_type == "f16" else np.float32
    writer.add_tensor("token_embd.weight", model["embed"].astype(table_type))
    writer.add_tensor("output_norm.weight", model["norm"])
    if not config.tied:
        writer.add_tensor("output.weight", model["head"].astype(table_type))
    for i, layer in enumerate(model["layers"]):
        for name in LINEARS:
            codes, beta = layer[name]["codes"], layer[name]["beta"]
            if config.family == "llama" and name in ("q", "k"):
                heads = config.num_heads if name == "q" else config.num_kv_heads
                codes = permute_rotary(codes, heads)
            stem = f"blk.{i}.{GGUF_LINEAR[name]}"
            data = tq2_0(codes, beta if scale in ("in_block", "both") else 1.0)
            writer.add_tensor(f"{stem}.weight", data, raw_dtype=gguf.GGMLQuantizationType.TQ2_0)
            if scale in ("separate", "both"):
                writer.add_tensor(f"{stem}.scale", np.array([beta], np.float32))
        for name, target in GGUF_NORM.items():
            if name in layer:
                writer.add_tensor(f"blk.{i}.{target}.weight", layer[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pack_hf(codes_NK):
    """Byte row r holds code + 1 of rows r, r+N/4, r+2N/4, r+3N/4 at bits 0, 2, 4, 6 (N % 4 = 0)."""
    n, _ = codes_NK.shape
    parts = (codes_NK + 1).astype(np.uint8).reshape(4, n // 4, -1)
    return parts[0] | parts[1] << 2 | parts[2] << 4 | parts[3] << 6


def hf_linear(layer_linear, kind):
    """{suffix: array} of one projection for kind bitnet | autobitnet | online | dense."""
    codes, beta = layer_linear["codes"], layer_linear["beta"]
    if kind == "online":
        return {"weight": layer_linear["latents"]}
    if kind == "dense":
        return {"weight": codes.astype(np.float32) * beta}
    scale = np.float32(1) / beta if kind == "bitnet" else beta
    return {"weight": pack_hf(codes), "weight_scale": np.array([scale], np.float32)}


HF_CLASS = {
    "bitnet": ("BitNetForCausalLM", "bitnet"),
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
}


def hf_config(config, kind, dtype="float32"):
    """config.json of transformers 5: rope under rope_parameters, dtype not torch_dtype."""
    cls, model_type = HF_CLASS[config.family]
    out = {
        "architectures": [cls], "model_type": model_type, "vocab_size": config.vocab_size,
        "hidden_size": config.width, "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.num_layers, "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_width,
        "hidden_act": "silu", "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps, "attention_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied, "bos_token_id": 1, "eos_token_id": 2, "dtype": dtype,
    }  # fmt: skip
    if kind != "dense":
        out["quantization_config"] = {
            "quant_method": "bitnet",
            "linear_class": "bitlinear" if kind == "bitnet" else "autobitlinear",
            "quantization_mode": "online" if kind == "online" else "offline",
            "modules_to_not_convert": ["lm_head"],
        }
    return out


def write_hf(folder, config, model, tokenizer_bytes, kind):
    """Folder with config.json, model.safetensors, tokenizer.json and tokenizer_config.json."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"model.embed_tokens.weight": model["embed"], "model.norm.weight": model["norm"]}
    if not config.tied:
        tensors["lm_head.weight"] = model["head"]
    for i, layer in enumerate(model["layers"]):
        for name in LINEARS:
            for suffix, array in hf_linear(layer[name], kind).items():
                tensors[f"model.layers.{i}.{HF_LINEAR[name]}.{suffix}"] = array
        for name, target in HF_NORM.items():
            if name in layer:
                tensors[f"model.layers.{i}.{target}.weight"] = layer[name]
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_config(config, kind), indent=2) + "\n")
    if tokenizer_bytes is not None:
        write_hf_tokenizer(folder, tokenizer_bytes)
