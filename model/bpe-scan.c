/* SPDX-License-Identifier: MIT */

/*
 * The regular expressions by which byte-level vocabularies cut text into words before merging,
 * written by hand.  Each scanner gives the end of the word that begins at a place, in time linear
 * in what it looks at.  Broken bytes count as characters of no class.
 */

#include <string.h>

#include "num.h"
#include "tokenizer-private.h"
#include "unicode.h"
#include "utf8.h"

#define L UNICODE_LETTER
#define N UNICODE_NUMBER
#define S UNICODE_SPACE
#define M UNICODE_MARK

enum pre_flags {
	PRE_NFC = 1 << 0,
	PRE_WHOLE = 1 << 1,
	PRE_BOS = 1 << 2,
};

struct text {
	const char *s;
	size_t end;
};

struct bpe_pre {
	const char *name;
	unsigned flags;
	unsigned digits; /* at most so many in a word */
	uint8_t letters; /* classes of words */
	/* Cuts first, each part then as if it were alone; NULL: no such cut. */
	size_t (*segment)(const struct text *t, size_t at);
	size_t (*scan)(const struct bpe_pre *p, const struct text *t, size_t at);
};

struct look {
	uint32_t c;
	unsigned n; /* bytes, 0 at the end of the text */
	uint8_t class;
};

static struct look look(const struct text *t, size_t at)
{
	struct look l = {.c = UINT32_MAX};

	if (at < t->end) {
		l.n = utf8_decode(t->s + at, t->end - at, &l.c);
		l.class = unicode_class(l.c);
	}
	return l;
}

static bool is_newline(struct look l)
{
	return l.c == '\r' || l.c == '\n';
}

/* Past the characters that have a class of the mask, at most `most`; or, `not`, that have none. */
static size_t skip(const struct text *t, size_t at, uint8_t mask, bool not, size_t most)
{
	for (; most; most--) {
		struct look l = look(t, at);

		if (!l.n || !(l.class & mask) != not )
			break;
		at += l.n;
	}
	return at;
}

static size_t skip_chars(const struct text *t, size_t at, const char *set)
{
	while (at < t->end && t->s[at] && strchr(set, t->s[at]))
		at++;
	return at;
}

/* 's 't 're 've 'm 'll 'd at an apostrophe: bytes, or 0.  (?i) also takes the long s. */
static size_t contraction(const struct text *t, size_t at, bool fold)
{
	static const char two[3][2] = {{'r', 'e'}, {'v', 'e'}, {'l', 'l'}};
	size_t left = t->end - at;
	unsigned char a, b;

	if (!left || t->s[at] != '\'' || left < 2)
		return 0;
	a = (unsigned char)t->s[at + 1];
	b = left > 2 ? (unsigned char)t->s[at + 2] : 0;
	if (fold && a == 0xc5 && b == 0xbf)
		return 3;
	if (fold && a < 0x80 && b < 0x80) {
		a |= 32;
		b |= 32;
	}
	if (a == 's' || a == 't' || a == 'm' || a == 'd')
		return 2;
	for (size_t i = 0; i < ARRAY_SIZE(two); i++)
		if (a == two[i][0] && b == two[i][1] && left > 2)
			return 3;
	return 0;
}

/* \s+(?!\S)|\s+ and, with `lines`, \s*[\r\n]+ before them. */
static size_t blanks(const struct text *t, size_t at, bool lines)
{
	size_t end = at, last = at, line = 0;

	for (;;) {
		struct look l = look(t, end);

		if (!l.n || !(l.class & S))
			break;
		last = end;
		end += l.n;
		if (is_newline(l))
			line = end;
	}
	if (lines && line)
		return line;
	return end == t->end || last == at ? end : last;
}

