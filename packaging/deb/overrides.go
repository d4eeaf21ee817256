package deb

import (
	"fmt"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// override answers a lintian tag for a package, with the reason that stands
// above it in the installed file.
type override struct {
	tag    string // with the context that the tag is limited to, if any
	reason string
}

// packageOverrides are those of every package.
func packageOverrides() []override {
	return []override{
		{"malformed-deb-archive *data.tar.zst*", "dpkg reads zstd since 1.21.18 (Debian 12, Ubuntu 22.04). Both are the oldest releases that this package is for."},
		{"initial-upload-closes-no-bugs *", "The package is published outside of Debian: no bug asked for it."},
	}
}

func commandOverrides() []override {
	return []override{
		{"statically-linked-binary *usr/bin/go-rocm*", "A Go program without cgo; its parts are listed in the copyright file."},
	}
}

// bundleOverrides answer for the bundle's own user space, which is the point of
// it: the same bytes run on every distribution, whatever its C library.
func bundleOverrides(b *unpacked) []override {
	if b.manifest.Flavour != bundle.FlavourHermetic {
		return nil
	}
	const private = "*usr/lib/go-rocm/llama/*"
	loader := "*usr/lib/go-rocm/llama/" + b.manifest.Entry.Loader + "*"
	list := []override{
		{"embedded-library " + private, "The bundle runs with its own libraries alone, so that it does not depend on the distribution's versions."},
		{"undeclared-elf-prerequisites " + private, "The bundle carries its C library and all others, and is started through its own loader."},
		{"shared-library-is-executable " + loader, "The loader is run as a program: it starts the server."},
		{"shared-library-lacks-prerequisites " + loader, "The loader is what resolves the others' prerequisites; it has none itself."},
	}
	if len(b.manifest.Targets) == 0 {
		return list
	}
	const kernels = "*usr/lib/go-rocm/llama/rocblas/*"
	return append(list,
		override{"binary-from-other-architecture " + kernels, "These are kernels for the GPU, which the ROCm runtime loads onto the card."},
		override{"unstripped-binary-or-object " + kernels, "The runtime finds the kernels by their symbols."},
		override{"shared-library-lacks-prerequisites " + kernels, "Kernels for the GPU link to nothing."},
	)
}

// overridesFile is the file that lintian reads for a package.
func overridesFile(name string, list []override) []byte {
	var b strings.Builder
	for i, o := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		for _, line := range fold(o.reason, 76) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, o.tag)
	}
	return []byte(b.String())
}
