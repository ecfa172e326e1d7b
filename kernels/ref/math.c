/* SPDX-License-Identifier: MIT */

/*
 * Rule 5.  exp() is f32, because every tier has it in vectors.  What is needed once a token or once
 * a start is double: log, the angles and the frequencies of rope.  fma() and sqrt() are exact
 * operations of IEEE 754, so whose they are makes no difference.
 */

#include <math.h>
#include "exp.h"
#include "quant.h"
#include "ref.h"

#define LN2_HIGH 0x1.62e42fefa39efp-1
#define LN2_LOW 0x1.abc9e3b39803fp-56
#define PIO2_HIGH 0x1.921fb54442d18p+0
#define PIO2_LOW 0x1.1a62633145c07p-54
#define ROUND 0x1.8p52

float kernels_exp(float x)
{
	float r, n, p;
	uint32_t k, half;

	/* In this form, and in the vector ones, a NaN stays a NaN. */
	x = EXP_MAX < x ? EXP_MAX : x;
	x = EXP_MIN > x ? EXP_MIN : x;
	n = fmaf(x, EXP_LOG2E, EXP_ROUND);
	k = quant_bits(n) - EXP_ROUND_BITS;
	n -= EXP_ROUND;
	r = fmaf(n, -EXP_LN2_HIGH, x);
	r = fmaf(n, -EXP_LN2_LOW, r);
	p = fmaf(EXP_P4, r, EXP_P3);
	p = fmaf(p, r, EXP_P2);
	p = fmaf(p, r, EXP_P1);
	p = fmaf(p, r, EXP_P0);
	p = fmaf(p, r * r, r) + 1.0f;
	/* Two steps: the first is exact, the second rounds a denormal once, or overflows. */
	half = (uint32_t)((int32_t)k >> 1);
	return p * quant_float((half + 127) << 23) * quant_float((k - half + 127) << 23);
}

static uint64_t double_bits(double x)
{
	uint64_t u;

	memcpy(&u, &x, sizeof(u));
	return u;
}

static double double_float(uint64_t u)
{
	double x;

	memcpy(&x, &u, sizeof(x));
	return x;
}

/* Natural logarithm of a normal positive number: 2 atanh((m - 1) / (m + 1)) + e ln 2. */
static double log_double(double x)
{
	uint64_t u = double_bits(x);
	int e = (int)(u >> 52) - 1023;
	double m = double_float((u & 0xfffffffffffff) | 0x3ff0000000000000), s, t, p = 0;

	if (m > 0x1.6a09e667f3bcdp+0) {
		m *= 0.5;
		e++;
	}
	s = (m - 1.0) / (m + 1.0);
	t = s * s;
	/* |s| < 0.172: the terms from s^23 on are below 2^-60. */
	for (int i = 21; i >= 3; i -= 2)
		p = fma(p, t, 2.0 / i);
	return fma((double)e, LN2_HIGH, fma(2.0, s, fma(p * t, s, (double)e * LN2_LOW)));
}

/* |x| < 700. */
static double exp_double(double x)
{
	double n = fma(x, 0x1.71547652b82fep+0, ROUND), r, p = 1.0;

	n -= ROUND;
	r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x));
	/* |r| < 0.347: the term of r^15 is below 2^-62. */
	for (int i = 14; i >= 1; i--)
		p = fma(p, r / i, 1.0);
	return p * double_float((uint64_t)((int64_t)n + 1023) << 52);
}

float kernels_log(float x)
{
	if (!(x > 0))
		return x == 0 ? -INFINITY : NAN;
	if (x > 0x1.fffffep127f)
		return x;
	return (float)log_double((double)x);
}

/* Angles below 2^40: n times the high part of pi/2 is subtracted exactly. */
static void sin_cos(double x, double *ret_sin, double *ret_cos)
{
	double n = fma(x, 0x1.45f306dc9c883p-1, ROUND), r, t, s = 0, c = 0, swap;
	unsigned quadrant = (unsigned)double_bits(n) & 3;

	n -= ROUND;
	r = fma(n, -PIO2_LOW, fma(n, -PIO2_HIGH, x));
	t = r * r;
	/* |r| < 0.786: sin to r^17 and cos to r^18, by nested factorials. */
	for (int i = 16; i >= 2; i -= 2)
		s = fma(-t / (i * (i + 1)), s, -t / (i * (i + 1)));
	s = fma(r, s, r);
	for (int i = 17; i >= 1; i -= 2)
		c = fma(-t / (i * (i + 1)), c, -t / (i * (i + 1)));
	c += 1.0;
	if (quadrant & 1) {
		swap = s;
		s = c;
		c = -swap;
	}
	*ret_sin = quadrant & 2 ? -s : s;
	*ret_cos = quadrant & 2 ? -c : c;
}

void kernels_rope_angles(
	float position, const float *frequency, size_t n_rot, float scale, float *cos, float *sin)
{
	for (size_t i = 0; i < n_rot / 2; i++) {
		double s, c;

		sin_cos((double)position * (double)frequency[i], &s, &c);
		cos[i] = (float)c * scale;
		sin[i] = (float)s * scale;
	}
}

void kernels_rope_frequencies(float base, const float *factors, size_t n_rot, float *out)
{
	double l = base > 0x1p-126f && base < 0x1p127f ? log_double((double)base) : 0;

	for (size_t i = 0; i < n_rot / 2; i++) {
		double f = exp_double(l * (-2.0 * (double)i / (double)n_rot));

		out[i] = (float)(factors ? f / (double)factors[i] : f);
	}
}
