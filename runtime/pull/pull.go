// Package pull brings models into a store: it asks the hub what a reference names,
// chooses a quantisation for the machine, downloads and verifies.
//
// A model is downloaded only when a caller calls [Puller.Pull] or
// [Puller.PullLocked]; no other package of the project downloads anything.
package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

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
	// RegistryLogin has the logins for registries of containers; nil: those of
	// Client.Credentials alone.
	RegistryLogin oci.Login
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
	return &Puller{Hub: &hub.Hub{Endpoint: endpoint, Client: c}, Client: c, RegistryLogin: oci.DockerLogin}, nil
}

// Found is what a reference names, before it is downloaded.
type Found struct {
	// Record has the files with their URLs. The size of a file is -1, and its digest
	// empty, where the source does not say.
	Record modelstore.Record
	// Why says how the model was chosen; empty: the reference names it.
	Why string

	repo  *hub.Repo
	query string // of the address, for the download alone
}

// Find asks the source what a reference names, which is not a path.
func (p *Puller) Find(ctx context.Context, ref modelref.Ref) (*Found, error) {
	switch ref.Scheme {
	case modelref.URL:
		u, err := url.Parse(ref.URL)
		if err != nil {
			return nil, err
		}
		return &Found{query: ref.Query, Record: modelstore.Record{Name: ref.String(), Files: []modelstore.File{{
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
	registry, err := oci.Open(ctx, p.Client, ref, p.RegistryLogin)
	if err != nil {
		return nil, err
	}
	artifact, err := registry.Resolve()
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
		case layer.Kind == oci.KindProjector && noProjector:
			continue
		case layer.Kind == oci.KindProjector:
			role = modelstore.RoleProjector
		case layer.Kind == oci.KindAdapter:
			role = modelstore.RoleAdapter
		case layer.Kind == oci.KindTemplate:
			role = modelstore.RoleTemplate
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
	registry, err := oci.Open(ctx, p.Client, ref, p.RegistryLogin)
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
	var adapters []string
	for _, file := range f.Record.Files {
		if file.Role == modelstore.RoleTemplate {
			continue // it needs no memory
		}
		name := filepath.Join(dir, file.Name)
		if err := fetchHeader(ctx, client, file, f.query, name); err != nil {
			return nil, p.explain(err, f)
		}
		switch {
		case file.Role == modelstore.RoleProjector && o.Projector == "":
			o.Projector = name
		case file.Role == modelstore.RoleAdapter:
			adapters = append(adapters, name)
		}
	}
	if len(o.Adapters) == 0 {
		o.Adapters = adapters
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

// Pull downloads the model that a reference names into the store. With a machine, a
// model that cannot be loaded on it is an error that wraps [plan.ErrDoesNotFit], and
// nothing is downloaded but headers.
func (p *Puller) Pull(ctx context.Context, s *modelstore.Store, f *Found) (*modelstore.Record, error) {
	if p.Machine != nil {
		if _, err := p.Plan(ctx, f); err != nil {
			return nil, err
		}
	}
	r, err := p.fetch(ctx, s, f.Record, origin{query: f.query})
	return r, p.explain(err, f)
}

func (p *Puller) explain(err error, f *Found) error {
	if err == nil || f.repo == nil {
		return err
	}
	return p.Hub.Explain(err, f.repo)
}
