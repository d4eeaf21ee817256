// Package hostrocm finds the ROCm of a machine for a bundle of the system
// flavour, and says what to install where it is missing or another release.
//
// Such a bundle brings the loader, the C and C++ libraries and llama-server,
// and takes HIP, hipBLAS and rocBLAS from the host. Whether they will load is
// decided before anything starts, the way the loader will decide it: the
// libraries that the manifest names, what those need in their turn, and the
// symbol versions that they ask of the bundle's own libraries.
//
// One installation is taken whole, since releases do not mix: ROCM_PATH, then
// /opt/rocm, /opt/rocm-* and /opt/rocm/core*, the newest first, then what the
// loader's cache and the standard folders hold.
//
// Files are read below a root, so that a tree of small files stands for a
// machine; parsers take bytes. The package starts nothing, opens no device, and
// does not know whether there is a GPU (runtime/gpu does).
package hostrocm
