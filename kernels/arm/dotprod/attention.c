/* SPDX-License-Identifier: MIT */

#include "vec.h"
#include "dotprod.h"
#include "attention.h"
