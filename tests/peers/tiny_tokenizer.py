"""A tiny SentencePiece tokenizer in the forms that llama.cpp and transformers read.

BPE with byte fallback, identity normalizer, dummy prefix: what tern trains. tokenizer.json is
written so that transformers gives SentencePiece's ids (FACTS.md says why the class must not be
LlamaTokenizer).
"""

import io
import json

import gguf
import numpy as np
import sentencepiece

SPACE = "\u2581"

WORDS = (
    "the king and a queen of this fair land shall speak to all their people with one voice "
    "for what is said in winter comes again when summer sun lies low upon still waters"
).split()


def train_tokenizer(vocab_size, seed=3):
    """Bytes of a SentencePiece BPE model with byte fallback, trained on made-up sentences."""
    rng = np.random.default_rng(seed)
    sentences = [" ".join(rng.choice(WORDS, size=9)) + "." for _ in range(2000)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=vocab_size,
        model_type="bpe", byte_fallback=True, character_coverage=1.0, hard_vocab_limit=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, unk_id=0, bos_id=1,
        eos_id=2, pad_id=-1, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def add_gguf_tokenizer(writer, tokenizer_bytes):
    """SentencePiece as `llama` tokenizer; None writes the vocabulary-free form."""
    if tokenizer_bytes is None:
        writer.add_tokenizer_model("none")
        return
    spm = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_bytes)
    kinds = []
    for i in range(spm.vocab_size()):
        if spm.is_unknown(i):
            kinds.append(gguf.TokenType.UNKNOWN)
        elif spm.is_control(i):
            kinds.append(gguf.TokenType.CONTROL)
        elif spm.is_byte(i):
            kinds.append(gguf.TokenType.BYTE)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([spm.id_to_piece(i) for i in range(spm.vocab_size())])
    writer.add_token_scores([spm.get_score(i) for i in range(spm.vocab_size())])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(spm.bos_id())
    writer.add_eos_token_id(spm.eos_id())
    writer.add_unk_token_id(spm.unk_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def bpe_merges(spm):
    """Every split of a piece into two pieces, by falling score: the order in which BPE merges."""
    vocab = {spm.id_to_piece(i): i for i in range(spm.vocab_size())}
    found = []
    for piece, i in vocab.items():
        if spm.is_byte(i) or spm.is_control(i) or spm.is_unknown(i):
            continue
        splits = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
        splits = [(a, b) for a, b in splits if a in vocab and b in vocab]
        splits.sort(key=lambda ab: (vocab[ab[0]], vocab[ab[1]]))
        found += [(-spm.get_score(i), [a, b]) for a, b in splits]
    found.sort(key=lambda item: item[0])  # Stable: the splits of a piece keep their order.
    return [pair for _, pair in found]


def tokenizer_json(spm):
    """tokenizer.json (format of the tokenizers package) of a SentencePiece BPE model."""
    bos = spm.id_to_piece(spm.bos_id())
    special = [spm.unk_id(), spm.bos_id(), spm.eos_id()]
    sequence = lambda name, kind: {kind: {"id": name, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": spm.id_to_piece(i), "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": True}
            for i in special
        ],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [sequence(bos, "SpecialToken"), sequence("A", "Sequence")],
            "pair": [sequence(bos, "SpecialToken"), sequence("A", "Sequence"),
                     sequence("B", "Sequence")],
            "special_tokens": {bos: {"id": bos, "ids": [spm.bos_id()], "tokens": [bos]}},
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": spm.id_to_piece(spm.unk_id()),
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
            "byte_fallback": True, "ignore_merges": False,
            "vocab": {spm.id_to_piece(i): i for i in range(spm.vocab_size())},
            "merges": bpe_merges(spm),
        },
    }  # fmt: skip


def write_hf_tokenizer(folder, tokenizer_bytes):
    """tokenizer.json and tokenizer_config.json in a Hugging Face folder."""
    spm = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_bytes)
    text = json.dumps(tokenizer_json(spm), ensure_ascii=False, indent=1)
    (folder / "tokenizer.json").write_text(text + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": spm.id_to_piece(spm.bos_id()),
        "eos_token": spm.id_to_piece(spm.eos_id()),
        "unk_token": spm.id_to_piece(spm.unk_id()),
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
