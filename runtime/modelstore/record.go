package modelstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
)

// Roles of the files of a model.
const (
	RoleModel     = "model"     // the model, or the first part of a split model
	RolePart      = "part"      // a later part of a split model
	RoleProjector = "projector" // for images or audio
	RoleAdapter   = "adapter"   // a LoRA adapter
	RoleTemplate  = "template"  // a chat template in place of the model's own
)

var roles = []string{RoleModel, RolePart, RoleProjector, RoleAdapter, RoleTemplate}

// File is one file of a model.
type File struct {
	Name   string `json:"name"`   // at its source, without directories
	Role   string `json:"role"`   // one of the constants above
	Size   int64  `json:"size"`   // in bytes
	SHA256 string `json:"sha256"` // in lower case
	// Verified reports that the source or the user named the digest. Otherwise it
	// was computed from the bytes that came, which proves nothing about them.
	Verified bool `json:"verified"`
	// URL is where the file was downloaded, without the query; empty: it was imported.
	URL string `json:"url,omitempty"`
}

// Record describes a model of the store. Records are the JSON files in names/, and
// the entries of a lock file.
type Record struct {
	Name     string    `json:"name"`               // the reference by which the model is used
	Revision string    `json:"revision,omitempty"` // the commit that the source's branch or tag was at
	License  string    `json:"license,omitempty"`  // as the source names it, such as apache-2.0
	Files    []File    `json:"files"`              // the model first
	Added    time.Time `json:"added,omitzero"`
}

// Bytes returns the size of all files.
func (r *Record) Bytes() int64 {
	var sum int64
	for _, f := range r.Files {
		sum += f.Size
	}
	return sum
}

// Verified reports whether the digest of every file was known before it came.
func (r *Record) Verified() bool {
	return !slices.ContainsFunc(r.Files, func(f File) bool { return !f.Verified })
}

// Projector returns the model's projector; ok is false if it has none.
func (r *Record) Projector() (f File, ok bool) {
	i := slices.IndexFunc(r.Files, func(f File) bool { return f.Role == RoleProjector })
	if i < 0 {
		return File{}, false
	}
	return r.Files[i], true
}

// Validate reports whether the record can be used: a record may come from a file
// that anybody wrote, and its names become names of files.
func (r *Record) Validate() error {
	names := map[string]bool{}
	for i, f := range r.Files {
		switch {
		case !modelref.ValidFile(f.Name) || strings.Contains(f.Name, "/"):
			return fmt.Errorf("%w: %q is not a file name", ErrRecord, f.Name)
		case names[f.Name]:
			return fmt.Errorf("%w: the file %s is listed twice", ErrRecord, f.Name)
		case !modelref.ValidSHA256(f.SHA256):
			return fmt.Errorf("%w: %s has the digest %q", ErrRecord, f.Name, f.SHA256)
		case hasQuery(f.URL):
			return fmt.Errorf("%w: the address of %s has a query, which may be a secret; leave it out", ErrRecord, f.Name)
		case f.Size <= 0:
			return fmt.Errorf("%w: %s has %d bytes", ErrRecord, f.Name, f.Size)
		case (f.Role == RoleModel) != (i == 0) || !slices.Contains(roles, f.Role):
			return fmt.Errorf("%w: file %d, %s, is a %q", ErrRecord, i+1, f.Name, f.Role)
		}
		names[f.Name] = true
	}
	if r.Name == "" || len(r.Files) == 0 {
		return fmt.Errorf("%w: it has no name or no files", ErrRecord)
	}
	if ref, err := modelref.Parse(r.Name); err == nil && ref.Query != "" {
		return fmt.Errorf("%w: the name of %s has a query, which may be a secret; leave it out", ErrRecord, ref)
	}
	return nil
}

// hasQuery reports whether an address has a query.
func hasQuery(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.RawQuery != ""
}

// snapshot returns the name of the record's directory in snapshots/: equal for
// records with the same files.
func (r *Record) snapshot() string {
	h := sha256.New()
	for _, f := range r.Files {
		_, _ = fmt.Fprintf(h, "%s %s\n", f.SHA256, f.Name) // a hash returns no error
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// recordFile returns the file name of a record. A name that is too long for a file
// is replaced by its digest.
func recordFile(name string) string {
	const ext, longest = ".json", 250
	if file := url.QueryEscape(name) + ext; len(file) <= longest {
		return file
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:]) + ext
}

// maxRecord limits a record, in bytes: a model of 1024 parts needs less.
const maxRecord = 1 << 20

// Get returns the record with this name. The error wraps ErrNotFound if there is none.
func (s *Store) Get(name string) (*Record, error) {
	r, err := s.read(recordFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return r, err
}

func (s *Store) read(file string) (*Record, error) {
	raw, err := regfile.ReadIn(s.root, filepath.Join(namesDir, file), maxRecord)
	if err != nil {
		return nil, err
	}
	var r Record
	if err = json.Unmarshal(raw, &r); err != nil {
		err = fmt.Errorf("%w: %w", ErrRecord, err)
	} else if err = r.Validate(); err == nil && recordFile(r.Name) != file {
		err = fmt.Errorf("%w: it is named %s", ErrRecord, r.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove the file and pull the model again", filepath.Join(s.dir, namesDir, file), err)
	}
	return &r, nil
}

// List returns all records by name. An error about some of them comes with the others.
func (s *Store) List() ([]Record, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, namesDir))
	if err != nil {
		return nil, err
	}
	var out []Record
	var errs []error
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		switch r, err := s.read(e.Name()); {
		case err == nil:
			out = append(out, *r)
		case !errors.Is(err, fs.ErrNotExist): // not removed in the meantime
			errs = append(errs, err)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.Name, b.Name) })
	return out, errors.Join(errs...)
}

// Verify reads every byte of a record's files and compares their digests. The
// error joins one for each file that is missing or damaged.
func (s *Store) Verify(ctx context.Context, r *Record) error {
	var errs []error
	for _, f := range r.Files {
		sum, size, err := hashFile(ctx, s.BlobPath(f.SHA256))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil && (sum != f.SHA256 || size != f.Size) {
			err = fmt.Errorf("%w: %d bytes with %s, want %d with %s", ErrDigest, size, sum, f.Size, f.SHA256)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.Name, err))
		}
	}
	return errors.Join(errs...)
}

// hashFile returns the digest and the size of a regular file.
func hashFile(ctx context.Context, path string) (sum string, size int64, err error) {
	f, err := regfile.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	h := sha256.New()
	if size, err = io.CopyBuffer(h, struct{ io.Reader }{ctxio.Reader(ctx, f)}, make([]byte, 1<<20)); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}
