/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Every limit of the project, in one place: whatever outsiders can make larger has its bound here.
 * Sizes are bytes unless the name says otherwise.
 */

/* Machine */
#define LIMIT_THREADS 256u
#define LIMIT_MEMORY ((uint64_t)1 << 56) /* a budget; also keeps the sums of a plan in range */

/* Model files (GGUF) */
#define LIMIT_GGUF_HEADER ((uint64_t)512 << 20) /* metadata and tensor table together */
#define LIMIT_GGUF_KEYS 65536u
#define LIMIT_GGUF_KEY_LENGTH 65535u
#define LIMIT_GGUF_STRING ((uint64_t)16 << 20)
#define LIMIT_GGUF_ARRAY ((uint64_t)1 << 26) /* elements */
#define LIMIT_GGUF_TENSORS 65536u
#define LIMIT_GGUF_NAME 128u
#define LIMIT_GGUF_DIMS 4u
#define LIMIT_TEMPLATE 65536u /* chat template: three times the largest published */

/* Shapes */
#define LIMIT_LAYERS 1024u
#define LIMIT_EXPERTS 4096u /* of one layer */
#define LIMIT_TOP_K 64u
#define LIMIT_HIDDEN ((uint64_t)1 << 20) /* any row length */
#define LIMIT_HEADS 1024u
#define LIMIT_HEAD_SIZE 1024u
#define LIMIT_VOCABULARY ((uint64_t)1 << 22)
#define LIMIT_CONTEXT ((uint64_t)1 << 24) /* positions of one session */

/* Engine */
#define LIMIT_SESSIONS 256u   /* of all users */
#define LIMIT_LIVE_ROWS 64u   /* decode batch */
#define LIMIT_BULK_ROWS 4096u /* prefill chunk */
#define LIMIT_STOPS 16u	      /* stop strings of one request */
#define LIMIT_STOP_LENGTH 256u

/* Reads */
#define LIMIT_READ_RETRIES 16u /* EINTR and EAGAIN of one read */
#define LIMIT_READS_IN_FLIGHT 128u
#define LIMIT_MODEL_FILES 64u
#define LIMIT_DISKS_REMEMBERED 64u
#define LIMIT_IN_FLIGHT_BYTES ((uint64_t)64 << 20) /* of one disk */
#define LIMIT_SLOT_CLASSES 64u /* sizes of experts told apart */

/* Memory pressure */
#define LIMIT_PRESSURE_ORDER 256u /* bytes of MEMORY_PRESSURE_WRITE, decoded */

/* Clients */
#define LIMIT_CLIENTS 256u
#define LIMIT_CLIENTS_PER_USER 32u
#define LIMIT_CLIENTS_PLANNED 64u /* the memory plan counts the segments of so many */
#define LIMIT_CLIENTS_REFUSED 8u  /* above their limit, to be told so */
#define LIMIT_SESSIONS_PER_CLIENT 16u
#define LIMIT_REQUESTS_PER_USER 64u /* queued */
#define LIMIT_RECORD 16384u	    /* one record in a ring, header included */
#define LIMIT_RING_MIN 65536u
#define LIMIT_RING_MAX ((uint64_t)16 << 20)
#define LIMIT_TURNS 1024u		  /* chat turns of one request */
#define LIMIT_PROMPT ((uint64_t)16 << 20) /* text of one request */
#define LIMIT_REQUESTS 4096u		  /* of all users, queued or running */
#define LIMIT_TRACES 4u			  /* of all requests at once */
#define LIMIT_HELLO_MS 10000u		  /* for the greeting of a client */
#define LIMIT_REQUEST_OUTPUT 32768u	  /* answers buffered for a client that does not read */

/* State files */
#define LIMIT_SPILL_FILE ((uint64_t)1 << 44) /* keys and values of one session */
#define LIMIT_SPILL_FILES 1024u		     /* looked at when starting; more are removed */
#define LIMIT_SPILL_DAMAGED 16u		     /* set aside; more are removed */
#define LIMIT_SPILL_ASIDE 65536u	     /* bytes that are kept of each of those */

/* Configuration */
#define LIMIT_CONFIG_FILE 65536u
