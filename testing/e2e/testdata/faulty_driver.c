// A Vulkan driver for tests: it is Mesa's lavapipe, DRIVER, under the name of a card with memory of its own. When the
// file FAULT exists, the process that uses the device next removes the file and has the fault that the file names: "hang", a
// queue that never ends, or "lost", a device that was reset.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

typedef void (*function)(void);
typedef function (*get_function)(void *, const char *);

enum { SUCCESS = 0, NOT_READY = 1, DEVICE_LOST = -4 }; // VkResult
enum { DISCRETE = 2 };                                  // VkPhysicalDeviceType

// The beginning of VkPhysicalDeviceProperties.
struct properties {
	uint32_t api, driver, vendor, device, type;
	char name[256];
};

// VkPhysicalDeviceMemoryProperties.
struct memory {
	uint32_t types, type[32][2];
	uint32_t heaps;
	struct { uint64_t size; uint32_t flags; } heap[16];
};

// The beginning of every structure that has another one inside.
struct extended { int type; void *next; char inner[]; };

static get_function instance_function, physical_function, device_function;
static int (*negotiate)(uint32_t *);
static int (*submit)(void *, uint32_t, const void *, uint64_t);
static int (*wait_fences)(void *, uint32_t, const uint64_t *, uint32_t, uint64_t);
static int (*fence_status)(void *, uint64_t);
static void (*properties)(void *, struct properties *), (*properties2)(void *, struct extended *);
static void (*memory)(void *, struct memory *), (*memory2)(void *, struct extended *);

// fault returns 'h' or 'l' in a process with a fault, and else 0.
static char fault(void) {
	static _Atomic char has;
	int fd;
	char c;
	if (has || (fd = open(FAULT, O_RDONLY | O_CLOEXEC)) < 0)
		return has;
	if (read(fd, &c, 1) == 1 && unlink(FAULT) == 0)
		has = c;
	close(fd);
	return has;
}

static int faulty_submit(void *queue, uint32_t n, const void *infos, uint64_t fence) {
	return fault() == 'l' ? DEVICE_LOST : submit(queue, n, infos, fence);
}

static int faulty_wait(void *device, uint32_t n, const uint64_t *fences, uint32_t all, uint64_t timeout) {
	char f = fault();
	if (f == 'l')
		return DEVICE_LOST;
	while (f == 'h')
		pause();
	return wait_fences(device, n, fences, all, timeout);
}

static int faulty_status(void *device, uint64_t fence) {
	char f = fault();
	return f == 'l' ? DEVICE_LOST : f == 'h' ? NOT_READY : fence_status(device, fence);
}

static void rename_card(struct properties *p) {
	p->type = DISCRETE;
	strcpy(p->name, NAME);
}

static void card_properties(void *card, struct properties *p) {
	properties(card, p);
	rename_card(p);
}

static void card_properties2(void *card, struct extended *p) {
	properties2(card, p);
	rename_card((struct properties *)p->inner);
}

static void card_memory(void *card, struct memory *m) {
	memory(card, m);
	m->heap[0].size = MEMORY;
}

static void card_memory2(void *card, struct extended *m) {
	memory2(card, m);
	((struct memory *)m->inner)->heap[0].size = MEMORY;
}

static function device(void *, const char *);

// replacement returns the function of this file that stands for real, else real.
static function replacement(const char *name, function real) {
	struct { const char *name; function with; void *real; } all[] = {
		{"vkGetDeviceProcAddr", (function)device, &device_function},
		{"vkQueueSubmit", (function)faulty_submit, &submit},
		{"vkWaitForFences", (function)faulty_wait, &wait_fences},
		{"vkGetFenceStatus", (function)faulty_status, &fence_status},
		{"vkGetPhysicalDeviceProperties", (function)card_properties, &properties},
		{"vkGetPhysicalDeviceProperties2", (function)card_properties2, &properties2},
		{"vkGetPhysicalDeviceProperties2KHR", (function)card_properties2, &properties2},
		{"vkGetPhysicalDeviceMemoryProperties", (function)card_memory, &memory},
		{"vkGetPhysicalDeviceMemoryProperties2", (function)card_memory2, &memory2},
		{"vkGetPhysicalDeviceMemoryProperties2KHR", (function)card_memory2, &memory2},
	};
	for (unsigned i = 0; real && i < sizeof all / sizeof *all; i++)
		if (!strcmp(name, all[i].name)) {
			memcpy(all[i].real, &real, sizeof real);
			return all[i].with;
		}
	return real;
}

static function device(void *d, const char *name) { return replacement(name, device_function(d, name)); }

// open_driver returns 0 if the driver cannot be opened.
static int open_driver(void) {
	void *lib;
	if (negotiate)
		return 1;
	if (!(lib = dlopen(DRIVER, RTLD_NOW | RTLD_LOCAL)))
		return 0;
	instance_function = (get_function)dlsym(lib, "vk_icdGetInstanceProcAddr");
	physical_function = (get_function)dlsym(lib, "vk_icdGetPhysicalDeviceProcAddr");
	negotiate = (int (*)(uint32_t *))dlsym(lib, "vk_icdNegotiateLoaderICDInterfaceVersion");
	return instance_function && physical_function && negotiate;
}

int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
	return open_driver() ? negotiate(version) : -9; // VK_ERROR_INCOMPATIBLE_DRIVER
}

function vk_icdGetInstanceProcAddr(void *instance, const char *name) {
	return open_driver() ? replacement(name, instance_function(instance, name)) : 0;
}

function vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
	return open_driver() ? replacement(name, physical_function(instance, name)) : 0;
}
