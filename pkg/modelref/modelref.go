// Package modelref parses references to models: the names by which a person says
// which model to use, and where it comes from.
//
//	hf:OWNER/REPO                       the best file of a repository on a Hugging Face hub
//	hf:OWNER/REPO:Q4_K_M                the file of this quantisation
//	hf:OWNER/REPO/DIR/FILE.gguf         this file
//	hf:OWNER/REPO:Q4_K_M@REVISION       at a branch, a tag or a commit
//	https://HOST/PATH.gguf#sha256=HEX   a file on a web server, and its digest; PATH.gguf?QUERY
//	                                    for the download alone
//	oci:REGISTRY/NAME:TAG               a model in a registry of containers
//	PATH                                a file or a directory of this machine
//
// A reference comes from a command line, a configuration file or a lock file, and
// parts of it become parts of URLs and of file names. Parse therefore accepts only
// the characters that the hubs accept.
package modelref

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
)

// ErrInvalid reports a text that is no reference.
var ErrInvalid = errors.New("not a reference to a model")

// Scheme says where a model comes from.
type Scheme string

// The schemes of references.
const (
	Path Scheme = "path" // a file or a directory of this machine
	Hub  Scheme = "hf"   // a repository on a Hugging Face hub
	URL  Scheme = "url"  // a file on a web server
	OCI  Scheme = "oci"  // an artifact in a registry of containers
)

// Ref is a parsed reference. Only the fields of its scheme are set.
type Ref struct {
	Scheme Scheme

	// Path is the path as it was written (Path).
	Path string

	// Owner and Repo name a repository (Hub).
	Owner, Repo string
	// Quant is the quantisation, in upper case; empty: not named (Hub).
	Quant string
	// File is the path of a file in the repository; empty: not named. Quant is
	// empty then (Hub).
	File string
	// Revision is a branch, a tag or a commit; empty: the default branch (Hub).
	Revision string

	// Registry is the host of a registry, with its port; Name is the repository there,
	// and Tag is its tag, or its digest as sha256:HEX (OCI).
	Registry, Name, Tag string

	// URL is the address, without a query and a fragment (URL).
	URL string
	// Query is the query of the address, which often is a secret, such as the signature
	// of an address that is valid for an hour. It is for the download alone: String and
	// errors leave it out, and nothing stores it (URL).
	Query string `json:"-"`
	// SHA256 is the digest of the file in lower case; empty: not named (URL).
	SHA256 string
}

const (
	hubPrefix  = "hf:"
	ociPrefix  = "oci:"
	maxLength  = 2048
	digestName = "sha256="
)

// Parse parses a reference. A text without a scheme is a path. The error wraps
// ErrInvalid and says what to write.
func Parse(s string) (Ref, error) {
	ref, err := parse(s)
	if err != nil {
		return Ref{}, fmt.Errorf("%w: %q: %w", ErrInvalid, withoutSecrets(s), err)
	}
	return ref, nil
}

// withoutSecrets returns a text for messages: an address without its query and without
// a login.
func withoutSecrets(s string) string {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || scheme != "https" && scheme != "http" {
		return s
	}
	address, query, hasQuery := strings.Cut(rest, "?")
	if at := strings.LastIndexByte(address, '@'); at >= 0 {
		address = "..." + address[at:]
	} else if strings.Contains(query, "@") && !strings.Contains(address, "/") {
		address = "..." // of a login with a question mark
	}
	if hasQuery {
		address += "?..."
	}
	return scheme + "://" + address
}

func parse(s string) (Ref, error) {
	switch {
	case s == "":
		return Ref{}, errors.New("it is empty")
	case !isRemote(s):
		return Ref{Scheme: Path, Path: s}, nil
	case len(s) > maxLength:
		return Ref{}, fmt.Errorf("it has more than %d bytes", maxLength)
	case strings.HasPrefix(s, hubPrefix):
		return parseHub(strings.TrimPrefix(s, hubPrefix))
	case strings.HasPrefix(s, ociPrefix):
		return parseOCI(strings.TrimPrefix(s, ociPrefix))
	}
	return parseURL(s)
}

// Address returns the address of the file with its query, for the download (URL).
func (r Ref) Address() string {
	if r.Query == "" {
		return r.URL
	}
	return r.URL + "?" + r.Query
}

// isRemote reports whether a text has a scheme. Names of files in the current
// directory that begin like one need "./" before them.
func isRemote(s string) bool {
	return strings.HasPrefix(s, hubPrefix) || strings.HasPrefix(s, ociPrefix) || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")
}

func parseHub(s string) (Ref, error) {
	ref := Ref{Scheme: Hub}
	s, revision, named := strings.Cut(s, "@")
	if named {
		if !validSegments(revision) {
			return Ref{}, errors.New("the revision after @ must be a branch, a tag or a commit")
		}
		ref.Revision = revision
	}
	s, quant, named := strings.Cut(s, ":")
	if named {
		if !validName(quant) {
			return Ref{}, errors.New("write a quantisation after the colon, such as Q4_K_M")
		}
		ref.Quant = strings.ToUpper(quant)
	}
	owner, rest, _ := strings.Cut(s, "/")
	repo, file, inside := strings.Cut(rest, "/")
	if !validName(owner) || !validName(repo) {
		return Ref{}, errors.New("write hf:OWNER/REPO, hf:OWNER/REPO:QUANTISATION or hf:OWNER/REPO/FILE.gguf, with an optional @REVISION")
	}
	ref.Owner, ref.Repo = owner, repo
	switch {
	case !inside:
	case named:
		return Ref{}, errors.New("name a file or a quantisation, not both")
	case !validSegments(file) || !strings.HasSuffix(strings.ToLower(file), ".gguf"):
		return Ref{}, errors.New("the file must be the path of a .gguf file in the repository")
	default:
		ref.File = file
	}
	return ref, nil
}

