package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/settings"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
)

// modulePath is the path of the Go module.
const modulePath = "forge.lthn.ai/core/go-rocm"

// moduleVersions returns the module's version with the bundle inside and, for a
// release, the version without. The version without a bundle sorts before the release,
// so that the newest version is the one with the bundle. Go modules have no build
// metadata.
func moduleVersions(version string) (full, plain string, err error) {
	if err := settings.CheckVersion(version); err != nil {
		return "", "", err
	}
	full, _, _ = strings.Cut("v"+strings.TrimPrefix(version, "v"), "+")
	if semver.Prerelease(full) == "" {
		plain = full + settings.PlainSuffix
	}
	return full, plain, nil
}

// moduleInto writes the module in the layout of a module proxy, twice: with the
// bundle inside, and with the files that git tracks alone.
func (s *Session) moduleInto(ctx context.Context, d *delivery) error {
	full, plain, err := moduleVersions(d.version)
	if err != nil {
		return err
	}
	sources, err := s.trackedFiles(ctx, d.root)
	if err != nil {
		return err
	}
	parts, err := filepath.Glob(filepath.Join(d.root, payloadDir, "llama-*"))
	if err != nil {
		return err
	}
	proxy := filepath.Join(d.dir, proxyDir)
	if plain != "" {
		if err := s.addModule(ctx, d, proxy, plain, sources); err != nil {
			return err
		}
	}
	for _, p := range parts {
		sources = append(sources, filepath.ToSlash(filepath.Join(payloadDir, filepath.Base(p))))
	}
	return s.addModule(ctx, d, proxy, full, sources)
}

// addModule packs a version, unless the cache has it from the same files, and adds
// it to the proxy's directory.
func (s *Session) addModule(ctx context.Context, d *delivery, proxy, version string, names []string) error {
	at, err := s.sourceDate(ctx, d.root)
	if err != nil {
		return err
	}
	v := goproxy.Version{Path: modulePath, Version: version, Time: at}
	in := struct {
		goproxy.Version
		Go    string
		Files map[string]string // digests
	}{v, goVersion(), map[string]string{}}
	var files []goproxy.File
	for _, name := range names {
		f := goproxy.File{Name: name, From: filepath.Join(d.root, filepath.FromSlash(name))}
		if in.Files[name], err = stage.FileDigest(f.From); err != nil {
			return err
		}
		files = append(files, f)
	}
	res, err := s.Recipe.Cache.Do(ctx, "module", in, func(ctx context.Context, dir string) error {
		return goproxy.Pack(ctx, dir, v, files)
	})
	if err != nil {
		return err
	}
	// Copy the cached files: the proxy's directory may hard-link its arguments.
	work, err := os.MkdirTemp(d.dir, workPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := copyAll(res.Dir, work); err != nil {
		return err
	}
	return goproxy.Add(ctx, proxy, v, work)
}

// earlierModulesInto adds the published versions. It runs after the provenance is
// written, which describes this release alone.
func (s *Session) earlierModulesInto(ctx context.Context, d *delivery) error {
	before, err := s.publishedDir(d.root, proxyDir)
	if err != nil || before == "" {
		return err
	}
	err = goproxy.Mirror(ctx, before, filepath.Join(d.dir, proxyDir))
	if errors.Is(err, goproxy.ErrVersionConflict) {
		return fmt.Errorf("%w in CHANGELOG.md or by GOROCM_VERSION; a version that was never published may be removed from %s", err, before)
	}
	return err
}
