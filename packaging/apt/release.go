package apt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/deb822"
)

// listed is an entry of a Release file. Its name is relative to the suite's
// directory.
type listed struct {
	name, sha256 string
	size         int64
}

// release is a parsed Release file.
type release struct {
	suite            string
	date, validUntil time.Time
	files            []listed
}

// digest returns the SHA-256 digest in lower-case hex.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// dateLayout is the layout of times in Release files
// (https://wiki.debian.org/DebianRepository/Format#Date.2C_Valid-Until).
const dateLayout = "Mon, 02 Jan 2006 15:04:05 UTC"

// format returns the text of the file.
func (r *release) format() []byte {
	p := deb822.Paragraph{
		{Name: "Origin", Value: "go-rocm"},
		{Name: "Label", Value: "go-rocm"},
		{Name: "Suite", Value: r.suite},
		{Name: "Codename", Value: r.suite},
		{Name: "Date", Value: r.date.Format(dateLayout)},
		{Name: "Valid-Until", Value: r.validUntil.Format(dateLayout)},
		{Name: "Acquire-By-Hash", Value: "yes"},
		{Name: "Architectures", Value: architecture},
		{Name: "Components", Value: component},
		{Name: "Description", Value: "go-rocm: language models on AMD GPUs"},
		{Name: "Changelogs", Value: "no"},
	}
	var b strings.Builder
	for _, f := range r.files {
		fmt.Fprintf(&b, "\n %s %d %s", f.sha256, f.size, f.name)
	}
	return []byte(append(p, deb822.Field{Name: "SHA256", Value: b.String()}).String())
}

// errRelease reports a Release file that cannot be parsed.
var errRelease = errors.New("invalid Release file")

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// parseRelease reads what format returns.
func parseRelease(text []byte) (*release, error) {
	ps, err := deb822.Parse(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRelease, err)
	}
	if len(ps) != 1 {
		return nil, fmt.Errorf("%w: %d paragraphs instead of one", errRelease, len(ps))
	}
	p := ps[0]
	r := &release{suite: p.Get("Suite")}
	if r.date, err = time.Parse(dateLayout, p.Get("Date")); err != nil {
		return nil, fmt.Errorf("%w: Date: %w", errRelease, err)
	}
	if r.validUntil, err = time.Parse(dateLayout, p.Get("Valid-Until")); err != nil {
		return nil, fmt.Errorf("%w: Valid-Until: %w", errRelease, err)
	}
	for line := range strings.SplitSeq(strings.TrimPrefix(p.Get("SHA256"), "\n"), "\n") {
		words := strings.Fields(line)
		if len(words) != 3 || !hexDigest.MatchString(words[0]) || !fs.ValidPath(words[2]) || words[2] == "." {
			return nil, fmt.Errorf("%w: SHA256: %q is not a digest, a size and a path", errRelease, line)
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("%w: SHA256: %q is not a size in bytes", errRelease, words[1])
		}
		r.files = append(r.files, listed{name: words[2], sha256: words[0], size: size})
	}
	return r, nil
}

// file returns the entry with a name.
func (r *release) file(name string) (listed, bool) {
	i := slices.IndexFunc(r.files, func(f listed) bool { return f.name == name })
	if i < 0 {
		return listed{}, false
	}
	return r.files[i], true
}
