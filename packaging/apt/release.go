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
)

// listed is a file that a Release file names: its path below the suite's folder.
type listed struct {
	name, sha256 string
	size         int64
}

// release is what a Release file says.
type release struct {
	suite       string
	date, valid time.Time
	files       []listed
}

// digest is the lower-case hex SHA-256.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// dateForm is how Release files write times
// (https://wiki.debian.org/DebianRepository/Format#Date.2C_Valid-Until).
const dateForm = "Mon, 02 Jan 2006 15:04:05 UTC"

// format writes the file.
func (r *release) format() []byte {
	p := paragraph{
		{"Origin", "go-rocm"},
		{"Label", "go-rocm"},
		{"Suite", r.suite},
		{"Codename", r.suite},
		{"Date", r.date.Format(dateForm)},
		{"Valid-Until", r.valid.Format(dateForm)},
		{"Acquire-By-Hash", "yes"},
		{"Architectures", architecture},
		{"Components", component},
		{"Description", "go-rocm: language models on AMD GPUs"},
		{"Changelogs", "no"},
	}
	var b strings.Builder
	for _, f := range r.files {
		fmt.Fprintf(&b, "\n %s %d %s", f.sha256, f.size, f.name)
	}
	return []byte(append(p, field{"SHA256", b.String()}).String())
}

// errRelease says that a Release file cannot be read.
var errRelease = errors.New("bad Release file")

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// parseRelease reads what format wrote.
func parseRelease(text []byte) (*release, error) {
	ps, err := parse(strings.NewReader(string(text)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRelease, err)
	}
	if len(ps) != 1 {
		return nil, fmt.Errorf("%w: %d paragraphs instead of one", errRelease, len(ps))
	}
	p := ps[0]
	r := &release{suite: p.get("Suite")}
	if r.date, err = time.Parse(dateForm, p.get("Date")); err != nil {
		return nil, fmt.Errorf("%w: Date: %w", errRelease, err)
	}
	if r.valid, err = time.Parse(dateForm, p.get("Valid-Until")); err != nil {
		return nil, fmt.Errorf("%w: Valid-Until: %w", errRelease, err)
	}
	for line := range strings.SplitSeq(strings.TrimPrefix(p.get("SHA256"), "\n"), "\n") {
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

// file finds an entry by its path.
func (r *release) file(name string) (listed, bool) {
	i := slices.IndexFunc(r.files, func(f listed) bool { return f.name == name })
	if i < 0 {
		return listed{}, false
	}
	return r.files[i], true
}
