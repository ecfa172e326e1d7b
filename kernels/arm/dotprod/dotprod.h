/* SPDX-License-Identifier: MIT */
#pragma once

/* The kernels of the dotprod tier (NEON with sdot; internal); contracts as in struct kernels. */

#include "ref.h"

#define TIER(name) dotprod_##name
#include "products.h"
#include "tier.h"

void dotprod_pack(uint32_t type, void *w, size_t n, void *scratch);
