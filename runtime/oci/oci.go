// Package oci reads models in registries of containers: the artifacts of Docker Model
// Runner, of ollama, and of the CNCF's model specification.
//
// The API is that of the OCI distribution specification: /v2/NAME/manifests/TAG and
// /v2/NAME/blobs/DIGEST, with basic authentication or the tokens of the distribution
// project (a 401 with WWW-Authenticate names a service that issues them). Logins are
// those of docker ([DockerLogin]), else those of the client, such as ~/.netrc.
//
// Only the manifest is read here. The blobs are files on a web server, whose digests
// the manifest names, and runtime/download fetches them. A library for registries,
// such as oras-go, would therefore replace only the reading of a small manifest and of
// a token, and would add four modules to every program that imports this one. The tests
// of testing/registry run the package against other projects' servers and clients.
package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
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
	acceptTypes = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, " +
		"application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
)

// Registry is access to one repository of a registry.
type Registry struct {
	// Client downloads from the registry with its tokens.
	Client *download.Client

	base *url.URL
	ref  modelref.Ref
	c    *download.Client // without the tokens

	manifest []byte
	err      error // of the manifest

	mu      sync.Mutex
	login   string   // the Authorization header with the user's login; empty: none
	realm   *url.URL // of the token service; nil: none
	token   string
	expires time.Time
}

// Open returns access to the repository of a reference. It asks for the manifest, and
// for a token or the login if the registry wants one. A registry without the manifest
// may still have the blobs: [Registry.Resolve] reports what is wrong with it. A nil
// login is that of the client alone. Registries are spoken to over TLS, except for
// those on this machine.
func Open(ctx context.Context, c *download.Client, ref modelref.Ref, login Login) (*Registry, error) {
	r := &Registry{base: address(ref), ref: ref, c: c}
	own := *c
	own.Credentials = r.credentials
	r.Client = &own
	manifest := r.url("manifests", ref.Tag).String()
	r.manifest, r.err = c.GetAccept(ctx, manifest, acceptTypes, maxManifest)
	var status *download.StatusError
	switch {
	case r.err != nil && !errors.As(r.err, &status):
		return nil, r.err
	case r.err == nil || status.Code != http.StatusUnauthorized:
		return r, nil
	}
	if login != nil {
		var err error
		if r.login, err = login(ctx, ref.Registry); err != nil {
			return nil, err
		}
	}
	if err := r.answerChallenge(ctx, status.Header.Values("WWW-Authenticate")); err != nil {
		return nil, err
	}
	if r.manifest, r.err = r.Client.GetAccept(ctx, manifest, acceptTypes, maxManifest); r.err != nil && !errors.As(r.err, &status) {
		return nil, r.err
	}
	return r, nil
}

// answerChallenge fetches a token, if the headers of a 401 name a token service.
func (r *Registry) answerChallenge(ctx context.Context, headers []string) error {
	for _, header := range headers {
		realm, err := r.parseChallenge(header)
		if err != nil {
			return err
		}
		if realm != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.realm = realm
			return r.refresh(ctx)
		}
	}
	return nil
}

// url returns an address below the repository.
func (r *Registry) url(parts ...string) *url.URL { return repository(r.base, r.ref).JoinPath(parts...) }

// dockerHost is where the API of Docker's own registry is.
const dockerHost = "registry-1.docker.io"

// address returns the address of a registry.
func address(ref modelref.Ref) *url.URL {
	u := &url.URL{Scheme: "https", Host: ref.Registry}
	if registryKey(ref.Registry) == dockerHub {
		u.Host = dockerHost
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() == "localhost" || ip != nil && ip.IsLoopback() {
		u.Scheme = "http"
	}
	return u
}

// repository returns the address of a repository. Docker's own registry keeps those
// without an owner below library/.
func repository(base *url.URL, ref modelref.Ref) *url.URL {
	return base.JoinPath("v2", repositoryName(ref))
}

func repositoryName(ref modelref.Ref) string {
	if registryKey(ref.Registry) == dockerHub && !strings.Contains(ref.Name, "/") {
		return "library/" + ref.Name
	}
	return ref.Name
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
	q.Set("scope", "repository:"+repositoryName(r.ref)+":pull")
	u.RawQuery = q.Encode()
	return u, nil
}

// refresh fetches a token. The login is sent to the token service that the registry
// named, as the distribution project's authentication wants it, and to no other host.
// The caller has mu.
func (r *Registry) refresh(ctx context.Context) error {
	c := *r.c
	c.Credentials = func(u *url.URL) string {
		if r.login != "" && sameHost(u, r.realm) {
			return r.login
		}
		return r.clientCredentials(u)
	}
	raw, _, err := c.Get(ctx, r.realm.String(), maxToken)
	if err != nil {
		return fmt.Errorf("%w: the token service of %s refuses: %w; check the login: %s", ErrAccess, r.ref.Registry, err, r.remedy())
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

// remedy says how to log in.
func (r *Registry) remedy() string {
	return "docker login " + r.ref.Registry + ", or a line in ~/.netrc"
}

// sameHost reports whether two addresses have the same scheme, host and port.
func sameHost(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

// credentials returns the registry's token for its own address, a new one when it
// is about to expire, or the login, and the client's credentials for others.
func (r *Registry) credentials(u *url.URL) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if sameHost(u, r.base) {
		if r.realm != nil && time.Now().After(r.expires) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = r.refresh(ctx) // the request says what is wrong
		}
		switch {
		case r.token != "":
			return "Bearer " + r.token
		case r.realm == nil && r.login != "":
			return r.login
		}
	}
	return r.clientCredentials(u)
}

// clientCredentials returns the credentials that the client has for an address.
func (r *Registry) clientCredentials(u *url.URL) string {
	if r.c.Credentials == nil {
		return ""
	}
	return r.c.Credentials(u)
}

// Resolve returns the artifact of the reference. Its error wraps ErrNotModel,
// ErrManifest, ErrAccess or download.ErrDigest, or is that of the network.
func (r *Registry) Resolve() (*Artifact, error) {
	var status *download.StatusError
	switch {
	case r.err == nil:
		return ParseManifest(r.ref, r.manifest)
	case errors.As(r.err, &status) && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden || status.Code == http.StatusNotFound):
		return nil, fmt.Errorf("%w: %s does not exist, or needs a login: %s (%w)", ErrAccess, r.ref, r.remedy(), r.err)
	}
	return nil, r.err
}
