// Package hostrocm finds a machine's ROCm installation for a bundle of the system
// flavour. If ROCm is missing or another release, its error lists what to install.
//
// Such a bundle contains the loader, the C and C++ libraries and llama-server, and
// uses HIP, hipBLAS and rocBLAS of the host. The package checks in advance whether
// they will load, by the loader's own rules: the libraries that the manifest names,
// their dependencies, and the symbol versions that they need from the bundle's own
// libraries.
//
// A bundle uses one installation as a whole, since releases do not mix: ROCM_PATH,
// then /opt/rocm, /opt/rocm-* and /opt/rocm/core*, the newest first, then the
// libraries in the loader's cache and the standard directories.
//
// Files are read below a root, so that a tree of small files can describe a machine.
// The package starts no program, opens no device, and does not look for a GPU
// (runtime/gpu does).
package hostrocm
