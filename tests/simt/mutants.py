#!/usr/bin/env python3
"""Plants faults into the CUDA kernels, one at a time, and demands that the emulator's tests catch each: mutants.py --build DIR.

Each mutant is a copy of one source with one piece of text replaced (a missing barrier, a wrong lane, an element too many, an order
of summation that is not the contract's). The test that covers the source is compiled against the copy, by a plain build without a
sanitizer, and must fail. Reads beyond a buffer whose values go nowhere are not in the list: preset asan sees them. A mutant that
survives, a piece of text that is no longer there, or a test that fails without a fault is a fault of this check. Exit code 0: every
mutant was caught; 1: not.
"""

import argparse
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROW = "kernels/common/row.cuh"
QUANTIZE_ROW = "kernels/absmax_quantize/quantize_row.cuh"
NORM = "kernels/rms_norm_quantize/rms_norm_quantize.cuh"
WEIGHTS = "kernels/ternary_quantize/ternary_quantize.cuh"
SCALE = "kernels/ternary_quantize/ternary_scale.cuh"
GATE = "kernels/gated_ffn/gated_ffn.cuh"
ROPE_KV = "kernels/rope_kv/rope_kv.cuh"
GEMV = "kernels/ternary_gemm/ternary_gemv.cuh"
GEMV_MMA = "kernels/ternary_gemm/ternary_gemv_mma.cuh"
GEMM = "kernels/ternary_gemm/ternary_gemm.cuh"
FILL = "kernels/common/fill_rows.cuh"
W4 = "kernels/w4a16/w4a16_fragments.cuh"
W4_GEMV = "kernels/w4a16/w4a16_gemv.cuh"
W4_GEMM = "kernels/w4a16/w4a16_gemm.cuh"
BACKWARD = "kernels/ternary_backward/ternary_backward.cuh"
ROUND = "kernels/ternary_backward/round_gradient.cuh"
ATTENTION = "kernels/attention/attention.cuh"
TABLE = "kernels/table/table.cuh"
FP8 = "kernels/fp8/fp8.cuh"
ROUND_INPUTS = "kernels/round_inputs/round_inputs.cuh"
STEPS = "kernels/elementwise/elementwise.cuh"
TOP_K = "kernels/top_k/top_k.cuh"
ARGMAX = "kernels/top_k/argmax.cuh"
PLAIN_NORM = "kernels/rms_norm/rms_norm.cuh"
BARRIER = "simt::SyncBlock();"

