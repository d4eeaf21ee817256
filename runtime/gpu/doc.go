// Package gpu finds the GPUs of a machine in the kernel's own files: the KFD
// topology below /sys/class/kfd, which lists what HIP can use, and the DRM devices
// below /sys/class/drm. What llama-server reports of Vulkan's devices is joined to the
// same list, see MatchVulkan.
//
// The choice of a card, and the size of its free memory, must be known before any
// GPU process starts, also on machines without a single ROCm tool. sysfs is also the
// accurate source for used memory: it counts the memory of every process.
//
// Reads go through an FS with a root, so that a tree of text files can describe a
// machine. A node that is malformed or disappears during the read yields an error
// for that node, never for the others. Masks (ROCR_VISIBLE_DEVICES and the like)
// are interpreted as the ROCm runtime interprets them.
//
// The package opens no device, changes nothing, and does not choose a device;
// runtime/plan does.
package gpu
