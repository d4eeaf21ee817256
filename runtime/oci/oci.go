// Package oci reads models in registries of containers: the artifacts of Docker Model
// Runner, of ollama, and of the CNCF's model specification.
//
// The API is that of the OCI distribution specification: /v2/NAME/manifests/TAG and
// /v2/NAME/blobs/DIGEST, with the tokens of the distribution project's authentication
// (a 401 with WWW-Authenticate names a service that issues them). Logins for that
// service come from the credentials of the client, such as ~/.netrc.
//
// Only the manifest is read here; the blobs are files on a web server, whose digests
// the manifest names.
package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
)

var (
	// ErrNotModel reports an artifact without a GGUF model.
	ErrNotModel = errors.New("not an artifact with a GGUF model")
	// ErrManifest reports a manifest that cannot be used.
	ErrManifest = errors.New("unusable manifest")
	// ErrAccess reports an artifact that does not exist, or needs a login.
	ErrAccess = errors.New("no access to the artifact")
)

const (
	maxManifest = 4 << 20 // bytes; the specification asks registries to accept that much
	maxToken    = 1 << 20
	acceptTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)

// Media types of layers: of Docker Model Runner (model-spec), ollama, and the CNCF's
// model specification.
const (
	dockerModel     = "application/vnd.docker.ai.gguf.v3"
	dockerProjector = "application/vnd.docker.ai.mmproj"
	ollamaModel     = "application/vnd.ollama.image.model"
	ollamaProjector = "application/vnd.ollama.image.projector"
	cncfWeights     = "application/vnd.cncf.model.weight.v1.raw"
)

// Layer is a file of a model.
type Layer struct {
	Name      string // a file name; it ends in .gguf
	URL       string
	Size      int64
	SHA256    string
	Projector bool
}

// Artifact is a model in a registry.
type Artifact struct {
	Digest string  // of the manifest, as sha256:HEX
	Layers []Layer // the model, or the parts of a split one in order, then a projector
}

// Registry is access to one repository of a registry.
type Registry struct {
	// Client downloads from the registry with its tokens.
	Client *download.Client

	base *url.URL
	ref  modelref.Ref
	c    *download.Client // without the tokens

	mu      sync.Mutex
	realm   *url.URL // of the token service; nil: none
	token   string
	expires time.Time
}

// Open returns access to the repository of a reference. It asks the registry which
// authentication it wants. Registries are spoken to over TLS, except for those on
// this machine.
func Open(ctx context.Context, c *download.Client, ref modelref.Ref) (*Registry, error) {
	r := &Registry{base: address(ref), ref: ref, c: c}
	own := *c
	own.Credentials = r.credentials
	r.Client = &own
	_, _, err := c.Get(ctx, r.base.JoinPath("v2/").String(), maxToken)
	var status *download.StatusError
	if err == nil || !errors.As(err, &status) {
		return r, err
	}
	if status.Code != http.StatusUnauthorized {
		return nil, fmt.Errorf("%s does not answer as a registry: %w", ref.Registry, err)
	}
	if r.realm, err = r.parseChallenge(status.Header.Get("WWW-Authenticate")); err != nil || r.realm == nil {
		return r, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r, r.refresh(ctx)
}

// address returns the address of a registry.
func address(ref modelref.Ref) *url.URL {
	u := &url.URL{Scheme: "https", Host: ref.Registry}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		u.Scheme = "http"
	}
	return u
}

// parseChallenge returns the address of the token service in a header of the form
// Bearer realm="URL",service="NAME"; nil for another kind of authentication.
func (r *Registry) parseChallenge(header string) (*url.URL, error) {
	kind, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(kind, "Bearer") {
		return nil, nil
	}
	parameters := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		parameters[strings.ToLower(key)] = strings.Trim(value, `"`)
	}
	u, err := url.Parse(parameters["realm"])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != r.base.Scheme || u.User != nil {
		return nil, fmt.Errorf("%w: %s names no usable token service", ErrAccess, r.ref.Registry)
	}
	q := u.Query()
	if service := parameters["service"]; service != "" {
		q.Set("service", service)
	}
	q.Set("scope", "repository:"+r.ref.Name+":pull")
	u.RawQuery = q.Encode()
	return u, nil
}

// refresh fetches a token. The caller has mu.
func (r *Registry) refresh(ctx context.Context) error {
	raw, _, err := r.c.Get(ctx, r.realm.String(), maxToken)
	if err != nil {
		return fmt.Errorf("%w: the token service of %s refuses: %w; check the login in ~/.netrc", ErrAccess, r.ref.Registry, err)
	}
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"` // seconds
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("%w: the token service of %s: %w", ErrAccess, r.ref.Registry, err)
	}
	if r.token = answer.Token; r.token == "" {
		r.token = answer.AccessToken
	}
	const shortest = 60 // seconds, of the specification, for an answer without a time
	lifetime := time.Duration(min(max(answer.ExpiresIn, shortest), 24*3600)) * time.Second
	r.expires = time.Now().Add(lifetime / 2)
	return nil
}

