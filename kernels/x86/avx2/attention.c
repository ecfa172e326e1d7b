/* SPDX-License-Identifier: MIT */

#include "vec.h"
#include "avx2.h"
#include "attention.h"
