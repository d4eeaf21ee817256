package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// LockFile is the usual name of a lock file.
const LockFile = "models.lock"

// ErrLock reports a lock file that cannot be used.
var ErrLock = errors.New("unusable lock file")

// Lock lists models to the byte: another machine that pulls it has the same files.
type Lock struct {
	Version int                 `json:"version"` // 1
	Models  []modelstore.Record `json:"models"`  // by name
}

// NewLock returns the lock of records. They must come from a hub or a web server.
func NewLock(records []modelstore.Record) (*Lock, error) {
	l := &Lock{Version: 1, Models: slices.Clone(records)}
	for i := range l.Models {
		l.Models[i].Added = time.Time{} // equal models have equal locks
	}
	return l, l.validate()
}

// maxLock limits a lock file, in bytes.
const maxLock = 16 << 20

// ReadLock reads a lock file. The error wraps ErrLock if it is not valid.
func ReadLock(name string) (*Lock, error) {
	raw, err := regfile.ReadText(name, maxLock)
	if err != nil {
		return nil, err
	}
	l, err := parseLock(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return l, nil
}

func parseLock(raw []byte) (*Lock, error) {
	var l Lock
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLock, err)
	}
	return &l, l.validate()
}

func (l *Lock) validate() error {
	if l.Version != 1 {
		return fmt.Errorf("%w: it has version %d, this program reads 1", ErrLock, l.Version)
	}
	for i := range l.Models {
		r := &l.Models[i]
		ref, err := modelref.Parse(r.Name)
		if err == nil {
			err = r.Validate()
		}
		if err == nil && !ref.Remote() {
			err = fmt.Errorf("%s was imported from this machine; pull it from its source", r.Name)
		}
		if err != nil {
			return fmt.Errorf("%w: model %d: %w", ErrLock, i+1, err)
		}
	}
	return nil
}

// Bytes returns the content of the lock file: equal models have equal ones.
func (l *Lock) Bytes() ([]byte, error) {
	raw, err := json.MarshalIndent(l, "", "  ")
	return append(raw, '\n'), err
}

// Write replaces the lock file as a whole.
func (l *Lock) Write(name string) error {
	raw, err := l.Bytes()
	if err != nil {
		return err
	}
	return regfile.Replace(name, raw, 0o644) // it is committed and shared
}

// PullLocked brings the models of a lock file into the store. With a mirror, a
// directory, the files are copied from there and nothing is downloaded. Every digest
// must be that of the lock file.
func (p *Puller) PullLocked(ctx context.Context, s *modelstore.Store, l *Lock, mirror string) error {
	if mirror != "" {
		if err := checkMirror(s, l, mirror); err != nil {
			return err
		}
	}
	for _, r := range l.Models {
		r.Files = slices.Clone(r.Files)
		for i := range r.Files {
			r.Files[i].Verified = true // by the lock
			r.Files[i].URL = p.rebase(r.Name, r.Revision, r.Files[i].URL)
		}
		if _, err := p.fetch(ctx, s, r, origin{mirror: mirror}); err != nil {
			return explainAddress(err, &r)
		}
	}
	return nil
}

// explainAddress says what to do when an address does not bring the file of a lock. The
// lock does not have the query with which it may have been pulled.
func explainAddress(err error, r *modelstore.Record) error {
	ref, parseErr := modelref.Parse(r.Name)
	var status *download.StatusError
	if parseErr != nil || ref.Scheme != modelref.URL {
		return err
	}
	if errors.As(err, &status) && !status.Temporary() || errors.Is(err, download.ErrDigest) || errors.Is(err, download.ErrSize) || errors.Is(err, gguf.ErrNotGGUF) {
		return fmt.Errorf("%w; if the address needs a query, such as a signature, which no lock file has: run go-rocm pull '%s?QUERY#sha256=%s' first, or use --mirror", err, ref.URL, r.Files[0].SHA256)
	}
	return err
}

// rebase returns the address of a file of a hub on the hub that this machine uses.
func (p *Puller) rebase(name, revision, address string) string {
	ref, err := modelref.Parse(name)
	if err != nil || ref.Scheme != modelref.Hub {
		return address
	}
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	_, file, ok := strings.Cut(u.Path, "/resolve/"+revision+"/")
	if !ok || !modelref.ValidFile(file) {
		return address
	}
	return p.Hub.FileURL(&hub.Repo{Owner: ref.Owner, Name: ref.Repo, Commit: revision}, hub.File{Path: file})
}