# (test, source, which occurrence of the text, text, replacement, the fault)
MUTANTS = [
    ("absmax_quantize", ROW, 0, BARRIER, "", "no barrier before the maxima of the warps are read"),
    ("absmax_quantize", ROW, 1, BARRIER, "", "no barrier before the sums of the warps are read"),
    ("absmax_quantize", ROW, 0, "mask = 16", "mask = 8", "half of the warp is not in the maximum"),
    ("absmax_quantize", ROW, 1, "mask = 16", "mask = 8", "half of the warp is not in the sum"),
    ("absmax_quantize", ROW, 0, "i < kRowWarps", "i < kRowWarps - 1", "the last warp is not in the maximum"),
    ("absmax_quantize", ROW, 0, "j < left", "j <= left", "reads one element beyond the row"),
    ("absmax_quantize", ROW, 0, "left < 4", "left < 1", "a wide load across the end of the row"),
    ("absmax_quantize", QUANTIZE_ROW, 0, "rintf(", "roundf(", "halves away from zero"),
    ("absmax_quantize", QUANTIZE_ROW, 0, "i < padded_k", "i < k", "the padding is not written"),
    ("absmax_quantize", QUANTIZE_ROW, 0, "i < k; i += kRowStep", "i < k; i += 2 * kRowStep", "every other tile is not in the maximum"),
    ("absmax_quantize", QUANTIZE_ROW, 0, "(8 * j)", "(8 * (3 - j))", "the bytes of a word in reverse"),
    ("absmax_quantize", QUANTIZE_ROW, 0, "fabsf(v.value[j])", "v.value[j]", "negative values are not in the maximum"),
    ("rms_norm_quantize", NORM, 0, BARRIER, "", "no barrier between staging squares and adding them"),
    ("rms_norm_quantize", NORM, 1, BARRIER, "", "no barrier before inv_rms is read"),
    ("rms_norm_quantize", NORM, 0, "tile ^= 1", "tile ^= 0", "one shared tile instead of two: staged over while it is read"),
    ("rms_norm_quantize", NORM, 0, "half = kLanes / 2", "half = kLanes / 4", "half of the lanes are not joined"),
    ("rms_norm_quantize", NORM, 0, "half = kLanes / 2; half > 0; half /= 2", "half = 1; half < kLanes; half *= 2",
     "lanes joined in another order"),
    ("rms_norm_quantize", NORM, 0, "for (int i = thread; i < left; i += kLanes) sum +=",
     "for (int i = thread * left / kLanes; i < (thread + 1) * left / kLanes; ++i) sum +=", "lanes take runs instead of every 16th"),
    ("rms_norm_quantize", NORM, 0, "i % 4", "3 - i % 4", "lanes within a quad in reverse"),
    ("rms_norm_quantize", NORM, 0, "* inv_rms * gain.value[j]", "* (inv_rms * gain.value[j])", "products in another order"),
    ("rms_norm_quantize", NORM, 0, "static_cast<float>(d) + args.eps", "static_cast<float>(d)", "eps forgotten"),
    ("ternary_quantize", WEIGHTS, 0, "8 * j + 2 * plane", "8 * plane + 2 * j", "planes and bytes exchanged"),
    ("ternary_quantize", WEIGHTS, 0, "j >= left", "j > left", "one element of padding is counted as a zero weight"),
    ("ternary_quantize", WEIGHTS, 0, "mask = 16", "mask = 8", "half of the warp is not counted"),
    ("ternary_quantize", WEIGHTS, 0, "row < args.n", "row < args.n - 1", "the last row is not written"),
    ("ternary_quantize", WEIGHTS, 0, "t / 8 * 128", "t / 8 * 127", "a block starts an element early"),
    ("ternary_quantize", WEIGHTS, 0, "(changed | changed >> 1)", "changed", "a flip between 0 and 2 is not counted"),
    ("ternary_quantize", SCALE, 0, BARRIER, "", "no barrier between staging weights and adding them"),
    ("ternary_quantize", SCALE, 1, BARRIER, "", "no barrier between staging sums and joining them"),
    ("ternary_quantize", SCALE, 0, "tile ^= 1", "tile ^= 0", "one shared tile instead of two: staged over while it is read"),
    ("ternary_quantize", SCALE, 1, "tile ^= 1", "tile ^= 0", "the same where sums are joined"),
    ("ternary_quantize", SCALE, 0, "at < count", "at < count - 1", "the last weight is not in the sum"),
    ("ternary_quantize", SCALE, 0, "[lane][i]", "[lane][kScaleTile - 1 - i]", "a tile added right to left"),
    ("ternary_quantize", SCALE, 0, "double total", "float total", "sums of blocks joined in fp32"),
    ("gated_ffn", GATE, 0, "* kRowStep;", "* kRowStep / 2;", "every other step is done twice"),
    ("gated_ffn", GATE, 0, "i < args.count", "i < args.count - 1", "a last element by itself is left out"),
    ("gated_ffn", GATE, 0, "z * (1.0f / (1.0f + Exp(-z)))", "z / (1.0f + Exp(-z))", "a division where the contract multiplies"),
    ("gated_ffn", GATE, 0, "StoreFour(args.h + i, h, left)", "StoreFour(args.h + i, h, 4)", "writes beyond the last element"),
    ("gated_ffn", GATE, 0, "z < 0.0f ? 0.0f : z", "z", "squared without the ReLU"),
    ("rope_kv", ROPE_KV, 0, "i < half; i +=", "i < half - 1; i +=", "the last pair is left out"),
    ("rope_kv", ROPE_KV, 0, "low * cosine[i] - high * sine[i]", "low * cosine[i] + high * sine[i]", "queries the wrong way round"),
    ("rope_kv", ROPE_KV, 0, "low * c - high * s", "low * c + high * s", "keys the wrong way round"),
    ("rope_kv", ROPE_KV, 0, "is_low ? i : i - half", "i / 2", "neighbours paired"),
    ("rope_kv", ROPE_KV, 0, "position = args.rows.positions[row]", "position = row", "the row for the position"),
    ("rope_kv", ROPE_KV, 0, "row * args.ldq", "row * args.heads * width", "the wrong row step"),
    ("rope_kv", ROPE_KV, 0, "args.ldk + head * width", "args.ldk + (args.kv_heads - 1 - head) * width", "the keys of another head"),
    ("rope_kv", ROPE_KV, 0, "block < args.heads + args.kv_heads", "block <= args.heads + args.kv_heads", "a value's head taken for a key's"),
    ("rope_kv", ROPE_KV, 0, "finite ? amax", "true ? amax", "the scale of NaN is a number"),
    ("rope_kv", ROPE_KV, 0, "kKvFloor", "0.0f", "no floor under the maximum"),
    ("rope_kv", ROPE_KV, 0, "mask = 16", "mask = 8", "half of the warp is not in the maximum"),
    ("ternary_gemv", GEMV, 0, BARRIER, "", "no barrier before the sums of the warps are read"),
    ("ternary_gemv", GEMV, 0, "delta = 16", "delta = 8", "half of the warp is not in the sum"),
    ("ternary_gemv", GEMV, 0, "(2 * plane)", "(2 * (plane ^ 1))", "planes exchanged in pairs"),
    ("ternary_gemv", GEMV, 0, "(c & 1) * 16", "(c & 1) * 15", "activations of the second half a byte early"),
    ("ternary_gemv", GEMV, 0, "c < args.padded_k / 64", "c < args.padded_k / 64 - 1", "the last step of a row is left out"),
    ("ternary_gemv", GEMV, 0, "- args.x_sum[b]", "", "the sum of activations is not taken off"),
    ("ternary_gemv", GEMV, 0, "+ b * args.ldx", "+ b * args.ldy", "the wrong row step"),
    ("ternary_gemv", GEMV_MMA, 0, BARRIER, "", "no barrier before the sums of the warps are read"),
    ("ternary_gemv", GEMV_MMA, 0, "step += kGemvMmaWarps", "step += kGemvMmaWarps + 1", "steps left out"),
    ("ternary_gemv", GEMV_MMA, 0, "args.padded_k % 256 != 0 &&", "false &&", "an odd block is left out"),
    ("ternary_gemv", GEMV_MMA, 0, "lane % 4 < 2 ? x : nullptr, steps", "x, steps", "activations beyond an odd block"),
    ("ternary_gemv", GEMV_MMA, 0, "128 * (t / 2)", "128 * (t % 2)", "activations of the other block"),
    ("ternary_gemv", GEMV_MMA, 0, "+ 64 * step + 16 * t", "+ 64 * step + 16 * (t ^ 1)", "another lane's weights"),
    ("ternary_gemv", GEMV_MMA, 0, "(low_words.word[2 * k_step] >>", "(low_words.word[2 * k_step + 1] >>", "the same fragment twice"),
    ("ternary_gemv", GEMV_MMA, 1, "(high_words.word[2 * k_step", "(low_words.word[2 * k_step", "the lower row for the upper"),
    ("ternary_gemv", GEMV_MMA, 0, "{b.word[2 * k_step], b.word[2 * k_step + 1]}", "{b.word[2 * k_step + 1], b.word[2 * k_step]}",
     "activation fragments exchanged"),
    ("ternary_gemv", GEMV_MMA, 0, "acc[0][i] + acc[1][i]", "acc[0][i]", "every other step is not in the sum"),
    ("ternary_gemv", GEMV_MMA, 0, "from < kGemvMmaWarps", "from < kGemvMmaWarps - 1", "the last warp is not in the sum"),
    ("ternary_gemv", GEMV_MMA, 0, "out_row < args.n", "out_row <= args.n", "writes a row too many"),
    ("ternary_gemv", GEMV_MMA, 0, "b < batch)", "b <= batch)", "writes a vector too many"),
    ("ternary_gemv", GEMV_MMA, 0, "8 * (warp / 2), b", "8 * (warp % 2), b", "rows and vectors exchanged"),
    ("ternary_gemm", GEMM, 0, BARRIER, "", "no barrier between copying a stage and reading it"),
    ("ternary_gemm", GEMM, 0, "simt::WaitForCopies<kGemmStages - 2>();", "", "no wait for copies"),
    ("ternary_gemm", GEMM, 0, "WaitForCopies<kGemmStages - 2>", "WaitForCopies<kGemmStages - 1>", "waits for a group too few"),
    ("ternary_gemm", GEMM, 1, "simt::CommitCopies();", "", "no group a step: the wait counts wrong"),
    ("ternary_gemm", GEMM, 0, "filled = kGemmStages - 1, used", "filled = 0, used", "refills the stage that is read"),
    ("ternary_gemm", GEMM, 0, "used + 1 == kGemmStages", "used + 2 == kGemmStages", "the last stage is never read"),
    ("ternary_gemm", GEMM, 0, "kGemmWeightRowBytes + 16 * t", "kGemmWeightRowBytes + 16 * (t ^ 1)", "another lane's weights"),
    ("ternary_gemm", GEMM, 0, "[half][i & 1].word", "[half][1 - (i & 1)].word", "fragments of rows g and g + 8 exchanged"),
    ("ternary_gemm", GEMM, 0, ".word[i >> 1]", ".word[i >> 1 ^ 1]", "fragments of the halves of k exchanged"),
    ("ternary_gemm", GEMM, 0, "(2 * plane)) & kCodes", "(2 * (plane ^ 1))) & kCodes", "planes exchanged in pairs"),
    ("ternary_gemm", GEMM, 0, "{x.word[2 * k_step], x.word[2 * k_step + 1]}", "{x.word[2 * k_step + 1], x.word[2 * k_step]}",
     "activation fragments exchanged"),
    ("ternary_gemm", GEMM, 0, "a[1][k_step], b", "a[0][k_step], b", "the upper rows of a warp take the lower ones' weights"),
    ("ternary_gemm", GEMM, 0, "(4 * (row & 1))", "(4 * (row & 0))", "bank conflicts"),
    ("ternary_gemm", GEMM, 0, "(args.padded_k + kGemmStepK - 1) / kGemmStepK", "args.padded_k / kGemmStepK", "the last half step is left out"),
    ("ternary_gemm", GEMM, 0, "8 * kTiles + 2 * (lane % 4)", "8 * (kTiles - 1) + 2 * (lane % 4)", "token tiles overlap by one"),
    ("ternary_gemm", GEMM, 0, "token >= args.m", "token > args.m", "writes a token too many"),
    ("ternary_gemm", GEMM, 0, "row >= args.n", "row > args.n", "writes a row too many"),
    ("ternary_gemm", FILL, 0, "+ i < source.rows", "+ i < source.rows - 1", "the last row and token are taken as zeros"),
    ("ternary_gemm", FILL, 0, "at + 16 * chunk < source.row_bytes", "at + 16 * chunk < source.row_bytes - 16",
     "the last 16 bytes of a row are taken as zeros"),
    ("ternary_gemm", GEMM, 0, "args.out_scale[token]", "args.out_scale[token0]", "another token's scale"),
    ("ternary_gemm", GEMM, 0, "args.x_sum[token]", "args.x_sum[token0]", "another token's sum"),
    ("ternary_gemm", GEMM, 0, "args.padded_k, args.ldx}", "args.padded_k, args.padded_k}", "the wrong row step"),
    ("w4a16", W4, 0, "0xC300u", "0xC380u", "128 + zero point with the wrong exponent"),
    ("w4a16", W4, 0, "0xD400D400u", "0xD000D000u", "64 + zero point with the wrong exponent"),
    ("w4a16", W4, 0, "(zero_pair & kLow) << 4", "(zero_pair & kLow) << 3", "half of the zero point"),
    ("w4a16", W4, 0, "kHigh, k1024", "kLow, k1024", "the same code twice"),
    ("w4a16", W4, 0, "word >> (4 * i), kLow", "word >> (4 * (i ^ 1)), kLow", "pairs exchanged (bf16)"),
    ("w4a16", W4, 0, "static_cast<int64_t>(group) * args.n", "static_cast<int64_t>(group + 1) % args.groups * args.n", "another group's scale"),
    ("w4a16", W4_GEMV, 0, BARRIER, "", "no barrier before the totals of the warps are read"),
    ("w4a16", W4_GEMV, 0, "group += kW4GemvWarps", "group += kW4GemvWarps + 1", "groups left out"),
    ("w4a16", W4_GEMV, 0, "128 * group + 8 * t", "128 * group + 8 * (t ^ 1)", "another lane's activations"),
    ("w4a16", W4_GEMV, 0, "x + 32 * r", "x + 32 * (r ^ 1)", "activations of another word"),
    ("w4a16", W4_GEMV, 0, "{pairs_low[2 * step], pairs_high[2 * step],", "{pairs_high[2 * step], pairs_low[2 * step],", "rows g and g + 8 exchanged"),
    ("w4a16", W4_GEMV, 0, "{b.word[2 * step], b.word[2 * step + 1]}", "{b.word[2 * step + 1], b.word[2 * step]}", "activation fragments exchanged"),
    ("w4a16", W4_GEMV, 0, "i < 2 ? row_low.scale", "i < 1 ? row_low.scale", "the scale of the other row"),
    ("w4a16", W4_GEMV, 0, "from < kW4GemvWarps", "from < kW4GemvWarps - 1", "the last warp is not in the sum"),
    ("w4a16", W4_GEMV, 0, "token < args.m", "token <= args.m", "writes a token too many"),
    ("w4a16", W4_GEMV, 0, "row < args.n &&", "row <= args.n &&", "writes a row too many"),
    ("w4a16", W4_GEMM, 0, BARRIER, "", "no barrier between copying a stage and reading it"),
    ("w4a16", W4_GEMM, 0, "WaitForCopies<kW4GemmStages - 2>", "WaitForCopies<kW4GemmStages - 1>", "waits for a group too few"),
    ("w4a16", W4_GEMM, 1, "simt::CommitCopies();", "", "no group a step: the wait counts wrong"),
    ("w4a16", W4_GEMM, 0, "filled = kW4GemmStages - 1, used", "filled = 0, used", "refills the stage that is read"),
    ("w4a16", W4_GEMM, 0, "used + 1 == kW4GemmStages", "used + 2 == kW4GemmStages", "the last stage is never read"),
    ("w4a16", W4_GEMM, 0, "row0, group + 1, next", "row0, group, next", "the scales of the step before"),
    ("w4a16", W4_GEMM, 0, "* 64 + 16 * t", "* 64 + 16 * (t ^ 1)", "another lane's weights"),
    ("w4a16", W4_GEMM, 0, "W4GemmChunkOffset(4 * r + t, g)", "W4GemmChunkOffset(4 * (r ^ 1) + t, g)", "activations of another word"),
    ("w4a16", W4_GEMM, 0, "(4 * (row & 1))", "(4 * (row & 0))", "bank conflicts"),
    ("w4a16", W4_GEMM, 0, "rows[2 * half + i / 2].scale", "rows[2 * half + i % 2].scale", "the scale of another row"),
    ("w4a16", W4_GEMM, 0, "32 * (warp / 4) + 2 *", "32 * (warp % 2) + 2 *", "another warp's tokens"),
    ("w4a16", W4_GEMM, 0, "token < args.m", "token <= args.m", "writes a token too many"),
    ("w4a16", W4_GEMM, 0, "row < args.n &&", "row <= args.n &&", "writes a row too many"),
    ("w4a16", W4_GEMM, 0, "2 * args.ldx}", "256 * args.groups}", "the wrong row step"),
    ("ternary_backward", BACKWARD, 0, BARRIER, "", "no barrier between copying a stage and reading it"),
    ("ternary_backward", BACKWARD, 0, "simt::WaitForCopies<kGradStages - 2>();", "", "no wait for copies"),
    ("ternary_backward", BACKWARD, 0, "WaitForCopies<kGradStages - 2>", "WaitForCopies<kGradStages - 1>", "waits for a group too few"),
    ("ternary_backward", BACKWARD, 1, "simt::CommitCopies();", "", "no group a step: the wait counts wrong"),
    ("ternary_backward", BACKWARD, 0, "filled = kGradStages - 1, used", "filled = 0, used", "refills the stage that is read"),
    ("ternary_backward", BACKWARD, 0, "used + 1 == kGradStages", "used + 2 == kGradStages", "the last stage is never read"),
    ("ternary_backward", BACKWARD, 0, "return g / 2 + 4 * (g % 2)", "return g", "columns of a matrix step in another order than they are written"),
    ("ternary_backward", BACKWARD, 0, "add ? v.value[j] + sums.value[j] * scale", "add ? sums.value[j] * scale", "writes where it should add"),
    ("ternary_backward", BACKWARD, 0, "left >= 4 &&", "left >= 1 &&", "a wide store across the end of a row"),
    ("ternary_backward", BACKWARD, 0, "if (j < left) out", "if (j <= left) out", "writes a column too many"),
    ("ternary_backward", BACKWARD, 0, "row >= rows", "row > rows", "writes a row too many"),
    ("ternary_backward", BACKWARD, 0, "columns - column)", "columns - column - 1)", "the last column is not written"),
    ("ternary_backward", BACKWARD, 0, "64 * (warp / 2) + lane / 4", "64 * (warp % 2) + lane / 4", "rows and columns of warps exchanged"),
    ("ternary_backward", BACKWARD, 0, "[2 * (i % 2) + run % 2]", "[2 * (run % 2) + i % 2]", "result fragments exchanged"),
    ("ternary_backward", BACKWARD, 0, "(chunk ^ (row / 2 % 4))", "chunk", "bank conflicts of gradients (dX)"),
    ("ternary_backward", BACKWARD, 0, "^ (row & 4) / 2", "", "bank conflicts of weights"),
    ("ternary_backward", BACKWARD, 0, "(args.n + 7) / 8 * 16", "args.n / 8 * 16", "the last gradients of a row are taken as zeros"),
    ("ternary_backward", BACKWARD, 1, "2 * args.lddy", "2 * args.n", "the wrong row step (dW)"),
    ("ternary_backward", BACKWARD, 0, "~(bits << shift)", "(bits << shift)", "codes not inverted"),
    ("ternary_backward", BACKWARD, 0, "0xC000C000u", "0x4000C000u", "a sign lost"),
    ("ternary_backward", BACKWARD, 0, "InputGradSlot(2 * t + 1)", "InputGradSlot(2 * t ^ 2)", "another row's weights"),
    ("ternary_backward", BACKWARD, 0, "16 * step + 8 * upper", "16 * step + 8 * (1 - upper)", "weight fragments exchanged"),
    ("ternary_backward", BACKWARD, 0, "PermuteBytes(even, odd, 0x5410)", "PermuteBytes(odd, even, 0x5410)", "neighbours along the sum exchanged"),
    ("ternary_backward", BACKWARD, 0, "0x7632", "0x7623", "two bytes of columns exchanged"),
    ("ternary_backward", BACKWARD, 0, "InputGradChunk(2 * step + lane / 16", "InputGradChunk(2 * step + 1 - lane / 16", "gradient fragments exchanged (dX)"),
    ("ternary_backward", BACKWARD, 0, "8 * (j % 2) - 2 *", "8 * (1 - j % 2) - 2 *", "columns exchanged"),
    ("ternary_backward", BACKWARD, 0, "(first_plane + plane)", "(first_plane ^ plane ^ 1)", "planes exchanged in pairs"),
    ("ternary_backward", BACKWARD, 0, "sums[i][plane][j], a[i], b", "sums[i][plane][j], a[i ^ 1], b", "another sixteen rows' gradients"),
    ("ternary_backward", BACKWARD, 0, "(args.n + kGradStep - 1) / kGradStep", "args.n / kGradStep", "the last step is left out (dX)"),
    ("ternary_backward", BACKWARD, 0, "(args.m + kGradStep - 1) / kGradStep", "args.m / kGradStep", "the last step is left out (dW)"),
    ("ternary_backward", BACKWARD, 0, "16 * (chunk ^ (row % 8))", "16 * chunk", "bank conflicts of gradients (dW)"),
    ("ternary_backward", BACKWARD, 0, "(row / 2 % 4 * 2)", "(row % 4 * 2)", "bank conflicts of codes"),
    ("ternary_backward", BACKWARD, 0, "args.padded_k, args.ldx}", "args.padded_k, args.padded_k}", "the wrong row step of codes"),
    ("ternary_backward", BACKWARD, 0, "0x00800080u, 0xC300C300u", "0x00000080u, 0xC300C300u", "a negative code taken for a positive one"),
    ("ternary_backward", BACKWARD, 0, "0x43004300u", "0x43804300u", "codes of odd tokens doubled"),
    ("ternary_backward", BACKWARD, 0, "8 * (matrix / 2), chunk", "8 * (matrix % 2), chunk", "gradient fragments exchanged (dW)"),
    ("ternary_backward", BACKWARD, 0, "LoadMatrix<4, true>", "LoadMatrix<4, false>", "gradients not transposed"),
    ("ternary_backward", BACKWARD, 0, "128 * (u % 2))", "128 * (1 - u % 2))", "tokens exchanged in pairs"),
    ("ternary_backward", BACKWARD, 0, "2 * q + g % 2, 2 * t)", "2 * q + g % 2, 2 * (t ^ 1))", "another lane's codes"),
    ("ternary_backward", BACKWARD, 0, "0x0101u * static_cast<uint32_t>(j)", "0x0101u * static_cast<uint32_t>(3 - j)", "bytes of codes in reverse"),
    ("ternary_backward", ROUND, 0, "args.gamma[row] / 127.0f", "args.gamma[row] * (1.0f / 127.0f)", "a reciprocal where the contract divides"),
    ("ternary_backward", ROUND, 0, "args.gamma[row]", "args.gamma[row == 0 ? 0 : row - 1]", "another token's scale"),
    ("ternary_backward", ROUND, 0, "v.value[0] * scale, v.value[1] * scale", "v.value[1] * scale, v.value[0] * scale", "neighbours exchanged"),
    ("ternary_backward", ROUND, 0, "args.n - column < 4 ? args.n - column : 4", "4", "reads beyond the end of a row"),
    ("ternary_backward", ROUND, 0, "row * args.lddy", "row * args.n", "the wrong row step"),
    ("ternary_backward", ROUND, 0, "row * args.ldo", "row * args.lddy", "the wrong row step of results"),
    ("attention", ATTENTION, 0, BARRIER, "", "no barrier before the sums of weights"),
    ("attention", ATTENTION, 1, BARRIER, "", "no barrier before the queries are read"),
    ("attention", ATTENTION, 2, BARRIER, "", "no barrier before the scores are read"),
    ("attention", ATTENTION, 3, BARRIER, "", "no barrier before maximum and sum are stored"),
    ("attention", ATTENTION, 0, "end - window", "end - window - 1", "a token more than the window"),
    ("attention", ATTENTION, 0, "half = kLanes / 2", "half = kLanes / 4", "half of the lanes are not in the dot product"),
    ("attention", ATTENTION, 0, "fmaf(q[h][i], element, acc[h])", "acc[h] + q[h][i] * element", "a product rounded where the contract fuses"),
    ("attention", ATTENTION, 0, "i += 32) top =", "i += 64) top =", "every other score is not in the maximum"),
    ("attention", ATTENTION, 0, "* scale, value", ", value", "values without their scales"),
    ("attention", ATTENTION, 0, "max < next[width] ? next[width] : max", "max", "segments joined at the first maximum"),
    ("attention", ATTENTION, 0, "acc = acc * f", "acc = acc", "earlier segments not scaled down"),
    ("attention", ATTENTION, 0, "blockIdx.y / blocks", "blockIdx.y % blocks", "the kv head of another block"),
    ("model_steps", TABLE, 0, "fmaf(x[i], TableWeight<kType>(TableCode<kType>(table, row * table.k + i), scale), sum)",
     "sum + x[i] * TableWeight<kType>(TableCode<kType>(table, row * table.k + i), scale)", "a product rounded by itself"),
    ("model_steps", TABLE, 0, "column / table.block_k", "column / 16", "the scale of another block"),
    ("model_steps", TABLE, 0, "row / table.block_n", "row", "the scales of another row"),
    ("model_steps", TABLE, 0, "TableScaleOf(table, row, block)", "TableScaleOf(table, row, 0)", "the first block's scale for all"),
    ("model_steps", TABLE, 0, "product + scale.shift : product", "product : product", "the shift is left out"),
    ("model_steps", FP8, 0, "(code & 0x80u) << 8", "0", "FP8 without its sign"),
    ("round_inputs", FP8, 0, "+ (magnitude >> 20 & 1u)", "+ 1u", "FP8 midpoints away from zero"),
    ("round_inputs", FP8, 0, "size <= kLargest", "size < 480.0f", "FP8 does not saturate: its NaN for a number"),
    ("round_inputs", FP8, 0, "size < kSmallestNormal", "size < 0.0f", "FP8 subnormals by the rule of normal numbers"),
    ("round_inputs", ROUND_INPUTS, 0, "448.0f : 127.5f", "448.0f : 127.0f", "the integers' scale of another definition"),
    ("round_inputs", ROUND_INPUTS, 0, "fabsf(row[i])", "row[i]", "negative values are not in the maximum"),
    ("round_inputs", ROUND_INPUTS, 0, "i += kRowThreads)", "i += 2 * kRowThreads)", "every other tile is not in the maximum"),
    ("round_inputs", ROUND_INPUTS, 0, "blockIdx.x % groups", "blockIdx.x / groups", "another group's columns"),
    ("round_inputs", ROUND_INPUTS, 0, "scale * RoundedInput", "RoundedInput", "not scaled back"),
    ("round_inputs", ROUND_INPUTS, 0, "scale > 0.0f;", "true;", "a token of zeros divided by its scale"),
    ("round_inputs", ROUND_INPUTS, 0, "rintf(", "roundf(", "halves away from zero"),
    ("model_steps", STEPS, 0, "args.column[n / args.block_n]", "args.column[n]", "the scale of another row of weights"),
    ("model_steps", STEPS, 0, "args.row[row]", "args.row[0]", "another token's scale"),
    ("model_steps", STEPS, 0, "i < args.k ? x[i] : 0.0f", "x[i < args.k ? i : 0]", "the padding of rounded rows is not zero"),
    ("model_steps", STEPS, 0, "(14u << 23)", "(16u << 23)", "fp16 rows still beyond its range"),
    ("model_steps", STEPS, 0, "|| bits >= 0x7F800000u", "", "an infinite element divides its row by infinity"),
    ("model_steps", STEPS, 0, "fabsf(x[i])", "x[i]", "negative elements are not in the maximum"),
    ("model_steps", STEPS, 1, "bias[i % n]", "bias[i / n]", "the bias of another column"),
    ("model_steps", TABLE, 0, "half = kLanes / 2", "half = kLanes / 4", "half of the lanes are not in the sum"),
    ("model_steps", TABLE, 0, "lane == 0 && row < table.n", "lane == 0 && row <= table.n", "writes a row too many"),
    ("top_k", TOP_K, 0, BARRIER, "", "no barrier between clearing the histogram and counting"),
    ("top_k", TOP_K, 1, BARRIER, "", "no barrier before the histogram is read"),
    ("top_k", TOP_K, 2, BARRIER, "", "no barrier before the bin is read"),
    ("top_k", TOP_K, 3, BARRIER, "", "no barrier before ranks are counted"),
    ("top_k", TOP_K, 0, "kept_count = bad = 0", "kept_count = 0", "a flag in shared memory is read before it is written"),
    ("top_k", TOP_K, 0, "? ~bits :", "? bits :", "negative logits in reverse"),
    ("top_k", TOP_K, 0, "| ~static_cast<uint32_t>(id)", "| static_cast<uint32_t>(id)", "of equals the highest id"),
    ("top_k", TOP_K, 0, "lane + delta < 32", "lane + delta <= 32", "the sums of lanes beyond the warp"),
    ("top_k", TOP_K, 0, "left = place.left", "left = k", "keys above the bin are counted twice"),
    ("top_k", TOP_K, 0, "mask == 0 && !(logit < INFINITY)", "mask == 0 && logit == INFINITY", "NaN is not reported"),
    ("top_k", TOP_K, 0, "(key & mask) >= prefix", "(key & mask) > prefix", "the last bin is not taken"),
    ("model_steps", PLAIN_NORM, 0, BARRIER, "", "no barrier before the root is read"),
    ("model_steps", PLAIN_NORM, 0, "+ eps", "", "no epsilon"),
    ("top_k", ARGMAX, 0, BARRIER, "", "no barrier before the best of the warps are compared"),
    ("top_k", ARGMAX, 0, "id < best_id", "id > best_id", "ties to the highest id"),
    ("top_k", ARGMAX, 0, "!(logit < INFINITY)", "logit == INFINITY", "NaN is not reported"),
    ("top_k", ARGMAX, 0, "mask = 16", "mask = 8", "half of the warp is not compared"),
    ("model_steps", STEPS, 0, "gamma[i] / 127.0f", "gamma[i] * (1.0f / 127.0f)", "a reciprocal where the contract divides"),
]


