// Package pull brings models into a store: it asks the hub what a reference names,
// chooses a quantisation for the machine, downloads and verifies.
//
// A model is downloaded only when a caller calls [Puller.Pull] or
// [Puller.PullLocked]; no other package of the project downloads anything.
package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/oci"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// ErrNotModel reports a file that is not what its name says, such as an adapter
// instead of a model.
var ErrNotModel = errors.New("not a model")

// Puller resolves references and downloads models.
type Puller struct {
	Hub    *hub.Hub
	Client *download.Client
	// Machine chooses the quantisation, and stops a model that cannot be loaded
	// before it is downloaded; nil: the usual quantisation, and nothing is stopped.
	Machine *machine.Machine
	// Options are those that the model will be loaded with.
	Options plan.Options
	// NoProjector leaves multimodal projectors out.
	NoProjector bool
	// Progress is called with the bytes that are in the store and those of all
	// files, as far as they are known; nil: nothing is called.
	Progress func(file string, done, total int64)
}

// New returns a Puller for the hub, the proxies and the logins that the environment
// names. A nil transport is that of [download.DefaultTransport].
func New(transport http.RoundTripper, log *slog.Logger) (*Puller, error) {
	endpoint, err := hub.Endpoint()
	if err != nil {
		return nil, err
	}
	token, err := hub.Token()
	if err != nil {
		return nil, err
	}
	netrc, err := download.ReadNetrc()
	if err != nil {
		return nil, err
	}
	c := &download.Client{Transport: transport, Credentials: download.FirstOf(download.BearerToken(endpoint, token), netrc), Log: log}
	return &Puller{Hub: &hub.Hub{Endpoint: endpoint, Client: c}, Client: c}, nil
}

// Found is what a reference names, before it is downloaded.
type Found struct {
	// Record has the files with their URLs. The size of a file is -1, and its digest
	// empty, where the source does not say.
	Record modelstore.Record
	// Why says how the model was chosen; empty: the reference names it.
	Why string

	repo *hub.Repo
}

// Find asks the source what a reference names, which is not a path.
func (p *Puller) Find(ctx context.Context, ref modelref.Ref) (*Found, error) {
	switch ref.Scheme {
	case modelref.URL:
		u, err := url.Parse(ref.URL)
		if err != nil {
			return nil, err
		}
		return &Found{Record: modelstore.Record{Name: ref.String(), Files: []modelstore.File{{
			Name: fileName(u.Path), Role: modelstore.RoleModel, Size: -1, SHA256: ref.SHA256, Verified: ref.SHA256 != "", URL: ref.URL,
		}}}}, nil
	case modelref.Hub:
		return p.findHub(ctx, ref)
	case modelref.OCI:
		return p.findOCI(ctx, ref)
	case modelref.Path:
	}
	return nil, fmt.Errorf("%w: %s is a path", modelref.ErrInvalid, ref)
}

func (p *Puller) findOCI(ctx context.Context, ref modelref.Ref) (*Found, error) {
	registry, err := oci.Open(ctx, p.Client, ref)
	if err != nil {
		return nil, err
	}
	artifact, err := registry.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	return &Found{Record: artifactRecord(ref, artifact, p.NoProjector)}, nil
}

func artifactRecord(ref modelref.Ref, artifact *oci.Artifact, noProjector bool) modelstore.Record {
	r := modelstore.Record{Name: ref.String(), Revision: artifact.Digest}
	for i, layer := range artifact.Layers {
		role := modelstore.RolePart
		switch {
		case layer.Projector && noProjector:
			continue
		case layer.Projector:
			role = modelstore.RoleProjector
		case i == 0:
			role = modelstore.RoleModel
		}
		r.Files = append(r.Files, modelstore.File{Name: layer.Name, Role: role, Size: layer.Size, SHA256: layer.SHA256, Verified: true, URL: layer.URL})
	}
	return r
}

// clientFor returns the client for the files of the model with this name: the files
// of a registry need its token.
func (p *Puller) clientFor(ctx context.Context, name string) (*download.Client, error) {
	ref, err := modelref.Parse(name)
	if err != nil || ref.Scheme != modelref.OCI {
		return p.Client, err
	}
	registry, err := oci.Open(ctx, p.Client, ref)
	if err != nil {
		return nil, err
	}
	return registry.Client, nil
}

// fileName returns a name for the file at the path of a URL, with the ending that
// tools expect.
func fileName(urlPath string) string {
	name := path.Base(urlPath)
	if !modelref.ValidFile(name) {
		name = "model.gguf"
	}
	if !strings.HasSuffix(name, ".gguf") {
		name += ".gguf"
	}
	return name
}

func (p *Puller) findHub(ctx context.Context, ref modelref.Ref) (*Found, error) {
	repo, err := p.Hub.List(ctx, ref.Owner, ref.Repo, ref.Revision)
	if err != nil {
		return nil, err
	}
	variants, err := repo.Select(ref.Quant, ref.File)
	if err != nil {
		return nil, err
	}
	v, why, err := p.choose(ctx, repo, variants)
	if err != nil {
		return nil, err
	}
	return p.found(ref, repo, v, why), nil
}

