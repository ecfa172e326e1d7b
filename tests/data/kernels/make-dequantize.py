#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Random blocks of each type and their values by the gguf package: dequantize.bin.

Needs numpy and gguf.  Records: u32 type, u32 bytes, u32 elements, the block's bytes, its values as f32,
all little-endian."""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

rng = np.random.default_rng(20240501)
out = b''
for t in (T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K):
    elements, size = GGML_QUANT_SIZES[t]
    blocks = 8 if elements > 1 else 256
    raw = rng.integers(0, 256, (blocks, size), dtype=np.uint8)
    # Factors are finite: exponents from 2^-7 to 2^0, any sign and mantissa, and a denormal.
    at = {T.Q6_K: [208], T.F16: [0], T.Q4_0: [0], T.Q5_0: [0], T.Q8_0: [0], T.BF16: []}.get(t, [0, 2])
    for a in at:
        raw[:, a + 1] = raw[:, a + 1] & 0x9f | 0x20
        raw[0, a + 1] &= 0x83
    if t == T.BF16:
        raw[:, 1] = raw[:, 1] & 0xbf
    raw = raw.reshape(-1)
    values = dequantize(raw, t).astype(np.float32).reshape(-1)
    assert np.isfinite(values).all()
    out += struct.pack('<III', t, len(raw), len(values)) + raw.tobytes() + values.tobytes()
open(sys.argv[1], 'wb').write(out)
