package deb

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
	"time"
)

// maintainerMark stands for the maintainer in the changelog asset.
const maintainerMark = "@MAINTAINER@"

// commandChangelog returns the command's changelog in Debian's format, compressed.
// The version that is being built comes first. If the changelog asset begins with
// that version, its entry is completed with what only the build knows: the
// llama.cpp release, the revision and the time.
func commandChangelog(o Options, v Version) ([]byte, error) {
	const name = "go-rocm"
	history, err := readAsset("changelog")
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(string(history), maintainerMark, o.Maintainer)
	plain := v
	plain.Metadata = ""
	head, rest, _ := strings.Cut(text, ")")
	changes, older, ok := strings.Cut(rest, "\n -- ")
	if ok && head == name+" ("+plain.Upstream()+"-1" {
		_, older, _ = strings.Cut(older, "\n")
		text = fmt.Sprintf("%s (%s)%s%s%s", name, v, changes, trailer(o), older)
	} else {
		text = fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * Build of version %s.\n%s\n%s", name, v, v.Upstream(), trailer(o), text)
	}
	return compress([]byte(text))
}

// bundleChangelog has one entry, about the bundle. Anything that changes with the
// command would change the package of an unchanged bundle.
func bundleChangelog(name string, o Options, v Version, b *unpackedBundle) ([]byte, error) {
	about := fmt.Sprintf("llama.cpp %s, GPU targets: %s. Manifest digest: sha256:%s", b.manifest.Version, b.targets(), b.manifest.Digest())
	text := fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * %s\n%s", name, v, strings.Join(fold(about, 74), "\n    "), trailer(o))
	return compress([]byte(text))
}

// trailer returns the last line of a changelog entry.
func trailer(o Options) string {
	return fmt.Sprintf("\n -- %s  %s\n", o.Maintainer, o.Epoch.Format(time.RFC1123Z))
}

// compress compresses as `gzip -9n` does, without a name and a time.
func compress(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("compress a document: %w", err)
	}
	if _, err := z.Write(text); err != nil {
		return nil, fmt.Errorf("compress a document: %w", err)
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("compress a document: %w", err)
	}
	return b.Bytes(), nil
}
