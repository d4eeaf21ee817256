#pragma once

#include <stddef.h>
#include <stdint.h>

/* A signal, as kernels and the HIP runtime see it. */
struct signal {
	int64_t kind;
	int64_t value;
	uint64_t mailbox;
	uint32_t event, reserved;
	uint64_t start, end; /* of the dispatch or copy that completed it, in nanoseconds */
	uint64_t queue;
	uint32_t reserved2[2];
};

/* A queue: the public part, then what kernels may read. */
struct queue {
	uint32_t type, features;
	void *base;
	uint64_t doorbell;
	uint32_t size, reserved;
	uint64_t id;
	uint32_t reserved2[4];
	uint64_t write_index;
	uint32_t shared_aperture, private_aperture; /* upper halves */
	uint32_t reserved3[14];
	uint64_t read_index;
	uint64_t reserved4[15];
};

uint32_t call_handle(void *f, uint64_t handle, void *data);
uint32_t call_symbol(void *f, uint64_t executable, uint64_t symbol, void *data);
int call_handler(void *f, int64_t value, void *data);
void call_queue(void *f, uint32_t status, void *queue, void *data);
void *call_alloc(void *f, size_t n);

int64_t load(uint64_t signal);
void store(uint64_t signal, int64_t value);
int64_t add(uint64_t signal, int64_t value);
uint16_t load_header(void *packet);
void store_header(void *packet, uint16_t header);
uint64_t write_index(void *queue);
uint64_t read_index(void *queue);
uint64_t hsa_queue_add_write_index_screlease(void *queue, uint64_t n);
void set_read_index(void *queue, uint64_t index);

void *at(uint64_t address);
void *reserve(size_t n);
int release(void *p, size_t n);
uint64_t nanoseconds(void);
void fill_loader_table(void *table, size_t n);
