/* SPDX-License-Identifier: MIT */
#pragma once

/* The kernels of the AVX-512 VNNI tier (internal); contracts as in struct kernels. */

#include "ref.h"

#define TIER(name) vnni_##name
#include "tier.h"