static size_t scan_gpt2(const struct bpe_pre *p, const struct text *t, size_t at)
{
	struct look l = look(t, at);
	size_t k = contraction(t, at, false);

	if (k)
		return at + k;
	k = at;
	if (l.c == ' ') {
		struct look next = look(t, at + 1);

		if (next.n && !(next.class & S)) {
			l = next;
			k = at + 1;
		}
	}
	if (l.class & L)
		return skip(t, k, L, false, SIZE_MAX);
	if (l.class & N)
		return skip(t, k, N, false, SIZE_MAX);
	if (!(l.class & S))
		return skip(t, k, L | N | S, true, SIZE_MAX);
	return blanks(t, at, false);
}

/* " ?[^\s\p{L}\p{N}]+" and newlines (and what else is in `tail`) after it; 0: no match. */
static size_t scan_marks(const struct text *t, size_t at, uint8_t letters, const char *tail)
{
	struct look l = look(t, at);

	if (l.c == ' ')
		l = look(t, ++at);
	if (!l.n || l.class & (letters | N | S))
		return 0;
	return skip_chars(t, skip(t, at, letters | N | S, true, SIZE_MAX), tail);
}

static size_t scan_llama(const struct bpe_pre *p, const struct text *t, size_t at)
{
	struct look l = look(t, at);
	size_t k = contraction(t, at, true);

	if (k)
		return at + k;
	if (l.class & p->letters)
		return skip(t, at, p->letters, false, SIZE_MAX);
	if (l.class & N)
		return skip(t, at, N, false, p->digits);
	if (!is_newline(l) && look(t, at + l.n).class & p->letters)
		return skip(t, at + l.n, p->letters, false, SIZE_MAX);
	k = scan_marks(t, at, p->letters, "\r\n");
	return k ? k : blanks(t, at, true);
}

/*
 * UPPER*LOWER+ (`lower`) or UPPER+LOWER*, where letters that are neither, and marks, are both; 0:
 * no match.
 */
static size_t scan_cased(const struct text *t, size_t at, bool lower)
{
	size_t k = at, both = 0;
	struct look l;

	for (;; k += l.n) {
		l = look(t, k);
		if (!(l.class & (L | M)) || l.class & UNICODE_LOWER)
			break;
		if (!(l.class & UNICODE_UPPER))
			both = k + l.n;
	}
	if (!lower && k == at)
		return 0;
	if (l.class & UNICODE_LOWER) {
		for (; l.class & (L | M) && !(l.class & UNICODE_UPPER); l = look(t, k))
			k += l.n;
		return k;
	}
	return lower ? both : k;
}

static size_t scan_tekken(const struct bpe_pre *p, const struct text *t, size_t at)
{
	struct look l = look(t, at);
	bool lead = l.n && !is_newline(l) && !(l.class & (L | N));
	size_t k = 0;

	for (int upper = 0; upper < 2 && !k; upper++) {
		if (lead)
			k = scan_cased(t, at + l.n, !upper);
		if (!k)
			k = scan_cased(t, at, !upper);
	}
	if (k)
		return k + (p->letters & M ? contraction(t, k, true) : 0);
	if (l.class & N)
		return skip(t, at, N, false, p->digits);
	k = scan_marks(t, at, L, "\r\n/");
	return k ? k : blanks(t, at, true);
}

static bool is_ascii_punct(struct look l)
{
	return l.c > ' ' && l.c < 0x7f && !(l.class & (L | N));
}

static bool is_ascii_letter(struct look l)
{
	return l.c < 0x80 && l.class & L;
}

/* The third pattern of deepseek-v3; 0: no match at this place. */
static size_t match_deepseek(const struct text *t, size_t at)
{
	const uint8_t marks = UNICODE_PUNCT | UNICODE_SYMBOL;
	struct look l = look(t, at), next = look(t, at + l.n);
	size_t k;

	if (is_ascii_punct(l) && is_ascii_letter(next)) {
		for (k = at + l.n; is_ascii_letter(look(t, k)); k++)
			;
		return k;
	}
	if (l.class & (L | M))
		return skip(t, at, L | M, false, SIZE_MAX);
	if (!is_newline(l) && !(l.class & marks) && next.class & (L | M))
		return skip(t, at + l.n, L | M, false, SIZE_MAX);
	k = l.c == ' ' && next.class & marks ? at + l.n : at;
	if (look(t, k).class & marks)
		return skip_chars(t, skip(t, k, marks, false, SIZE_MAX), "\r\n");
	return l.class & S ? blanks(t, at, true) : 0;
}