// found returns the record of a variant. Its name has the quantisation, if that
// names one model of the repository, or else the file.
func (p *Puller) found(ref modelref.Ref, repo *hub.Repo, v hub.Variant, why string) *Found {
	if ref.File == "" && ref.Quant == "" {
		ref.Quant = v.Quant
		if same, err := repo.Select(v.Quant, ""); v.Quant == "" || err != nil || len(same) != 1 {
			ref.Quant, ref.File = "", v.Files[0].Path
		}
	}
	f := &Found{Record: modelstore.Record{Name: ref.String(), Revision: repo.Commit, License: repo.License}, Why: why, repo: repo}
	add := func(file hub.File, role string) {
		f.Record.Files = append(f.Record.Files, modelstore.File{
			Name: path.Base(file.Path), Role: role, Size: file.Size, SHA256: file.SHA256, Verified: file.SHA256 != "", URL: p.Hub.FileURL(repo, file),
		})
	}
	for i, file := range v.Files {
		role := modelstore.RoleModel
		if i > 0 {
			role = modelstore.RolePart
		}
		add(file, role)
	}
	if projector, ok := repo.Projector(&v); ok && !p.NoProjector {
		add(projector, modelstore.RoleProjector)
	}
	return f
}

// Plan returns what loading a model that was found would do, from the headers of its
// files, which are downloaded into a temporary directory.
func (p *Puller) Plan(ctx context.Context, f *Found) (*plan.Plan, error) {
	dir, err := os.MkdirTemp("", "go-rocm-header-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o := p.Options
	client, err := p.clientFor(ctx, f.Record.Name)
	if err != nil {
		return nil, err
	}
	for _, file := range f.Record.Files {
		if err := fetchHeader(ctx, client, file, filepath.Join(dir, file.Name)); err != nil {
			return nil, p.explain(err, f)
		}
		if file.Role == modelstore.RoleProjector && o.Projector == "" {
			o.Projector = filepath.Join(dir, file.Name)
		}
	}
	_, header, err := machine.OpenModel(filepath.Join(dir, f.Record.Files[0].Name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = header.Close() }()
	made, err := p.Machine.PlanFile(f.Record.Name, header, o)
	if err != nil {
		return nil, err
	}
	for i, arg := range made.Args {
		made.Args[i] = strings.TrimPrefix(arg, dir+string(filepath.Separator))
	}
	return made, nil
}

func fetchHeader(ctx context.Context, client *download.Client, file modelstore.File, name string) error {
	out, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = client.FetchHeader(ctx, source(file), out)
	return errors.Join(err, out.Close())
}

func source(file modelstore.File) download.Source {
	return download.Source{URL: file.URL, Size: file.Size, SHA256: file.SHA256, Check: func(r io.ReaderAt, size int64) error {
		return checkHeader(r, size, file.Role)
	}}
}

// checkHeader reports whether the beginning of a file is that of a GGUF file with
// this role.
func checkHeader(r io.ReaderAt, size int64, role string) error {
	f, err := gguf.NewReader(r, size)
	if err != nil {
		return err
	}
	kind := f.Role()
	if role == modelstore.RoleModel && kind != gguf.KindModel || role == modelstore.RoleProjector && kind != gguf.KindProjector {
		return fmt.Errorf("%w: the file is a %.40q, not a %s", ErrNotModel, kind, role)
	}
	return nil
}

// Pull downloads the model that a reference names into the store. With a machine, a
// model that cannot be loaded on it is an error that wraps [plan.ErrDoesNotFit], and
// nothing is downloaded but headers.
func (p *Puller) Pull(ctx context.Context, s *modelstore.Store, f *Found) (*modelstore.Record, error) {
	if p.Machine != nil {
		if _, err := p.Plan(ctx, f); err != nil {
			return nil, err
		}
	}
	r, err := p.fetch(ctx, s, f.Record, "")
	return r, p.explain(err, f)
}

func (p *Puller) explain(err error, f *Found) error {
	if err == nil || f.repo == nil {
		return err
	}
	return p.Hub.Explain(err, f.repo)
}

// fetch downloads the files that the store does not have, from the directory mirror
// where it has them, and stores the record.
func (p *Puller) fetch(ctx context.Context, s *modelstore.Store, r modelstore.Record, mirror string) (_ *modelstore.Record, err error) {
	w, err := s.Write(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	var client *download.Client
	if mirror == "" {
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
		if f.SHA256 == "" || !s.Has(f.SHA256, f.Size) {
			if err := fetchFile(ctx, client, w, f, mirror, progress); err != nil {
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
	return w.Put(r)
}

func fetchFile(ctx context.Context, client *download.Client, w *modelstore.Writer, f *modelstore.File, mirror string, progress func(done, total int64)) error {
	key := f.SHA256
	if key == "" {
		sum := sha256.Sum256([]byte(f.URL))
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
	if mirror != "" {
		got, err = copyFromMirror(ctx, part.File, mirror, f)
	} else {
		got, err = client.Fetch(ctx, source(*f), download.Target{File: part.File, StatePath: part.StatePath, Progress: progress})
	}
	if err != nil {
		return errors.Join(err, part.Close())
	}
	f.Size, f.SHA256 = got.Size, got.SHA256
	return part.Commit(got.SHA256)
}

// copyFromMirror copies a file out of a directory, where its name is its digest or
// that of its source.
func copyFromMirror(ctx context.Context, out *os.File, dir string, f *modelstore.File) (download.Result, error) {
	var in *os.File
	var err error
	for _, name := range []string{"sha256-" + f.SHA256, f.Name} {
		if in, err = regfile.Open(filepath.Join(dir, name)); err == nil {
			break
		}
	}
	if err != nil {
		return download.Result{}, fmt.Errorf("the mirror has neither sha256-%s nor this name: %w", f.SHA256, err)
	}
	defer func() { _ = in.Close() }() // it was only read
	return download.Copy(ctx, out, in, f.Size, f.SHA256)
}
