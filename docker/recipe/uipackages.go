package recipe

import (
	"bufio"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// uiPackagesInputs key the packages from which the web page is built.
type uiPackagesInputs struct {
	Files []string // SHA-512 of each, in the order of the directories
}

// uiPackages downloads the packages of a lock and verifies them. Each file of the
// result has the hexadecimal SHA-512 of its content as its name.
func (r *Recipe) uiPackages(ctx context.Context, packages []*npmPackage) (*stage.Result, error) {
	var in uiPackagesInputs
	wanted := map[string]*npmPackage{}
	for _, p := range packages {
		sum, err := p.sha512()
		if err != nil {
			return nil, err
		}
		name := hex.EncodeToString(sum)
		wanted[name] = p
		in.Files = append(in.Files, name)
	}
	return r.Cache.Do(ctx, "ui-packages", in, func(ctx context.Context, dir string) error {
		registry, err := npmRegistry(os.Getenv)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(r.Log, "ui-packages: %d packages of llama.cpp's package-lock.json\n", len(wanted)); err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(parallelDownloads)
		for name, p := range wanted {
			g.Go(func() error { return p.download(ctx, registry, name, filepath.Join(dir, name)) })
		}
		return g.Wait()
	})
}

const (
	// parallelDownloads is how many packages are downloaded at once. Registries of npm
	// answer about as many requests of npm itself (its setting maxsockets is 15).
	parallelDownloads = 12
	// downloadTries is how often the download of a package is tried.
	downloadTries = 4
	// maxPackage limits a package's file, in bytes; the largest has 35 MB.
	maxPackage = 256 << 20
)

// download writes the package's file to the file to, and verifies it: sum is its
// hexadecimal SHA-512. registry is the URL of a registry; nil: that of the lock.
func (p *npmPackage) download(ctx context.Context, registry *url.URL, sum, to string) error {
	address := p.Resolved
	if registry != nil {
		path, err := p.tarballPath()
		if err != nil {
			return err
		}
		address = registry.JoinPath(path).String()
	}
	for try := 1; ; try++ {
		retry, err := fetchVerified(ctx, address, sum, to)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("%s %s: %w", p.Name, p.Version, err)
		if !retry || try == downloadTries || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
}

// fetchVerified downloads a file; retry reports whether another attempt may succeed.
func fetchVerified(ctx context.Context, address, sum, to string) (retry bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return true, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests, fmt.Errorf("the registry answered %s; set npm_config_registry to one that has the package", res.Status)
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return false, err
	}
	digest := sha512.New()
	_, err = io.Copy(io.MultiWriter(f, digest), io.LimitReader(res.Body, maxPackage))
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return true, err
	}
	if got := hex.EncodeToString(digest.Sum(nil)); got != sum {
		return true, fmt.Errorf("the registry's file has the SHA-512 %s, and package-lock.json has %s", got, sum)
	}
	return false, nil
}

// npmRegistry returns the registry that the user has set for npm: in the environment
// variable npm_config_registry, or as registry in the file .npmrc of the home directory
// or the one that npm_config_userconfig names. nil means none: the URLs of the lock are
// used as they are.
func npmRegistry(getenv func(string) string) (*url.URL, error) {
	text, from := getenv("npm_config_registry"), "npm_config_registry"
	if text == "" {
		text, from = getenv("NPM_CONFIG_REGISTRY"), "NPM_CONFIG_REGISTRY"
	}
	if text == "" {
		from = getenv("npm_config_userconfig")
		if from == "" {
			from = filepath.Join(getenv("HOME"), ".npmrc")
		}
		var err error
		if text, err = npmrcRegistry(from); err != nil {
			return nil, err
		}
	}
	if text == "" {
		return nil, nil //nolint:nilnil // the setting is optional
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, fmt.Errorf("%s: the registry is not an http or https URL", from)
	}
	return u, nil
}

// npmrcRegistry returns the value of registry in a file of npm's settings.
func npmrcRegistry(name string) (string, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	registry := ""
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if key, value, ok := strings.Cut(sc.Text(), "="); ok && strings.TrimSpace(key) == "registry" {
			registry = strings.Trim(strings.TrimSpace(value), `"'`)
		}
	}
	return registry, sc.Err()
}
