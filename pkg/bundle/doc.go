// Package bundle describes, packs, unpacks and verifies a llama-server bundle:
// a directory with the server, its loader, every library it needs and the GPU
// kernels of the chosen targets.
//
// # Manifest
//
// A [Manifest] lists each file with its size, mode and SHA-256, and records the
// inputs of the build. Its digest is the bundle's content address: equal digests
// mean equal bytes.
//
// # Packed form
//
// A packed bundle is a .tar.zst that plain `tar --zstd -xf` opens. It is a
// sequence of independent zstd frames: the manifest first, then the core files,
// then the files of each GPU target. A skippable frame at the end contains an
// index, so that a reader decodes only the groups it needs, several frames at a
// time. Packing is reproducible. Manifest and index determine every byte of the
// archive, and [Reader.Verify] checks them all: tar unpacks exactly the files
// that the manifest lists.
//
// # Unpacking
//
// Unpacking trusts nothing. Names are validated, files are created inside an
// [os.Root], the manifest bounds each byte count before a byte is written, and
// every file is hashed while it is written.
//
// A file with code for several GPU targets can be unpacked for one of them: the
// code of the others stays a hole. See [Part].
//
// The package has no cache, no lock and no network. Package runtime/extract
// installs bundles; the packages below packaging publish them.
package bundle
