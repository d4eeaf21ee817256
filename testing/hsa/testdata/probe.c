/* Calls the HIP runtime as a program does, without its headers: tests build it and
 * run it with the loader and the libraries of the bundle.
 *
 *   probe devices                       prints a line for each device
 *   probe memory                        copies, fills, streams and events
 *   probe scale FILE KERNEL             runs scale_f32 of a code object of libggml-hip
 *   probe wild FILE KERNEL              runs it with a pointer to nowhere
 *   probe exhaust                       allocates more memory than the device has
 *   probe product M N K                 multiplies matrices of floats with hipBLAS
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *library;

static void *find(const char *name) {
	void *f = dlsym(library, name);
	if (!f) {
		fprintf(stderr, "libamdhip64 has no %s\n", name);
		exit(2);
	}
	return f;
}

#define CALL(name, types, ...)                                                      \
	do {                                                                            \
		int e = ((int(*) types)find(#name))(__VA_ARGS__);                           \
		if (e) {                                                                    \
			const char *(*text)(int) = (const char *(*)(int))find("hipGetErrorString"); \
			fprintf(stderr, #name ": %d %s\n", e, text(e));                          \
			exit(1);                                                                \
		}                                                                           \
	} while (0)

enum { to_device = 1, to_host = 2, on_device = 3 };

static void *device_memory(size_t n) {
	void *p = NULL;
	CALL(hipMalloc, (void **, size_t), &p, n);
	return p;
}

static void copy(void *to, const void *from, size_t n, int kind) {
	CALL(hipMemcpy, (void *, const void *, size_t, int), to, from, n, kind);
}

static void check(int ok, const char *what) {
	if (!ok) {
		fprintf(stderr, "wrong: %s\n", what);
		exit(1);
	}
}

static void devices(void) {
	int n = 0;
	CALL(hipGetDeviceCount, (int *), &n);
	for (int i = 0; i < n; i++) {
		char name[256] = "";
		size_t total = 0, free = 0, all = 0;
		CALL(hipDeviceGetName, (char *, int, int), name, sizeof name, i);
		CALL(hipDeviceTotalMem, (size_t *, int), &total, i);
		CALL(hipSetDevice, (int), i);
		CALL(hipMemGetInfo, (size_t *, size_t *), &free, &all);
		printf("device %d: %s, %zu bytes, %zu free\n", i, name, total, free);
	}
}

static void memory(void) {
	enum { n = 3 << 20 };
	unsigned char *a = malloc(n), *b = malloc(n), *pinned = NULL;
	for (int i = 0; i < n; i++)
		a[i] = (unsigned char)(i * 7 + i / 251);
	void *x = device_memory(n), *y = device_memory(n), *stream = NULL, *start = NULL, *stop = NULL;
	copy(x, a, n, to_device);
	copy(y, x, n, on_device);
	copy(b, y, n, to_host);
	check(!memcmp(a, b, n), "a copy to the device, on it and back");
	copy((char *)y + 5, (char *)x + 11, 1000, on_device);
	copy(b, y, n, to_host);
	check(!memcmp(a, b, 5) && !memcmp(a + 11, b + 5, 1000) && !memcmp(a + 1005, b + 1005, n - 1005), "a small copy at odd addresses");
	CALL(hipMemset, (void *, int, size_t), (char *)y + 3, 0x5a, 70001);
	copy(b, y, n, to_host);
	check(b[2] != 0x5a && b[3] == 0x5a && b[70003] == 0x5a && b[70004] == a[70004], "a fill");
	CALL(hipHostMalloc, (void **, size_t, unsigned), (void **)&pinned, n, 0);
	CALL(hipStreamCreate, (void **), &stream);
	CALL(hipEventCreate, (void **), &start);
	CALL(hipEventCreate, (void **), &stop);
	CALL(hipEventRecord, (void *, void *), start, stream);
	CALL(hipMemcpyAsync, (void *, const void *, size_t, int, void *), pinned, x, n, to_host, stream);
	CALL(hipEventRecord, (void *, void *), stop, stream);
	CALL(hipStreamSynchronize, (void *), stream);
	check(!memcmp(a, pinned, n), "a copy on a stream");
	float milliseconds = -1;
	CALL(hipEventElapsedTime, (float *, void *, void *), &milliseconds, start, stop);
	check(milliseconds >= 0, "the time between two events");
	CALL(hipFree, (void *), x);
	CALL(hipFree, (void *), y);
	CALL(hipHostFree, (void *), pinned);
	puts("memory ok");
}

static void scale(const char *file, const char *kernel, int wild) {
	enum { n = 1000, threads = 256 };
	float in[n], out[n], factor = 1.5f, bias = -0.25f;
	int64_t count = n;
	void *module = NULL, *function = NULL;
	for (int i = 0; i < n; i++)
		in[i] = (float)i / 3 - 100;
	CALL(hipModuleLoad, (void **, const char *), &module, file);
	CALL(hipModuleGetFunction, (void **, void *, const char *), &function, module, kernel);
	void *x = device_memory(sizeof in), *y = device_memory(sizeof out);
	copy(x, in, sizeof in, to_device);
	if (wild)
		x = (void *)0x123456789000;
	void *arguments[] = {&x, &y, &factor, &bias, &count};
	CALL(hipModuleLaunchKernel, (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **),
	     function, (n + threads - 1) / threads, 1, 1, threads, 1, 1, 0, NULL, arguments, NULL);
	CALL(hipDeviceSynchronize, (void));
	copy(out, y, sizeof out, to_host);
	for (int i = 0; i < n; i++) {
		float want = in[i] * factor + bias, d = out[i] - want;
		check(d < 1e-4f && d > -1e-4f, "an element of the scaled vector");
	}
	puts("scale ok");
}

static void exhaust(void) {
	size_t free = 0, total = 0;
	CALL(hipMemGetInfo, (size_t *, size_t *), &free, &total);
	void *p = NULL;
	int e = ((int (*)(void **, size_t))find("hipMalloc"))(&p, total + 1);
	enum { out_of_memory = 2 };
	check(e == out_of_memory, "the error of an allocation larger than the device");
	p = device_memory(free / 2);
	size_t now = 0;
	CALL(hipMemGetInfo, (size_t *, size_t *), &now, &total);
	check(now <= free - free / 2, "the free memory after an allocation");
	e = ((int (*)(void **, size_t))find("hipMalloc"))(&p, free / 2 + (64 << 20));
	check(e == out_of_memory, "the error of an allocation larger than what is free");
	puts("exhaust ok");
}

/* The matrices have their columns one after the other, and the first is transposed, as in llama.cpp. */
static void product(int m, int n, int k) {
	float *a = malloc(sizeof *a * m * k), *b = malloc(sizeof *b * k * n), *c = malloc(sizeof *c * m * n);
	for (int i = 0; i < m * k; i++)
		a[i] = (float)(i * 37 % 101 - 50) / 64;
	for (int i = 0; i < k * n; i++)
		b[i] = (float)(i * 53 % 97 - 48) / 64;
	void *blas = dlopen("libhipblas.so.2", RTLD_NOW), *handle = NULL;
	if (!blas) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	void *x = device_memory(sizeof *a * m * k), *y = device_memory(sizeof *b * k * n), *z = device_memory(sizeof *c * m * n);
	copy(x, a, sizeof *a * m * k, to_device);
	copy(y, b, sizeof *b * k * n, to_device);
	float one = 1, zero = 0;
	enum { plain = 111, transposed = 112 };
	int e = ((int (*)(void **))dlsym(blas, "hipblasCreate"))(&handle);
	check(e == 0, "hipblasCreate");
	e = ((int (*)(void *, int, int, int, int, int, const float *, const float *, int, const float *, int, const float *, float *, int))
		dlsym(blas, "hipblasSgemm"))(handle, transposed, plain, m, n, k, &one, x, k, y, k, &zero, z, m);
	check(e == 0, "hipblasSgemm");
	CALL(hipDeviceSynchronize, (void));
	copy(c, z, sizeof *c * m * n, to_host);
	for (int i = 0; i < m; i++)
		for (int j = 0; j < n; j++) {
			double sum = 0;
			for (int l = 0; l < k; l++)
				sum += (double)a[i * k + l] * b[j * k + l];
			double d = sum - c[j * m + i];
			check(d < 1e-3 && d > -1e-3, "an element of the product");
		}
	puts("product ok");
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	library = dlopen("libamdhip64.so.6", RTLD_NOW);
	if (!library) {
		fprintf(stderr, "%s\n", dlerror());
		return 2;
	}
	CALL(hipInit, (unsigned), 0);
	if (!strcmp(what, "devices"))
		devices();
	else if (!strcmp(what, "memory"))
		memory();
	else if (argc == 4 && !strcmp(what, "scale"))
		scale(argv[2], argv[3], 0);
	else if (argc == 4 && !strcmp(what, "wild"))
		scale(argv[2], argv[3], 1);
	else if (!strcmp(what, "exhaust"))
		exhaust();
	else if (argc == 5 && !strcmp(what, "product"))
		product(atoi(argv[2]), atoi(argv[3]), atoi(argv[4]));
	else
		return 2;
	return 0;
}
