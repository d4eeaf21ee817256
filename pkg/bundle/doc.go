// Package bundle describes, packs, unpacks and checks a llama-server bundle:
// one flat folder holding the server, its loader, every library it needs and
// the GPU kernels of the chosen targets.
//
// A [Manifest] lists each file with its size, mode and SHA-256, and says what
// the files were made from. Its digest is the bundle's content address: equal
// digests mean equal bytes.
//
// A packed bundle is a .tar.zst that plain `tar --zstd -xf` opens. It is a row
// of independent zstd frames: the manifest first, then the core files, then
// the files of each GPU target. A skippable frame at the end holds an index,
// so that a reader takes only the groups it needs and decodes frames side by
// side. Packing the same folder twice gives the same bytes. Manifest and index
// determine every byte of the archive inside, which [Reader.Verify] checks: tar
// unpacks of a pack what the manifest lists.
//
// Unpacking trusts nothing: names are validated, files are created inside an
// [os.Root], each byte count is bounded by the manifest before a byte is
// written, and every file is hashed on its way to the disk.
//
// A file with code for several GPU targets can be unpacked for one of them:
// what only the others need stays a hole. See [Part].
//
// The package knows no cache, no lock and no network; see runtime/extract for
// the installed copy and packaging for how a pack travels.
package bundle
