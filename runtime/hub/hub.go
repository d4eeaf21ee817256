// Package hub reads the listings of Hugging Face hubs: which files a repository of
// models has, with their sizes and digests, and which of them belong together.
//
// The API is that of the hub's documentation and of its clients: the commit, the
// licence and the access of a repository at /api/models/OWNER/REPO/revision/REVISION,
// its files at /api/models/OWNER/REPO/tree/COMMIT?recursive=true (in pages, joined by
// Link headers), a file at /OWNER/REPO/resolve/COMMIT/FILE. The digest of a large
// file is that of Git LFS, a SHA-256.
//
// The package trusts no listing: names that could leave a directory are ignored.
package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
)

// DefaultEndpoint is the public hub, which EnvEndpoint replaces.
const DefaultEndpoint = "https://huggingface.co"

// The variables of the hub's own clients.
const (
	EnvEndpoint  = "HF_ENDPOINT"   // the address of a mirror or of another hub
	EnvToken     = "HF_TOKEN"      // an access token
	EnvTokenPath = "HF_TOKEN_PATH" //nolint:gosec // the name of a variable: of a file with an access token
	EnvHome      = "HF_HOME"       // the directory of the clients' files, such as the token
)

var (
	// ErrNotFound reports a repository, revision or file that does not exist, or that
	// the hub hides.
	ErrNotFound = errors.New("not found on the hub")
	// ErrAccess reports a repository whose files need a login, or the consent to its terms.
	ErrAccess = errors.New("no access to the repository")
	// ErrListing reports a listing that cannot be used.
	ErrListing = errors.New("unusable answer of the hub")
)

const (
	maxAnswer = 16 << 20 // bytes of an answer
	maxPages  = 100      // of a listing
)

// Hub is a server with the hub's API.
type Hub struct {
	Endpoint *url.URL
	Client   *download.Client
}

// Endpoint returns the address of the hub: that of $HF_ENDPOINT or DefaultEndpoint.
func Endpoint() (*url.URL, error) {
	address := os.Getenv(EnvEndpoint)
	if address == "" {
		address = DefaultEndpoint
	}
	u, err := url.Parse(strings.TrimSuffix(address, "/"))
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%s is not the address of a hub, such as https://hub.example", EnvEndpoint)
	}
	return u, nil
}

