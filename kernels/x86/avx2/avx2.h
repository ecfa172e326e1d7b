/* SPDX-License-Identifier: MIT */
#pragma once

/* The kernels of the AVX2 tier (AVX2, FMA, F16C; internal); contracts as in struct kernels. */

#include "ref.h"

#define TIER(name) avx2_##name
#include "tier.h"
