// Package elfdep answers, from the files alone, what an ELF program needs to
// run elsewhere and what GPU code it carries.
//
//   - Closure follows DT_NEEDED the way the GNU loader does, inside a folder
//     that stands for the root of a file system.
//   - OpenedNames finds libraries that are opened by name at run time, and
//     Review holds them against a reviewed list.
//   - ReadFatBinary lists the GPU code objects of a HIP program or library,
//     CodeObjects counts kernels for each target, and Slim takes out the code
//     of targets that are not wanted.
//   - Hardening, DebugSections and ScanStrings check how a file was built.
//   - ParseTensileName says which target and data type a rocBLAS kernel
//     library file serves.
//
// Nothing here runs a program of the files it reads, and nothing needs
// binutils or a GPU; only ELF64 little endian is read, as ROCm exists for
// nothing else. The package does not strip debug information (the toolchain
// does) and decides nothing about what a bundle should contain.
package elfdep