// Token returns the user's access token, from where the hub's own clients have it:
// $HF_TOKEN, the file $HF_TOKEN_PATH, or token in $HF_HOME or ~/.cache/huggingface.
// It is empty if there is none.
func Token() (string, error) {
	if token := strings.TrimSpace(os.Getenv(EnvToken)); token != "" {
		return token, nil
	}
	name := os.Getenv(EnvTokenPath)
	if name == "" {
		home := os.Getenv(EnvHome)
		if home == "" {
			cache, err := os.UserCacheDir()
			if err != nil {
				return "", nil //nolint:nilerr // a service without a home has no token there
			}
			home = filepath.Join(cache, "huggingface")
		}
		name = filepath.Join(home, "token")
	}
	raw, err := regfile.ReadText(name, 4096)
	if errors.Is(err, fs.ErrNotExist) && os.Getenv(EnvTokenPath) == "" {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the hub's token: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// File is a file of a repository.
type File struct {
	Path   string // in the repository, in slash form
	Size   int64  // in bytes
	SHA256 string // empty: the hub does not say
}

// Repo is a repository at a commit.
type Repo struct {
	Owner, Name string
	Commit      string
	License     string // such as apache-2.0; empty: the repository does not say
	Files       []File
}

// List returns the files of a repository at a revision; an empty one is the default
// branch. The error wraps ErrNotFound, ErrAccess or ErrListing, or is that of the
// download.
func (h *Hub) List(ctx context.Context, owner, name, revision string) (*Repo, error) {
	if revision == "" {
		revision = "main"
	}
	var info struct {
		SHA      string `json:"sha"`
		CardData struct {
			License any `json:"license"` // a word, or a list of words
		} `json:"cardData"`
	}
	at := h.Endpoint.JoinPath("api", "models", owner, name, "revision", url.PathEscape(revision))
	if _, err := h.get(ctx, at.String(), &info, owner, name, revision); err != nil {
		return nil, err
	}
	if !modelref.ValidFile(info.SHA) || strings.Contains(info.SHA, "/") {
		return nil, fmt.Errorf("%w: the commit of %s/%s is %.80q", ErrListing, owner, name, info.SHA)
	}
	r := &Repo{Owner: owner, Name: name, Commit: info.SHA, License: license(info.CardData.License)}
	next := h.Endpoint.JoinPath("api", "models", owner, name, "tree", r.Commit)
	next.RawQuery = "recursive=true"
	for page := 0; next != nil; page++ {
		if page == maxPages {
			return nil, fmt.Errorf("%w: the listing of %s/%s has more than %d pages", ErrListing, owner, name, maxPages)
		}
		var entries []treeEntry
		header, err := h.get(ctx, next.String(), &entries, owner, name, revision)
		if err != nil {
			return nil, err
		}
		r.add(entries)
		if next, err = h.nextPage(header); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// treeEntry is an entry of a listing.
type treeEntry struct {
	Type string `json:"type"`
	Path string `json:"path"`
	Size int64  `json:"size"`
	LFS  *struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	} `json:"lfs"`
}

func (r *Repo) add(entries []treeEntry) {
	for _, e := range entries {
		if e.Type != "file" || !modelref.ValidFile(e.Path) || e.Size <= 0 {
			continue
		}
		f := File{Path: e.Path, Size: e.Size}
		if e.LFS != nil && e.LFS.Size == e.Size && modelref.ValidSHA256(e.LFS.OID) {
			f.SHA256 = e.LFS.OID
		}
		r.Files = append(r.Files, f)
	}
}

// license returns the licence of a model card as one line.
func license(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var words []string
		for _, w := range v {
			if s, ok := w.(string); ok {
				words = append(words, s)
			}
		}
		return strings.Join(words, ", ")
	}
	return ""
}

// nextPage returns the address in a Link header with rel="next", which must be one of
// the hub; nil if there is none.
func (h *Hub) nextPage(header http.Header) (*url.URL, error) {
	for link := range strings.SplitSeq(header.Get("Link"), ",") {
		address, parameters, _ := strings.Cut(link, ";")
		if !strings.Contains(parameters, `rel="next"`) {
			continue
		}
		u, err := h.Endpoint.Parse(strings.Trim(strings.TrimSpace(address), "<>"))
		if err != nil || u.Scheme != h.Endpoint.Scheme || u.Host != h.Endpoint.Host {
			return nil, fmt.Errorf("%w: the next page is not on the hub", ErrListing)
		}
		return u, nil
	}
	return nil, nil
}

// FileURL returns the address of a file at the repository's commit.
func (h *Hub) FileURL(r *Repo, f File) string {
	return h.Endpoint.JoinPath(r.Owner, r.Name, "resolve", r.Commit, f.Path).String()
}

func (h *Hub) get(ctx context.Context, address string, into any, owner, name, revision string) (http.Header, error) {
	body, header, err := h.Client.Get(ctx, address, maxAnswer)
	if err != nil {
		return nil, h.explain(err, owner+"/"+name, revision)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, fmt.Errorf("%w: %s does not send the JSON of its API: %w; check %s", ErrListing, h.Endpoint.Host, err, EnvEndpoint)
	}
	return header, nil
}

// explain says what to do about a status of the hub. For a stranger, the hub answers
// with 401 about a repository that is private or does not exist.
func (h *Hub) explain(err error, repo, revision string) error {
	var status *download.StatusError
	if !errors.As(err, &status) {
		return err
	}
	page := h.Endpoint.JoinPath(repo)
	switch code := status.Header.Get("X-Error-Code"); {
	case code == "GatedRepo":
		return fmt.Errorf("%w: %s has terms: accept them at %s, and set %s to a token of that account (%w)", ErrAccess, repo, page, EnvToken, err)
	case code == "RevisionNotFound":
		return fmt.Errorf("%w: %s has no branch, tag or commit %s", ErrNotFound, repo, revision)
	case code == "EntryNotFound":
		return fmt.Errorf("%w: %s has no such file at %s", ErrNotFound, repo, revision)
	case status.Code == http.StatusNotFound, code == "RepoNotFound", status.Code == http.StatusUnauthorized && code == "":
		return fmt.Errorf("%w: there is no repository %s, or it is private: check the name at %s, or set %s to a token that can read it (%w)", ErrNotFound, repo, page, EnvToken, err)
	case status.Code == http.StatusUnauthorized, status.Code == http.StatusForbidden:
		return fmt.Errorf("%w: the hub refuses %s: check the token in %s and its permissions (%w)", ErrAccess, repo, EnvToken, err)
	}
	return err
}

// Explain adds to an error of downloading a file of the repository what to do.
func (h *Hub) Explain(err error, r *Repo) error { return h.explain(err, r.Owner+"/"+r.Name, r.Commit) }