def replace_occurrence(text, index, old, new):
    """The text with the index-th `old` replaced, or None when there are not so many."""
    pieces = text.split(old)
    if len(pieces) < index + 2:
        return None
    return old.join(pieces[: index + 1]) + new + old.join(pieces[index + 1 :])


def run_test(args, test, folder):
    """The exit code of the test compiled with `folder` before the sources; None when it does not compile."""
    binary = os.path.join(folder, "mutant_test")
    libraries = [os.path.join(args.build, path) for path in ("kernels/libtern_simt.a", "kernels/libtern_kernels.a", "src/base/libtern_base.a")]
    command = [args.compiler, "-std=c++20", "-O1", "-ffp-contract=off", "-w", f"-I{folder}", f"-I{ROOT}", f"-I{ROOT}/src",
               os.path.join(ROOT, "tests", "simt", f"{test}_test.cc"), "-o", binary, *libraries,
               "-lgtest", "-lgtest_main", "-lboost_context", "-lpthread"]  # fmt: skip
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        return None
    try:
        return subprocess.run([binary, "--gtest_brief=1"], capture_output=True, timeout=300, check=False).returncode
    except subprocess.TimeoutExpired:
        return 124


def try_mutant(args, mutant):
    """What is wrong with this check, or None when the fault was caught."""
    test, source, index, old, new, fault = mutant
    with open(os.path.join(ROOT, source), encoding="utf-8") as file:
        text = replace_occurrence(file.read(), index, old, new)
    if text is None:
        return f'{source} no longer holds "{old}" ({index + 1} times): change the list'
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, source)
        os.makedirs(os.path.dirname(copy))
        with open(copy, "w", encoding="utf-8") as file:
            file.write(text)
        code = run_test(args, test, folder)
    if code is None:
        return f"{source}: {fault}: does not compile"
    return f"{source}: {fault}: SURVIVED {test}_test" if code == 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--build", required=True, help="build folder without a sanitizer, with simt_test built")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--only", default="", help="part of a test's name")
    args = parser.parse_args()
    chosen = [m for m in MUTANTS if args.only in m[0]]
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        for test in sorted({m[0] for m in chosen}):
            if run_test(args, test, folder) != 0:
                findings.append(f"{test}_test fails without a fault")
    for mutant in chosen:
        finding = try_mutant(args, mutant)
        print(("FAULT  " + finding) if finding else f"caught {mutant[1]}: {mutant[5]}", flush=True)
        findings += [finding] if finding else []
    print(f"{len(chosen)} mutants, {len(findings)} findings")
    return 1 if findings or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
