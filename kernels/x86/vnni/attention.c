/* SPDX-License-Identifier: MIT */

#include "vec.h"
#include "vnni.h"
#include "attention.h"