// credentials returns the registry's token for its own address, a new one when it
// is about to expire, and the client's credentials for others.
func (r *Registry) credentials(u *url.URL) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.realm != nil && u.Scheme == r.base.Scheme && strings.EqualFold(u.Host, r.base.Host) {
		if time.Now().After(r.expires) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = r.refresh(ctx) // the request says what is wrong
		}
		if r.token != "" {
			return "Bearer " + r.token
		}
	}
	if r.c.Credentials != nil {
		return r.c.Credentials(u)
	}
	return ""
}

// manifest is an image manifest of the OCI or of Docker.
type manifest struct {
	MediaType string `json:"mediaType"`
	Layers    []struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations"`
	} `json:"layers"`
}

// Resolve reads the manifest of the reference. Its error wraps ErrNotModel,
// ErrManifest, ErrAccess or download.ErrDigest, or is that of the network.
func (r *Registry) Resolve(ctx context.Context) (*Artifact, error) {
	raw, err := r.Client.GetAccept(ctx, r.base.JoinPath("v2", r.ref.Name, "manifests", r.ref.Tag).String(), acceptTypes, maxManifest)
	var status *download.StatusError
	if errors.As(err, &status) && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden || status.Code == http.StatusNotFound) {
		return nil, fmt.Errorf("%w: %s does not exist, or needs a login in ~/.netrc (%w)", ErrAccess, r.ref, err)
	}
	if err != nil {
		return nil, err
	}
	return ParseManifest(r.ref, raw)
}

// ParseManifest returns the artifact of a manifest, which must have the digest that
// the reference names, if it names one.
func ParseManifest(ref modelref.Ref, raw []byte) (*Artifact, error) {
	sum := sha256.Sum256(raw)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	if strings.HasPrefix(ref.Tag, "sha256:") && digest != ref.Tag {
		return nil, fmt.Errorf("%w: the manifest is %s, want %s", download.ErrDigest, digest, ref.Tag)
	}
	layers, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	base := address(ref)
	for i := range layers {
		layers[i].URL = base.JoinPath("v2", ref.Name, "blobs", "sha256:"+layers[i].SHA256).String()
	}
	return &Artifact{Digest: digest, Layers: layers}, nil
}

// parseManifest returns the files of a model, without their URLs.
func parseManifest(raw []byte) ([]Layer, error) {
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	var models, projectors []Layer
	for _, l := range m.Layers {
		title := l.Annotations["org.cncf.model.filepath"]
		if title == "" {
			title = l.Annotations["org.opencontainers.image.title"]
		}
		sum, ok := strings.CutPrefix(l.Digest, "sha256:")
		layer := Layer{Name: path.Base(title), Size: l.Size, SHA256: sum}
		switch l.MediaType {
		case dockerProjector, ollamaProjector:
			layer.Projector = true
			projectors = append(projectors, layer)
		case dockerModel, ollamaModel:
			models = append(models, layer)
		case cncfWeights:
			if !strings.HasSuffix(layer.Name, ".gguf") {
				continue
			}
			if layer.Projector = strings.Contains(strings.ToLower(layer.Name), "mmproj"); layer.Projector {
				projectors = append(projectors, layer)
			} else {
				models = append(models, layer)
			}
		default:
			continue
		}
		if !ok || !modelref.ValidSHA256(sum) || l.Size <= 0 {
			return nil, fmt.Errorf("%w: a layer of %d bytes has the digest %.80q", ErrManifest, l.Size, l.Digest)
		}
	}
	if len(models) == 0 {
		return nil, ErrNotModel
	}
	nameLayers(models, "model")
	if len(projectors) > 0 {
		projectors = projectors[:1]
		projectors[0].Name = "mmproj.gguf"
	}
	return append(models, projectors...), nil
}

// nameLayers names the parts of a model as llama.cpp looks for them, unless their own
// names are those of one model already.
func nameLayers(models []Layer, name string) {
	if len(models) == 1 {
		if n := models[0].Name; !modelref.ValidFile(n) || !strings.HasSuffix(n, ".gguf") || n == "mmproj.gguf" {
			models[0].Name = name + ".gguf"
		}
		return
	}
	for i := range models {
		models[i].Name = fmt.Sprintf("%s-%05d-of-%05d.gguf", name, i+1, len(models))
	}
}
