// Package gpu finds the AMD GPUs of a machine in the kernel's own files: the
// KFD topology below /sys/class/kfd and the DRM devices below /sys/class/drm.
//
// It exists because the decision which card to use, and how much of its memory
// is really free, must be taken before any GPU process starts and on machines
// without a single ROCm tool. sysfs is also the honest source for used memory:
// it counts what every process holds.
//
// Reads go through an FS with a root, so that a machine can be described by a
// tree of text files. A node that is malformed or vanishes while it is read
// costs that node and an error, never the others. Masks (ROCR_VISIBLE_DEVICES
// and its kin) are understood as the ROCm runtime understands them.
//
// The package opens no device and changes nothing; it does not choose a device
// either, runtime/plan does.
package gpu
