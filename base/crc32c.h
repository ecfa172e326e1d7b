/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * CRC-32C (Castagnoli), the checksum of state files: finds what a disk damaged, not what somebody
 * forged.  By the processor's instruction where it has one (8 bytes in 3 cycles), else by tables.
 * Any thread.
 */

#include <stddef.h>
#include <stdint.h>

/* Of n bytes that follow those whose checksum is crc (0: none before). */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t n);
/* The same by tables, for tests. */
uint32_t crc32c_table(uint32_t crc, const void *bytes, size_t n);
