"""Trains a BitNet b1.58 decoder in plain PyTorch and prints its speed as one JSON line.

  pytorch_bitnet.py --shape d256 --steps 20 [--compile] [--style hf|tuned] [--dense]
                    [--precision fp32|bf16] [--threads 2] [--tokens FILE.tokens.h5]

The peer of `tern bench train`: same shape, batch, loss, clipping and optimizer (AdamW, fused). The
median runs over the steps after the warm-up, so compilation is not counted. The figures are
tokens_per_second, step_seconds, peak_rss_bytes (of this process, torch included), loss first and
last.
"""

import argparse
import contextlib
import json
import resource
import statistics
import time

import numpy as np
import torch

from pytorch_model import SHAPES, Decoder

LEARNING_RATE = 1.5e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
CLIP_NORM = 1.0


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="d256")
    parser.add_argument("--style", choices=["hf", "tuned"], default="hf")
    parser.add_argument("--dense", action="store_true", help="nn.Linear instead of BitLinear")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--tokens", help="*.tokens.h5 with /train/tokens; default: random tokens")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument(
        "--json", action="store_true", help="accepted for symmetry; output is JSON anyway"
    )
    return parser.parse_args()


def token_stream(args, shape):
    """1-D int64 array of tokens: the file's train split, or uniform random ones."""
    if args.tokens is None:
        rng = np.random.default_rng(args.seed)
        return rng.integers(0, shape.vocab_size, shape.batch * (shape.sequence + 1) * 16)
    import h5py  # Only this mode needs it.

    with h5py.File(args.tokens, "r") as file:
        tokens = file["/train/tokens"][:].astype(np.int64)
    if tokens.max() >= shape.vocab_size or tokens.size <= shape.sequence:
        raise SystemExit(
            f"{args.tokens}: ids up to {tokens.max()}, {tokens.size} tokens; does not fit"
        )
    return tokens


def batches(args, shape):
    """Endless (ids [B, T], targets [B, T]) from random windows, same seed same order."""
    tokens = token_stream(args, shape)
    rng = np.random.default_rng(args.seed + 1)
    while True:
        starts = rng.integers(0, tokens.size - shape.sequence, shape.batch)
        windows = np.stack([tokens[s : s + shape.sequence + 1] for s in starts])
        block = torch.from_numpy(windows)
        yield block[:, :-1].contiguous(), block[:, 1:].contiguous()


def train_step(model, optimizer, autocast, batch):
    optimizer.zero_grad(set_to_none=True)
    with autocast():
        loss = model(*batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.item()


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    shape = SHAPES[args.shape]
    model = Decoder(shape, "dense" if args.dense else args.style)
    num_parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    if args.compile:
        model = torch.compile(model)
    autocast = contextlib.nullcontext
    if args.precision == "bf16":
        autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)

    source, losses, seconds = batches(args, shape), [], []
    for step in range(args.warmup + args.steps):
        batch = next(source)
        begin = time.perf_counter()
        losses.append(train_step(model, optimizer, autocast, batch))
        if step >= args.warmup:
            seconds.append(time.perf_counter() - begin)

    tokens_per_step = shape.batch * shape.sequence
    print(json.dumps({
        "program": "pytorch", "torch": torch.__version__, "shape": args.shape,
        "style": "dense" if args.dense else args.style, "compiled": args.compile,
        "precision": args.precision, "threads": torch.get_num_threads(),
        "parameters": num_parameters,
        "tokens_per_step": tokens_per_step, "steps": args.steps, "warmup": args.warmup,
        "tokens_per_second": tokens_per_step / statistics.median(seconds),
        "step_seconds": [round(s, 5) for s in seconds],
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "loss_first": losses[0], "loss_last": losses[-1],
    }))  # fmt: skip


if __name__ == "__main__":
    main()
