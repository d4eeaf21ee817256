package deb

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// manualPlaces says where the written manual goes, by folder of Command.Manual.
func manualPlaces() []struct{ from, to string } {
	return []struct{ from, to string }{
		{"man1", "/usr/share/man/man1"},
		{"bash", "/usr/share/bash-completion/completions"},
		{"zsh", "/usr/share/zsh/vendor-completions"},
		{"fish", "/usr/share/fish/vendor_completions.d"},
	}
}

// manualEntries are the man pages, compressed, and the shell completions.
func manualEntries(manual string) ([]entry, error) {
	var out []entry
	for _, place := range manualPlaces() {
		dir := filepath.Join(manual, place.from)
		files, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("%w: manual: %w: write it with packaging/manual", ErrOptions, err)
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: manual: %s is empty: write it with packaging/manual", ErrOptions, dir)
		}
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return nil, fmt.Errorf("read the manual: %w", err)
			}
			name := f.Name()
			if place.from == "man1" {
				if text, err = compress(text); err != nil {
					return nil, err
				}
				name += ".gz"
			}
			out = append(out, entry{path: path.Join(place.to, name), text: text, mode: 0o644})
		}
	}
	return out, nil
}

// maintainerMark stands in the written history for who makes the package.
const maintainerMark = "@MAINTAINER@"

// changelog is the command's history in Debian's form, compressed. The version
// that is being built stands first. Where the written history begins with that
// version, its entry gets what only a build knows: the llama.cpp release, the
// revision and the time of the build.
func changelog(o Options, v Version) ([]byte, error) {
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
		text = fmt.Sprintf("%s (%s)%s%s%s", name, v, changes, signedOff(o), older)
	} else {
		text = fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * Build of version %s.\n%s\n%s", name, v, v.Upstream(), signedOff(o), text)
	}
	return compress([]byte(text))
}

// bundleChangelog has one entry, about the bundle: what changes with releases of
// the command would make another package of the same bundle.
func bundleChangelog(name string, o Options, v Version, b *unpacked) ([]byte, error) {
	about := fmt.Sprintf("llama.cpp %s, GPU targets: %s. Its content is: sha256:%s", b.manifest.Version, b.targets(), b.manifest.Digest())
	text := fmt.Sprintf("%s (%s) unstable; urgency=medium\n\n  * %s\n%s", name, v, strings.Join(fold(about, 74), "\n    "), signedOff(o))
	return compress([]byte(text))
}

// signedOff ends an entry of a changelog.
func signedOff(o Options) string {
	return fmt.Sprintf("\n -- %s  %s\n", o.Maintainer, o.Epoch.Format(time.RFC1123Z))
}

// compress packs with gzip as `gzip -9n` does: no name, no time.
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
