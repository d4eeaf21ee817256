package download

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// maxCredentials limits a file of tokens or passwords, in bytes.
const maxCredentials = 1 << 20

// BearerToken returns the credentials of one server: the token, for URLs with the
// scheme, host and port of address. An empty token gives none.
func BearerToken(address *url.URL, token string) func(*url.URL) string {
	return func(u *url.URL) string {
		if token == "" || u.Scheme != address.Scheme || !strings.EqualFold(u.Host, address.Host) {
			return ""
		}
		return "Bearer " + token
	}
}

// FirstOf asks each of the credentials until one has an answer.
func FirstOf(credentials ...func(*url.URL) string) func(*url.URL) string {
	return func(u *url.URL) string {
		for _, c := range credentials {
			if value := c(u); value != "" {
				return value
			}
		}
		return ""
	}
}

// ReadNetrc returns the logins in the file of $NETRC, else in ~/.netrc, as basic
// authentication. Without that file there are none.
func ReadNetrc() (func(*url.URL) string, error) {
	name := os.Getenv("NETRC")
	if name == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return FirstOf(), nil //nolint:nilerr // a service without a home has no logins
		}
		name = filepath.Join(home, ".netrc")
	}
	raw, err := regfile.ReadText(name, maxCredentials)
	if errors.Is(err, fs.ErrNotExist) {
		return FirstOf(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the logins for web servers: %w", err)
	}
	logins := parseNetrc(string(raw))
	return func(u *url.URL) string {
		for _, l := range logins {
			if strings.EqualFold(l.machine, u.Hostname()) {
				return "Basic " + base64.StdEncoding.EncodeToString([]byte(l.user+":"+l.password))
			}
		}
		return ""
	}, nil
}

type login struct{ machine, user, password string }

// parseNetrc parses the format of ftp(1): words, of which "machine", "login",
// "password" and "account" have a value. A default entry, whose login would go to
// every server, is ignored, and so are macros.
func parseNetrc(text string) []login {
	var out []login
	var current *login
	words := bufio.NewScanner(strings.NewReader(text))
	words.Buffer(nil, maxCredentials+1)
	words.Split(bufio.ScanWords)
	value := func() string {
		words.Scan()
		return words.Text()
	}
	for words.Scan() {
		switch words.Text() {
		case "machine":
			out = append(out, login{machine: value()})
			current = &out[len(out)-1]
		case "default", "macdef":
			current = nil
		case "login":
			if v := value(); current != nil {
				current.user = v
			}
		case "password":
			if v := value(); current != nil {
				current.password = v
			}
		case "account":
			value()
		}
	}
	return out
}
