package modelstore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
)

// Lookup returns the record that a reference names: the one with its name, or the
// only one of the repository if the reference names no quantisation and no file, or
// the one of the address if it names no digest. The error wraps ErrNotFound.
func (s *Store) Lookup(ref modelref.Ref) (*Record, error) {
	r, err := s.Get(ref.String())
	if !errors.Is(err, ErrNotFound) {
		return r, err
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var found []Record
	var names []string
	for _, r := range all {
		other, err := modelref.Parse(r.Name)
		if err == nil && matches(ref, other) {
			found = append(found, r)
			names = append(names, r.Name)
		}
	}
	switch len(found) {
	case 0:
		return nil, notFound(ref)
	case 1:
		return &found[0], nil
	}
	return nil, fmt.Errorf("the store has several models of %s: name one of %s", ref, strings.Join(names, ", "))
}

func notFound(ref modelref.Ref) error {
	if ref.Query != "" {
		return fmt.Errorf("%w: %s; run go-rocm pull with its whole address", ErrNotFound, ref)
	}
	return fmt.Errorf("%w: %s; run go-rocm pull %s", ErrNotFound, ref, ref)
}

func matches(ref, stored modelref.Ref) bool {
	switch {
	case ref.Scheme != stored.Scheme:
		return false
	case ref.Scheme == modelref.URL:
		return ref.SHA256 == "" && ref.URL == stored.URL
	case ref.Scheme == modelref.OCI:
		return false // a reference without a tag has the tag latest
	}
	return ref.Quant == "" && ref.File == "" && ref.Owner == stored.Owner && ref.Repo == stored.Repo && ref.Revision == stored.Revision
}

// inUse has the leases of Resolve by the path of their model.
var inUse = struct {
	sync.Mutex
	leases map[string]*Lease
}{leases: map[string]*Lease{}}

// Resolve returns the path of the model in the store of [Dir] that name, a reference
// such as hf:OWNER/REPO, names, and its record. The model is not pruned until this
// process exits, since a child process may be started again at any time. For a path
// it returns a nil record and name itself.
func Resolve(name string) (path string, r *Record, err error) {
	ref, err := modelref.Parse(name)
	if err != nil {
		return "", nil, err
	}
	if !ref.Remote() {
		return name, nil, nil
	}
	s, err := OpenExisting("")
	if errors.Is(err, os.ErrNotExist) {
		return "", nil, notFound(ref)
	}
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = s.Close() }()
	if r, err = s.Lookup(ref); err != nil {
		return "", nil, err
	}
	path = s.Path(r, r.Files[0])
	inUse.Lock()
	defer inUse.Unlock()
	if inUse.leases[path] == nil {
		lease, err := s.Acquire(r)
		if err != nil {
			return "", nil, err
		}
		inUse.leases[path] = lease
	}
	return path, r, nil
}
