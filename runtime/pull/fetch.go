package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

func fetchHeader(ctx context.Context, client *download.Client, file modelstore.File, query, name string) error {
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = client.FetchHeader(ctx, source(file, query), out)
	return errors.Join(err, out.Close())
}

// origin is where the files of a record come from.
type origin struct {
	mirror string // this directory; empty: the addresses of the record
	query  string // of these addresses, which no record has
}

// address returns the address of a file with the query.
func address(file *modelstore.File, query string) string {
	if query == "" {
		return file.URL
	}
	return file.URL + "?" + query
}

func source(file modelstore.File, query string) download.Source {
	return download.Source{URL: address(&file, query), Size: file.Size, SHA256: file.SHA256, Check: func(r io.ReaderAt, size int64) error {
		return checkHeader(r, size, file.Role)
	}}
}

// maxTemplate limits a chat template, in bytes, as package rocm does.
const maxTemplate = 1 << 20

// kindOf has the kinds of GGUF files by their roles. The later parts of a split model
// have none of their own.
var kindOf = map[string]string{
	modelstore.RoleModel: gguf.KindModel, modelstore.RoleProjector: gguf.KindProjector, modelstore.RoleAdapter: gguf.KindAdapter,
}

// checkHeader reports whether the beginning of a file is that of a GGUF file with
// this role, or whether it may be a chat template.
func checkHeader(r io.ReaderAt, size int64, role string) error {
	if role == modelstore.RoleTemplate {
		if size > maxTemplate {
			return fmt.Errorf("%w: a chat template of %d bytes", ErrNotModel, size)
		}
		return nil
	}
	f, err := gguf.NewReader(r, size)
	if err != nil {
		return err
	}
	if kind := f.Role(); kindOf[role] != "" && kind != kindOf[role] {
		return fmt.Errorf("%w: the file is a %.40q, not a %s", ErrNotModel, kind, role)
	}
	return nil
}

// maxLicense limits the name of a licence, in bytes. A longer text is its wording.
const maxLicense = 200

// license returns the name of the licence that a model file, or its first part, states.
func license(path string, size int64) string {
	in, err := regfile.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = in.Close() }() // it was only read
	f, err := gguf.NewReader(in, size)
	if err != nil {
		return ""
	}
	text, err := f.Text("general.license")
	if err != nil || len(text) > maxLicense || strings.ContainsAny(text, "\r\n") {
		return ""
	}
	return text
}

// fetch downloads the files that the store does not have, or copies them from a mirror,
// and stores the record.
func (p *Puller) fetch(ctx context.Context, s *modelstore.Store, r modelstore.Record, from origin) (_ *modelstore.Record, err error) {
	w, err := s.Write(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	var client *download.Client // a registry is asked only for what the store does not have
	if from.mirror == "" && len(missing(s, r.Files)) > 0 {
		if client, err = p.clientFor(ctx, r.Name); err != nil {
			return nil, err
		}
	}
	var before, total int64
	for _, f := range r.Files {
		total += max(f.Size, 0)
	}
	r.Files = append([]modelstore.File{}, r.Files...)
	for i := range r.Files {
		f := &r.Files[i]
		progress := func(done, size int64) {
			if p.Progress != nil {
				p.Progress(f.Name, before+done, max(total, before+size))
			}
		}
		if len(missing(s, r.Files[i:i+1])) > 0 {
			if client == nil && from.mirror == "" { // it was removed in the meantime
				if client, err = p.clientFor(ctx, r.Name); err != nil {
					return nil, err
				}
			}
			if err := fetchFile(ctx, client, w, f, from, progress); err != nil {
				return nil, fmt.Errorf("pull %s: %s: %w", r.Name, f.Name, err)
			}
		} else if f.Size < 0 {
			info, err := os.Stat(s.BlobPath(f.SHA256))
			if err != nil {
				return nil, err
			}
			f.Size = info.Size()
		}
		before += f.Size
	}
	return put(w, s, r)
}

// missing returns the files that the store does not have.
func missing(s *modelstore.Store, files []modelstore.File) []modelstore.File {
	var out []modelstore.File
	for _, f := range files {
		if f.SHA256 == "" || !s.Has(f.SHA256, f.Size) {
			out = append(out, f)
		}
	}
	return out
}

// put stores a record. Its licence is that of the source, or else the one that the
// model file states.
func put(w *modelstore.Writer, s *modelstore.Store, r modelstore.Record) (*modelstore.Record, error) {
	if r.License == "" {
		r.License = license(s.BlobPath(r.Files[0].SHA256), r.Files[0].Size)
	}
	return w.Put(r)
}

func fetchFile(ctx context.Context, client *download.Client, w *modelstore.Writer, f *modelstore.File, from origin, progress func(done, total int64)) error {
	key := f.SHA256
	if key == "" {
		sum := sha256.Sum256([]byte(address(f, from.query)))
		key = "url-" + hex.EncodeToString(sum[:])
	}
	part, err := w.Partial(ctx, key, f.SHA256, f.Size)
	if err != nil || part == nil { // another process has fetched it
		if err == nil && f.Size < 0 {
			return errors.New("another process fetched the file; try again")
		}
		return err
	}
	var got download.Result
	switch {
	case from.mirror != "":
		got, err = copyFromMirror(ctx, part.File, from.mirror, f)
	case f.URL == "":
		err = errors.New("it was imported, and its source is not known; copy it from a directory (--mirror)")
	default:
		got, err = client.Fetch(ctx, source(*f, from.query), download.Target{File: part.File, StatePath: part.StatePath, Progress: progress})
	}
	if err != nil {
		return errors.Join(err, part.Close())
	}
	f.Size, f.SHA256 = got.Size, got.SHA256
	return part.Commit(got.SHA256)
}

// openInMirror opens a file of a mirror: the one with the digest as its name, or else the
// one with the name at the source.
func openInMirror(dir string, f *modelstore.File) (*os.File, error) {
	blob := "sha256-" + f.SHA256
	in, err := regfile.Open(filepath.Join(dir, blob))
	if errors.Is(err, fs.ErrNotExist) {
		if in, err = regfile.Open(filepath.Join(dir, f.Name)); errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("the mirror %s has neither %s nor %s: %w", dir, blob, f.Name, fs.ErrNotExist)
		}
	}
	return in, err
}

// checkMirror reports all files of a lock that neither the store nor the mirror has.
func checkMirror(s *modelstore.Store, l *Lock, dir string) error {
	var errs []error
	for _, r := range l.Models {
		for _, f := range missing(s, r.Files) {
			in, err := openInMirror(dir, &f)
			if err == nil {
				err = in.Close()
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("pull %s: %w", r.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// copyFromMirror copies a file out of a directory, where its name is its digest or
// that of its source.
func copyFromMirror(ctx context.Context, out *os.File, dir string, f *modelstore.File) (download.Result, error) {
	in, err := openInMirror(dir, f)
	if err != nil {
		return download.Result{}, err
	}
	defer func() { _ = in.Close() }() // it was only read
	return download.Copy(ctx, out, in, f.Size, f.SHA256)
}
