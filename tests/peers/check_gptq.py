"""Holds the GPTQ, AWQ and blockwise FP8 folders of `tern quantize` against their documented layouts.

  check_gptq.py SOURCE --tern build/cpu/bin/tern --ids ids.txt [--report FILE]

Each folder is made from SOURCE (a Hugging Face folder), unpacked here with numpy as AutoGPTQ, gptqmodel and
AutoAWQ describe it, word by word and without anything of tern's, and put into transformers' float model;
its float32 logits must be those of `tern logits` of the folder. transformers loads the FP8 folder itself,
too. Exit 0 all hold, 4 one does not.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import compare
import numpy as np
from check_quantize import tern_logits
from compare import Bound

CASES = [("int4", "gptq"), ("int4", "gptq_v2"), ("int4_asym", "gptq_v2"), ("w8", "gptq"), ("w3", "gptq"),
         ("w2", "gptq"), ("int4", "awq"), ("int4_asym", "awq"), ("fp8_block", "fp8")]  # fmt: skip
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # Nibble p of a word is output AWQ_ORDER[p] of its eight


def codes_of(words, bits):
    """Words [W, N] to codes [32 W / bits, N], lowest bits first; code k lies at bit k * bits of a column."""
    stream = (words.astype(np.uint32)[:, None, :] >> np.arange(32, dtype=np.uint32)[None, :, None]) & 1
    stream = stream.reshape(-1, bits, words.shape[1])
    return (stream * (1 << np.arange(bits))[None, :, None]).sum(axis=1).astype(np.int64)


def gptq_weight(get, config):
    bits = config["bits"]
    codes = codes_of(get("qweight"), bits)  # [K, N]
    zeros = codes_of(get("qzeros").T, bits).T  # [G, N]
    if config["checkpoint_format"] == "gptq":
        zeros = (zeros + 1) % (1 << bits)
    groups = get("g_idx")
    return ((codes - zeros[groups]) * get("scales").astype(np.float32)[groups]).T.astype(np.float32)


def awq_weight(get, config):
    def nibbles(words):
        out = np.empty((words.shape[0], words.shape[1] * 8), np.int64)
        for place, output in enumerate(AWQ_ORDER):
            out[:, output::8] = (words.astype(np.uint32) >> np.uint32(4 * place)) & 15
        return out

    codes, scales = nibbles(get("qweight")), get("scales").astype(np.float32)  # [K, N], [G, N]
    groups = np.arange(codes.shape[0]) // (codes.shape[0] // scales.shape[0])
    return ((codes - nibbles(get("qzeros"))[groups]) * scales[groups]).T.astype(np.float32)


def fp8_weight(get, config):
    rows, columns = config["weight_block_size"]
    scale = get("weight_scale_inv").repeat(rows, 0).repeat(columns, 1)
    weight = get("weight")
    return weight * scale[: weight.shape[0], : weight.shape[1]]


def logits_of_unpacked(source, folder, ids):
    """transformers' logits of SOURCE's architecture with the folder's tensors."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    unpack = {"gptq": gptq_weight, "awq": awq_weight, "fp8": fp8_weight}[config["quant_method"]]
    packed = "weight_scale_inv" if config["quant_method"] == "fp8" else "qweight"
    stored, state = load_file(folder / "model.safetensors"), {}
    modules = {n.rsplit(".", 1)[0] for n in stored if n.endswith("." + packed)}
    for module in modules:
        def get(part, module=module):
            tensor = stored[f"{module}.{part}"]
            return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

        state[module + ".weight"] = torch.from_numpy(np.ascontiguousarray(unpack(get, config)))
    for name, tensor in stored.items():
        if name.rsplit(".", 1)[0] not in modules or name.endswith(".bias"):
            state[name] = tensor.float()
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or [n for n in missing if n != "lm_head.weight"]:
        raise SystemExit(f"{folder}: missing {missing[:3]}, unexpected {unexpected[:3]}")
    with torch.no_grad():
        return model(torch.tensor([compare.load_ids(ids)])).logits[0].numpy().astype(np.float64)


def logits_of_fp8(folder, ids):
    import torch
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=FineGrainedFP8Config(dequantize=True)
    )
    with torch.no_grad():
        out = torch.nn.Module.float(model)(torch.tensor([compare.load_ids(ids)])).logits[0]
    return out.numpy().astype(np.float64)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("--tern", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--report")
    args = parser.parse_args()
    results, record = [], {}
    with tempfile.TemporaryDirectory() as work:
        for scheme, container in CASES:
            name = f"{scheme} in {container}"
            folder = pathlib.Path(work) / name.replace(" ", "-")
            subprocess.run([args.tern, "quantize", args.source, "-o", folder, "--to", scheme,
                            "--container", container], check=True)  # fmt: skip
            subprocess.run([args.tern, "verify", folder, "--max-kl", "10", "--against", args.source], check=True)
            ours = tern_logits(args.tern, folder, args.ids)
            record[name] = compare.statistics(ours, logits_of_unpacked(args.source, folder, args.ids))
            bound = Bound(mean_kl=1e-6, top1=0.95, why="the same fp32 values; products add in another order")
            results.append(compare.judge(name, record[name], bound))
            if container == "fp8":
                stats = compare.statistics(ours, logits_of_fp8(folder, args.ids))
                bound = Bound(mean_kl=2e-3, top1=0.9, why="weights rounded to bfloat16")
                results.append(compare.judge(f"{name} by transformers", stats, bound))
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
