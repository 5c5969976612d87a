"""Holds what `tern quantize` writes against the programs that load it.

  check_quantize.py SOURCE --tern build/cpu/bin/tern --ids ids.txt [--schemes int4,fp8,...]
      [--calibration TEXT] [--folder EXPORT ...] [--report FILE]

Every compressed-tensors layout is made from SOURCE (and every --folder, which an export stage has
written as hf/compressed_tensors, is taken as it is; --schemes "" for these alone; one that asks for
rounded inputs is also run with them by both programs, on the stored weights to the bit: the package's
rounding must be tern's, at least twice as close as without; deep models, where one input on a
boundary moves all behind it, are not), loaded by transformers + compressed-tensors on the
CPU in float32, and its logits of the ids compared with `tern logits` of the same folder. The package
rounds code times scale to the scale's bfloat16, which tern does not. Layouts that quantize activations
do so in transformers only: they are compared without it under the same bound, and with it, which shows
that the keys are understood. The bounds are what this does to the logits, and far below what another
layout, order of codes or direction of scales would do (a KL above 0.5).
fp8_block wants rows that divide by 128 (make_hf_models.py: llama-wide). Exit 0 all hold, 4 one does not.
"""

import argparse
import json
import pathlib
import struct
import subprocess
import tempfile

import compare
import numpy as np
from compare import Bound

# Not int4_asym: compressed-tensors 0.20 makes room for unpacked zero points when transformers loads,
# though it writes packed ones, so no such folder loads (its own neither).
# mixed: --to-bits, several integer types in one folder. rotated: int4 behind --rotate, whose head is untied.
WEIGHTS_ONLY = ["int4", "w3", "w2", "w8", "nvfp4", "mxfp4", "mixed", "rotated"]
OPTIONS = {"mixed": ["--to-bits", "{bits}"], "rotated": ["--to", "int4", "--rotate"]}
WITH_ACTIVATIONS = ["int8", "fp8", "fp8_static", "fp8_block"]
WEIGHTS_IN_BF16 = Bound(mean_kl=2e-3, top1=0.95, why="weights rounded to bfloat16")
# The same rounding of inputs on both sides, of a training: verify's bound, for some fall the other way.
INPUTS_TOO = Bound(mean_kl=5e-3, top1=0.95, why="inputs in 8 bits")


def tern_logits(tern, model, ids, options=()):
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([tern, "logits", model, "--tokens", ids, "-o", out.name, *options], check=True)
        return compare.load_logits(out.name, len(compare.load_ids(ids)))


def asks_for_inputs(folder):
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    return any(group["input_activations"] for group in groups)


def write_tokens(path, vocab_size, count=8192):
    """A Megatron dataset of one document of random ids, path.idx and path.bin, to calibrate on."""
    ids = np.random.default_rng(1).integers(3, vocab_size, count, dtype=np.int32)
    ids.tofile(f"{path}.bin")
    with open(f"{path}.idx", "wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 4, 1, 2))  # Version, int32, 1 sequence
        np.array([count], np.int32).tofile(file)
        np.array([0, 0, 1], np.int64).tofile(file)  # Where it begins; documents
    return f"{path}.idx"


def transformers_logits(folder, ids, exact=False):
    """Logits [T, V] in float32: of the weights alone, and with the activations that the keys ask for.
    exact: of code times scale in float32 (of 8-bit codes), as tern has them."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, output_loading_info=True
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            raise SystemExit(f"{folder}: {kind}: {sorted(info[kind])[:5]}")
    tokens = torch.tensor([compare.load_ids(ids)])
    with torch.no_grad():
        # The package decompresses at the first forward, to the scales' bfloat16; floats come after.
        model(tokens)
        torch.nn.Module.float(model)
        if exact:
            stored = load_file(f"{folder}/model.safetensors")
            for name, module in model.named_modules():
                if f"{name}.weight_scale" in stored:
                    codes, scale = stored[f"{name}.weight"], stored[f"{name}.weight_scale"]
                    module.weight.copy_(codes.float() * scale.float())
                elif f"{name}.weight" in stored:
                    module.weight.copy_(stored[f"{name}.weight"])
        both = model(tokens).logits[0]
        for module in model.modules():
            module.quantization_enabled = False
        weights = model(tokens).logits[0]
    return [x.float().numpy().astype(np.float64) for x in (weights, both)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("--tern", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--schemes", default=",".join(WEIGHTS_ONLY + WITH_ACTIVATIONS))
    parser.add_argument("--calibration")
    parser.add_argument("--bits", default="6", help="of mixed, embedding and head included")
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("--report")
    args = parser.parse_args()
    results, record = [], {}
    with tempfile.TemporaryDirectory() as work:
        for folder in args.folder:
            ours = tern_logits(args.tern, folder, args.ids)
            weights, _ = transformers_logits(folder, args.ids)
            record[folder] = compare.statistics(ours, weights)
            results.append(compare.judge(folder, record[folder], WEIGHTS_IN_BF16))
            if asks_for_inputs(folder):
                rounded = tern_logits(args.tern, folder, args.ids, ["--activations", "folder"])
                _, both = transformers_logits(folder, args.ids, exact=True)
                name = f"{folder} with inputs"
                record[name] = compare.statistics(rounded, both)
                results.append(compare.judge(name, record[name], INPUTS_TOO))
                plain = compare.statistics(ours, both)["mean_kl"]
                print(f"      without, the mean KL is {plain:.3g}")
                if plain < 2 * record[name]["mean_kl"]:
                    results.append(False)
                    print(f"FAIL  {name}: hardly closer than without: another rounding")
        for scheme in filter(None, args.schemes.split(",")):
            folder = pathlib.Path(work) / scheme
            command = [args.tern, "quantize", args.source, "-o", folder, "--allow-requantize"]
            command += [o.format(bits=args.bits) for o in OPTIONS.get(scheme, ["--to", scheme])]
            if scheme in ("fp8_static", "mixed") and not args.calibration:
                vocab = json.loads((pathlib.Path(args.source) / "config.json").read_text())["vocab_size"]
                tokens = write_tokens(f"{work}/tokens", vocab)
                command += ["--calibration", tokens, "--method", "rtn", "--sequence", "64", "--calibration-tokens", "2048"]
            if args.calibration:
                command += ["--calibration", args.calibration]
            subprocess.run(command, check=True)
            ours = tern_logits(args.tern, folder, args.ids)
            weights, both = transformers_logits(folder, args.ids)
            record[scheme] = compare.statistics(ours, weights)
            results.append(compare.judge(scheme, record[scheme], WEIGHTS_IN_BF16))
            if scheme in WITH_ACTIVATIONS:
                name = f"{scheme} with activations"
                record[name] = compare.statistics(ours, both)
                # FP8 has 3 bits behind the point: 3 % of each input, some 5 % of a logit.
                bound = Bound(mean_kl=1e-1, why="activations in 8 bits")
                results.append(compare.judge(name, record[name], bound))
                if record[name]["mean_kl"] < 4 * record[scheme]["mean_kl"]:
                    results.append(False)
                    print(f"FAIL  {name}: the same as without: the keys were not understood")
    compare.finish(results, args.report, record)


if __name__ == "__main__":
    main()
