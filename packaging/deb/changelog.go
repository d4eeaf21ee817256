package deb

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"strings"
	"time"
)

// maintainerMark is the placeholder for the maintainer in the changelog asset.
const maintainerMark = "@MAINTAINER@"

// commandChangelog returns the command's changelog in Debian's format, compressed.
// The version that is being built comes first. If the changelog asset begins with
// that version, its entry is completed with facts of the build: the
// llama.cpp release, the revision and the time.
func commandChangelog(o Options, v Version) ([]byte, error) {
	text, err := changelogText(o, v)
	if err != nil {
		return nil, err
	}
	return compress([]byte(text))
}

// changelogText is commandChangelog without the compression.
func changelogText(o Options, v Version) (string, error) {
	const name = "go-rocm"
	history, err := readAsset("changelog")
	if err != nil {
		return "", err
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
	return text, nil
}

// CheckChangelogDate checks that the changelog entry of the command's version would be
// later than the entry below it, as lintian demands.
func CheckChangelogDate(o Options) error {
	packed, v, err := changelogOf(o)
	if err != nil {
		return err
	}
	var dates []time.Time
	for line := range strings.Lines(packed) {
		if _, date, ok := strings.Cut(line, ">  "); ok && strings.HasPrefix(line, " -- ") {
			at, err := time.Parse(time.RFC1123Z, strings.TrimSpace(date))
			if err != nil {
				return fmt.Errorf("the changelog asset: %w", err)
			}
			dates = append(dates, at)
		}
	}
	if len(dates) > 1 && !dates[0].After(dates[1]) {
		return fmt.Errorf("%w: the changelog entry of version %s would be dated %s, but the entry below it is dated %s: set SOURCE_DATE_EPOCH to a later time, such as the output of `git log -1 --format=%%ct`",
			ErrOptions, v.Upstream(), dates[0].UTC().Format(time.RFC3339), dates[1].UTC().Format(time.RFC3339))
	}
	return nil
}

// changelogOf returns the text of the command's changelog for the version of o.
func changelogOf(o Options) (string, Version, error) {
	v, err := ParseVersion(o.Version, o.Revision)
	if err != nil {
		return "", v, err
	}
	o.Maintainer = cmp.Or(o.Maintainer, DefaultMaintainer)
	text, err := changelogText(o, v)
	return text, v, err
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
