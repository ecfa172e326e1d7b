/* SPDX-License-Identifier: MIT */
#pragma once

/* The kernels of the i8mm tier (smmla besides sdot; internal); contracts as in struct kernels. */

#include "ref.h"

#define TIER(name) i8mm_##name
#include "products.h"
