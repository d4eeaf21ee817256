//go:build linux && amd64

#define _GNU_SOURCE
#include "runtime.h"
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* Calls of functions that the HIP runtime passes. */

uint32_t call_handle(void *f, uint64_t handle, void *data) {
	return ((uint32_t (*)(uint64_t, void *))f)(handle, data);
}

uint32_t call_symbol(void *f, uint64_t executable, uint64_t symbol, void *data) {
	return ((uint32_t (*)(uint64_t, uint64_t, void *))f)(executable, symbol, data);
}

int call_handler(void *f, int64_t value, void *data) {
	return ((_Bool (*)(int64_t, void *))f)(value, data);
}

void call_queue(void *f, uint32_t status, void *queue, void *data) {
	((void (*)(uint32_t, void *, void *))f)(status, queue, data);
}

void *call_alloc(void *f, size_t n) { return ((void *(*)(size_t))f)(n); }

/* Atomic access to signals and queues. */

static struct signal *signal_at(uint64_t handle) { return (struct signal *)handle; }

int64_t load(uint64_t s) { return __atomic_load_n(&signal_at(s)->value, __ATOMIC_ACQUIRE); }

void store(uint64_t s, int64_t value) { __atomic_store_n(&signal_at(s)->value, value, __ATOMIC_RELEASE); }

int64_t add(uint64_t s, int64_t value) { return __atomic_add_fetch(&signal_at(s)->value, value, __ATOMIC_ACQ_REL); }

uint16_t load_header(void *packet) { return __atomic_load_n((uint16_t *)packet, __ATOMIC_ACQUIRE); }

void store_header(void *packet, uint16_t header) { __atomic_store_n((uint16_t *)packet, header, __ATOMIC_RELEASE); }

uint64_t write_index(void *q) { return __atomic_load_n(&((struct queue *)q)->write_index, __ATOMIC_ACQUIRE); }

uint64_t read_index(void *q) { return __atomic_load_n(&((struct queue *)q)->read_index, __ATOMIC_ACQUIRE); }

void set_read_index(void *q, uint64_t index) {
	__atomic_store_n(&((struct queue *)q)->read_index, index, __ATOMIC_RELEASE);
}

/* What the HIP runtime calls in a loop while it waits. */

int64_t hsa_signal_load_relaxed(uint64_t s) { return load(s); }

void hsa_signal_silent_store_relaxed(uint64_t s, int64_t value) { store(s, value); }

uint64_t hsa_queue_load_read_index_relaxed(void *q) { return read_index(q); }

uint64_t hsa_queue_load_read_index_scacquire(void *q) { return read_index(q); }

uint64_t hsa_queue_load_write_index_relaxed(void *q) { return write_index(q); }

uint64_t hsa_queue_add_write_index_screlease(void *q, uint64_t n) {
	return __atomic_fetch_add(&((struct queue *)q)->write_index, n, __ATOMIC_ACQ_REL);
}

/* Memory and time. */

void *at(uint64_t address) { return (void *)address; }

void *reserve(size_t n) {
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

int release(void *p, size_t n) { return munmap(p, n); }

uint64_t nanoseconds(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The loader's extension: a device address is the host's. */

extern uint32_t hostAddress(void *device, void **host);
extern uint32_t loaderMissing(void);

void fill_loader_table(void *table, size_t n) {
	void *functions[6] = {hostAddress};
	for (int i = 1; i < 6; i++)
		functions[i] = loaderMissing;
	memcpy(table, functions, n < sizeof functions ? n : sizeof functions);
}
