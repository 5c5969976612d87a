"""Makes tiny random models of other makers' decoders with transformers' own classes, and the
logits transformers computes from the files it wrote.

  make_hf_models.py -o DIR [--dtype float32|bfloat16|float16] [--num-tokens 40]

DIR/<name>/ gets config.json and model.safetensors, DIR/<name>.f32 the logits (float32 [T, V]
without a header) of the ids in DIR/ids.txt. Weights are random in `dtype`; transformers computes
in float32. Names: llama (tied), llama31 (rope scaling llama3), llama-linear (rope scaling linear),
llama-wide (rows that divide by 128), qwen2 (biases), qwen3 (QK norm, head_dim of its own), mistral (window longer than the ids),
mistral-window and qwen2-window (shorter; in all layers, in the last one) and sharded (llama in several files). Same seed, same files.
"""

import argparse
import os
import pathlib

SIZES = {
    "vocab_size": 300,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def configs():
    """{name: (config, from_pretrained's classes resolve the rest)}"""
    from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    return {
        "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
        "llama31": LlamaConfig(**SIZES, rope_parameters=LLAMA3),
        "llama-linear": LlamaConfig(**SIZES, rope_parameters=linear),
        "llama-wide": LlamaConfig(**(SIZES | {"intermediate_size": 256})),
        "qwen2": Qwen2Config(**SIZES),
        "qwen3": Qwen3Config(**SIZES, head_dim=32, tie_word_embeddings=True),
        "mistral": MistralConfig(**SIZES, sliding_window=256),
        "mistral-window": MistralConfig(**SIZES, sliding_window=11),
        "qwen2-window": Qwen2Config(
            **SIZES, use_sliding_window=True, sliding_window=9, max_window_layers=2
        ),
        "sharded": LlamaConfig(**SIZES),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--num-tokens", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(args.seed)
    args.output.mkdir(parents=True, exist_ok=True)
    ids = torch.randint(3, SIZES["vocab_size"], (args.num_tokens,)).tolist()
    (args.output / "ids.txt").write_text(" ".join(map(str, ids)) + "\n")
    for name, config in configs().items():
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter_name.endswith(".bias"):  # Made as zeros, which would test nothing
                    parameter.normal_(0, 0.5)
                if "norm" in parameter_name:
                    parameter.normal_(1, 0.1)
        folder = args.output / name
        size = "200KB" if name == "sharded" else "5GB"
        model.to(getattr(torch, args.dtype)).save_pretrained(folder, max_shard_size=size)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        logits.numpy().tofile(args.output / f"{name}.f32")
        print(f"{folder}: {type(model).__name__}, {len(list(folder.glob('*.safetensors')))} file(s)")


if __name__ == "__main__":
    main()
