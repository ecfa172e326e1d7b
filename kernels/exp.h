/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The constants of exp() in f32, shared by all tiers: with r = x - n ln 2 and n the integer nearest
 * to x / ln 2, exp(x) = (1 + r + r^2 P(r)) 2^n.  P was fitted by least squares on Chebyshev points
 * of |r| <= ln 2 / 2; the relative error of the fit is below 2^-27.
 *
 * Against the exact exp, over every float: the error is below EXP_ERROR_ULP units in the last place
 * of the result (1.0129 at most, at x = 59.31), where that is a normal number, and below three
 * quarters of the least denormal under it.
 */

#define EXP_ERROR_ULP 1.02

#define EXP_LOG2E 0x1.715476p+0f
#define EXP_LN2_HIGH 0x1.62e4p-1f /* 15 bits: n times it is exact */
#define EXP_LN2_LOW 0x1.7f7d1cp-20f
#define EXP_ROUND 0x1.8p23f /* adding it rounds to an integer, which stands in the low bits */
#define EXP_ROUND_BITS 0x4b400000u
#define EXP_P0 0x1.fffff8p-2f
#define EXP_P1 0x1.55548ep-3f
#define EXP_P2 0x1.555b5cp-5f
#define EXP_P3 0x1.123bdcp-7f
#define EXP_P4 0x1.687b46p-10f
#define EXP_MAX 89.0f	/* from here the result is infinite by itself */
#define EXP_MIN -104.0f /* from here down it is 0 */
