// Package elfdep reads, from the files alone, what an ELF program needs to run
// on another machine and how it was built.
//
//   - [Closure] follows DT_NEEDED as the GNU loader does, inside a directory
//     that is used as the root of a file system.
//   - [OpenedNames] finds libraries that are opened by name at run time, and
//     [Review] compares them with a reviewed list.
//   - [Unresolved] and [ImportsFrom] compare the symbols and symbol versions
//     that files import with those that libraries define.
//   - [Hardening], [DebugSections] and [ScanStrings] check how a file was built.
//   - [RemoveRunpath] deletes the search paths of the build machine.
//
// The package runs none of the files it reads and needs no binutils. It reads
// ELF64 little endian only, since ROCm exists for nothing else. It does not
// strip debug information (the toolchain does) and does not decide what a
// bundle should contain. GPU code is the subject of pkg/offload.
package elfdep