/* What no pattern matches stays together as one word. */
static size_t scan_deepseek(const struct bpe_pre *p, const struct text *t, size_t at)
{
	size_t k = match_deepseek(t, at);

	if (k)
		return k;
	do
		at += look(t, at).n;
	while (at < t->end && !match_deepseek(t, at));
	return at;
}

static size_t segment_smollm(const struct text *t, size_t at)
{
	size_t k = skip(t, at, N, false, 1);

	return k > at ? k : skip(t, at, N, true, SIZE_MAX);
}

static bool is_cjk(struct look l)
{
	return (l.c >= 0x4e00 && l.c <= 0x9fa5) || (l.c >= 0x3040 && l.c <= 0x30ff);
}

static size_t segment_deepseek(const struct text *t, size_t at)
{
	struct look l = look(t, at);
	bool cjk = is_cjk(l);

	if (l.class & N)
		return skip(t, at, N, false, 3);
	for (; l.n && !(l.class & N) && is_cjk(l) == cjk; l = look(t, at))
		at += l.n;
	return at;
}

/* tekken has no contractions, gpt-4o has: told apart by M in `letters`. */
static const struct bpe_pre pres[] = {
	{"gpt-2", 0, 0, L, NULL, scan_gpt2},
	{"default", 0, 0, L, NULL, scan_gpt2},
	{"smollm", 0, 0, L, segment_smollm, scan_gpt2},
	{"qwen2", PRE_NFC, 1, L, NULL, scan_llama},
	{"qwen35", PRE_NFC, 1, L | M, NULL, scan_llama},
	{"llama-bpe", PRE_WHOLE | PRE_BOS, 3, L, NULL, scan_llama},
	{"llama3", PRE_WHOLE | PRE_BOS, 3, L, NULL, scan_llama},
	{"llama-v3", PRE_WHOLE | PRE_BOS, 3, L, NULL, scan_llama},
	{"olmo", PRE_NFC, 0, L, NULL, scan_gpt2},
	{"tekken", PRE_WHOLE | PRE_BOS, 1, L, NULL, scan_tekken},
	{"gpt-4o", PRE_WHOLE, 3, L | M, NULL, scan_tekken},
	{"deepseek-v3", 0, 3, L, segment_deepseek, scan_deepseek},
};

const char *bpe_pre_names(void)
{
	return "smollm, gpt-2, qwen2, llama-bpe, olmo, qwen35, tekken, gpt-4o, deepseek-v3";
}

const struct bpe_pre *bpe_pre_find(const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(pres); i++)
		if (strlen(pres[i].name) == n && !memcmp(pres[i].name, name, n))
			return &pres[i];
	return NULL;
}

bool bpe_pre_nfc(const struct bpe_pre *p)
{
	return p->flags & PRE_NFC;
}

bool bpe_pre_whole(const struct bpe_pre *p)
{
	return p->flags & PRE_WHOLE;
}

bool bpe_pre_adds_bos(const struct bpe_pre *p)
{
	return p->flags & PRE_BOS;
}

int bpe_pre_run(const struct bpe_pre *p, const char *s, size_t n,
	int (*word)(void *arg, const char *s, size_t n), void *arg)
{
	const struct text all = {s, n};

	for (size_t begin = 0; begin < n;) {
		size_t end = p->segment ? p->segment(&all, begin) : n;
		const struct text part = {s + begin, end - begin};

		for (size_t at = 0; at < part.end;) {
			size_t next = p->scan(p, &part, at);
			int r = word(arg, part.s + at, next - at);

			if (r)
				return r;
			at = next;
		}
		begin = end;
	}
	return 0;
}
