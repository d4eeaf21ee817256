// Package offload reads and edits the GPU code in ELF files that HIP was
// compiled to.
//
// clang puts the code of one translation unit for all targets into an offload
// bundle, and the linker concatenates the bundles in the section .hip_fatbin:
// the fat binary. Each entry of a bundle is a code object, an ELF file of its
// own for one target.
//
//   - [ReadFatBinary] lists the bundles of a file, plain or compressed.
//   - [ReadCodeObjects] counts code objects and kernels for each target, and
//     [CheckTargets] rejects a file without the code of exactly the wanted
//     targets.
//   - [Slim] clears the code of all other targets in place.
//   - [ReadTargetExtents] lists the bytes that each target alone needs, so that an
//     unpacked file can leave out those of other targets.
//
// Nothing here needs a GPU, ROCm or binutils. How the formats are laid out is
// described in LLVM's documentation of clang-offload-bundler and in its AMDGPU
// backend's user guide.
package offload
