#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare moe-model tokenize with the reference libraries on whole vocabularies.

  tests/tools/tokenizer-compare.py FOLDER build/model/moe-model [--seed N] [--count N] [SOURCE ...]

FOLDER holds vocab_gguf.py, which says what else to install.  For each SOURCE (all that it knows where none is
named) its own cases are tried and COUNT random texts: letters of every category, marks, Hangul, emoji, blanks,
contractions, pieces of the vocabulary and of its special tokens.  A difference is cut down to the shortest
text that shows it.  Two kinds are known, and none of ours:
  mistral-v3  vocab_gguf.py writes sentencepiece's user-defined pieces ([REFERENCE_DOC_n]) as normal tokens
  qwen*       marks younger than the Unicode of the reference library are not put in order by it
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("program")
parser.add_argument("sources", nargs="*", metavar="SOURCE")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--count", type=int, default=2000)
ARGS = parser.parse_intermixed_args()
sys.path.insert(0, ARGS.folder)
import vocab_gguf as vg  # noqa: E402

CONTRACTIONS = ["'s", "'S", "'t", "'re", "'RE", "'rE", "'ve", "'m", "'ll", "'lL", "'d", "'\u017f", "\u2019s", "''s", "'"]
BLANKS = [" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2003", "\u2028", "\u2029", "\u0085", "\x0b",
          "\x1c", "\u202f", "\u1680", "\u200b", "\ufeff", "\u180e", " \n", " \r\n", "\n "]
WORDS = ("the and Hello WORLD camelCase HTTPServer don't über naïve Straße ÉCOLE Ελλάδα ПРИВЕТ мир नमस्ते 日本語 中文 한국어 ไทย مرحبا "
         "ﬁ ǅungla ªº x² 1234567 ١٢٣ ①② Ⅳ ½ 3.14 0x1F foo_bar a/b // <|im_end|> <think> [INST] </s> <s> <unk> <0x0A> ▁ ▁▁ Ġ").split()
EMOJI = ["😀", "👍🏽", "👨\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "🇩🇪", "1\ufe0f⃣", "\u200d", "\ufe0f"]
PLANES = [0, 0x400, 0x4E00, 0xAC00, 0xF900, 0x10000, 0x1E900, 0x1F000, 0x20000, 0x2F800, 0x30000, 0xE0000, 0xF0000, 0x100000]
CATEGORIES = {}
for code in range(0x110000):
    if not 0xD800 <= code < 0xE000:
        CATEGORIES.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
MARKS = CATEGORIES["Mn"] + CATEGORIES["Mc"] + CATEGORIES["Me"]
COMPOSED = [c for many in CATEGORIES.values() for c in many if unicodedata.decomposition(c)[:1] not in ("", "<")]


def word_of(dice, v):
    text = v.tokens[dice.randrange(len(v.tokens))]
    if v.spm:
        return text.replace("▁", " ")
    return vg.unspell(text).decode("utf-8", "ignore") if all(c in vg.CHAR_TO_BYTE for c in text) else text


def any_of_plane(dice):
    first = dice.choice(PLANES)
    text = "".join(chr(min(0x10FFFF, first + dice.randrange(0x400))) for _ in range(dice.randrange(1, 4)))
    return text.encode("utf-8", "ignore").decode()


def random_text(dice, v, special):
    makers = [
        lambda: dice.choice(CONTRACTIONS),
        lambda: dice.choice(BLANKS) * dice.choice([1, 1, 1, 2, 3, 7]),
        lambda: dice.choice(WORDS),
        lambda: chr(dice.randrange(0x20, 0x7F)),
        lambda: dice.choice("aeiouEAO각ㄱ\u1100\u1161ABが") + "".join(dice.choice(MARKS) for _ in range(dice.choice([1, 1, 2, 6]))),
        lambda: chr(dice.randrange(0x1100, 0x1113)) + chr(dice.randrange(0x1161, 0x1176)) + chr(dice.randrange(0x11A7, 0x11C4)),
        lambda: dice.choice(COMPOSED) + unicodedata.normalize("NFD", dice.choice(COMPOSED)),
        lambda: dice.choice(EMOJI),
        lambda: dice.choice(CATEGORIES[dice.choice(sorted(CATEGORIES))]),
        lambda: dice.choice(CATEGORIES["Nd"] + CATEGORIES["Nl"] + CATEGORIES["No"]),
        lambda: chr(dice.choice([dice.randrange(0, 32), dice.randrange(0x7F, 0xA1)])),
        lambda: word_of(dice, v),
        lambda: any_of_plane(dice),
        lambda: dice.choice(special),
        lambda: dice.choice(special)[:dice.randrange(12)],
    ]
    some = dice.choice([makers, makers, makers[:4], makers[4:7]])
    return "".join(dice.choice(some)() for _ in range(dice.randrange(1, 40)))


def tokenize(path, cases):
    lines = "".join(json.dumps(dict(zip(("text", "add_special", "parse_special"), c))) + "\n" for c in cases)
    out = subprocess.run([ARGS.program, "tokenize", path, "--jsonl"], input=lines, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line)["ids"] for line in out.stdout.split("\n") if line]


def shortest(path, reference, case):
    text, *flags = case
    at = 0
    while at < len(text):
        shorter = text[:at] + text[at + 1:]
        if tokenize(path, [(shorter, *flags)])[0] not in reference.encode(shorter, *flags):
            text, at = shorter, 0
        else:
            at += 1
    return text


def compare(name):
    v = vg.SOURCES[name](None)
    reference, dice = vg.Reference(v), random.Random(ARGS.seed)
    special = [t for t, kind in zip(v.tokens, v.types) if kind in (vg.CONTROL, vg.USER)][:60]
    cases = [(text, add, parse) for _, text, add, parse in vg.texts(v)]
    cases += [(random_text(dice, v, special), dice.random() < 0.5, dice.random() < 0.5) for _ in range(ARGS.count)]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vocabulary.gguf")
        vg.write_gguf(v, path, False, 0)
        wrong = [c for c, ids in zip(cases, tokenize(path, cases), strict=True) if ids not in reference.encode(*c)]
        print(f"{name}: {len(cases)} texts, {len(wrong)} with other ids", flush=True)
        for case in wrong[:3]:
            print("  ", ascii(shortest(path, reference, case)), *case[1:])
    return len(wrong)


sys.exit(1 if sum(map(compare, ARGS.sources or vg.SOURCES)) else 0)
