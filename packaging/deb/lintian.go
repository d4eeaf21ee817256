package deb

import (
	"fmt"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// override is a lintian override: a tag, with a pattern for its context, and the
// reason, which becomes a comment in the installed file.
type override struct {
	tag    string
	reason string
}

// packageOverrides returns the overrides that every package has.
func packageOverrides() []override {
	return []override{
		{"malformed-deb-archive *data.tar.zst*", "dpkg supports zstd since 1.21.18. Debian 12 and Ubuntu 22.04 are the oldest supported releases."},
		{"initial-upload-closes-no-bugs *", "The package is published outside Debian, so there is no ITP bug."},
	}
}

func commandOverrides() []override {
	return []override{
		{"statically-linked-binary *usr/bin/go-rocm*", "This is a Go program without cgo; the copyright file lists its components."},
	}
}

// bundleOverrides returns the overrides for the user space in a hermetic bundle.
// It is there so that the same bytes run on every distribution.
func bundleOverrides(b *unpackedBundle) []override {
	if b.manifest.Flavour != bundle.FlavourHermetic {
		return nil
	}
	const private = "*usr/lib/go-rocm/llama/*"
	loader := "*usr/lib/go-rocm/llama/" + b.manifest.Entry.Loader + "*"
	list := []override{
		{"embedded-library " + private, "The bundle uses only its own libraries, so that it does not depend on the versions of the distribution."},
		{"undeclared-elf-prerequisites " + private, "The bundle contains the C library and all other libraries, and runs through its own loader."},
		{"shared-library-is-executable " + loader, "The loader is executed as a program that starts the server."},
		{"shared-library-lacks-prerequisites " + loader, "The loader resolves the prerequisites of the other libraries and has none itself."},
	}
	if len(b.manifest.Targets) == 0 {
		return list
	}
	const kernels = "*usr/lib/go-rocm/llama/rocblas/*"
	return append(list,
		override{"binary-from-other-architecture " + kernels, "These are GPU kernels, which the ROCm runtime loads onto the card."},
		override{"unstripped-binary-or-object " + kernels, "The runtime finds the kernels by their symbols."},
		override{"shared-library-lacks-prerequisites " + kernels, "GPU kernels do not link to libraries."},
	)
}

// overridesFile returns the text of a package's lintian overrides.
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