// latest is the tag of a reference without one.
const latest = "latest"

func parseOCI(s string) (Ref, error) {
	const usage = "write oci:REGISTRY/NAME:TAG or oci:REGISTRY/NAME@sha256:DIGEST"
	registry, rest, _ := strings.Cut(s, "/")
	host, port, hasPort := strings.Cut(registry, ":")
	if !validName(host) || hasPort && (port == "" || strings.Trim(port, "0123456789") != "") {
		return Ref{}, errors.New(usage)
	}
	if !hasPort && host != "localhost" && !strings.Contains(host, ".") {
		return Ref{}, fmt.Errorf("%q is not the host of a registry; %s", registry, usage)
	}
	ref := Ref{Scheme: OCI, Registry: registry, Tag: latest}
	if name, digest, ok := strings.Cut(rest, "@"); ok {
		hexDigits, sha := strings.CutPrefix(digest, "sha256:")
		if !sha || !ValidSHA256(hexDigits) {
			return Ref{}, errors.New("write the digest as @sha256: and 64 hexadecimal digits")
		}
		// A tag beside a digest is for people: the digest decides.
		name, tag, tagged := strings.Cut(name, ":")
		if tagged && !validName(tag) {
			return Ref{}, errors.New(usage)
		}
		ref.Name, ref.Tag = name, digest
	} else if name, tag, ok := strings.Cut(rest, ":"); ok {
		if !validName(tag) {
			return Ref{}, errors.New(usage)
		}
		ref.Name, ref.Tag = name, tag
	} else {
		ref.Name = rest
	}
	if !validSegments(ref.Name) {
		return Ref{}, errors.New(usage)
	}
	return ref, nil
}

func parseURL(s string) (Ref, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return Ref{}, errors.New("the address cannot be parsed")
	case u.Hostname() == "":
		return Ref{}, errors.New("the address has no host")
	case u.User != nil:
		return Ref{}, errors.New("an address with a password ends up in logs; write the login into ~/.netrc")
	}
	ref := Ref{Scheme: URL}
	if u.Fragment != "" {
		digest, ok := strings.CutPrefix(u.Fragment, digestName)
		ref.SHA256 = strings.ToLower(digest)
		if !ok || !ValidSHA256(ref.SHA256) {
			return Ref{}, errors.New("write the digest as #sha256= and 64 hexadecimal digits")
		}
	}
	if u.Scheme == "http" && ref.SHA256 == "" && !isLoopback(u.Hostname()) {
		return Ref{}, errors.New("anybody on the way can change what http:// sends; write https://, or add #sha256= and the file's digest")
	}
	ref.Query = u.RawQuery
	u.Fragment, u.RawFragment, u.RawQuery, u.ForceQuery = "", "", "", false
	if name := path.Base(u.Path); name == "." || name == "/" {
		return Ref{}, errors.New("the address names no file")
	}
	ref.URL = u.String()
	return ref, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Remote reports whether the model comes from another machine.
func (r Ref) Remote() bool { return r.Scheme != Path && r.Scheme != "" }

// String returns the reference in the form that Parse accepts, without the query of an
// address. Two references to the same model that differ in the case of the quantisation
// or the digest, or in the query, have the same String.
func (r Ref) String() string {
	switch r.Scheme {
	case Path:
		return r.Path
	case URL:
		if r.SHA256 != "" {
			return r.URL + "#" + digestName + r.SHA256
		}
		return r.URL
	case OCI:
		if strings.HasPrefix(r.Tag, "sha256:") {
			return ociPrefix + r.Registry + "/" + r.Name + "@" + r.Tag
		}
		return ociPrefix + r.Registry + "/" + r.Name + ":" + r.Tag
	case Hub:
		s := hubPrefix + r.Owner + "/" + r.Repo
		if r.File != "" {
			s += "/" + r.File
		}
		if r.Quant != "" {
			s += ":" + r.Quant
		}
		if r.Revision != "" {
			s += "@" + r.Revision
		}
		return s
	}
	return ""
}

// ValidSHA256 reports whether s is a SHA-256 in lower-case hexadecimal digits.
func ValidSHA256(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32 && s == strings.ToLower(s)
}

// ValidFile reports whether s is a relative path in slash form, of characters that
// need no escaping in a URL, whose segments are neither empty, "." nor "..": one that
// is safe to join to a directory.
func ValidFile(s string) bool { return validSegments(s) }

// validSegments reports whether every segment of a path is a valid name.
func validSegments(s string) bool {
	if len(s) > 1024 {
		return false
	}
	for segment := range strings.SplitSeq(s, "/") {
		if !validName(segment) {
			return false
		}
	}
	return true
}

// validName accepts the names of the hub's repositories and files. They begin
// with a letter, a digit, an underscore or a dot; "." and ".." are none.
func validName(s string) bool {
	if s == "" || len(s) > 255 || strings.Trim(s, ".") == "" || s[0] == '-' {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.+", r)
	}) < 0
}
