package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
)

// modulePath is the path of the Go module.
const modulePath = "forge.lthn.ai/core/go-rocm"

// adapterDirs are the directories of the nested modules that are published, too: the
// adapters for go-inference. Each has a go.mod of its own.
var adapterDirs = []string{"contrib/goinference", "contrib/goinference/result"}

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
// bundle inside, and with the files that git tracks alone; and the adapters.
func (s *Session) moduleInto(ctx context.Context, d *delivery) error {
	full, plain, err := moduleVersions(d.version)
	if err != nil {
		return err
	}
	sources, err := s.trackedFiles(ctx, d.root)
	if err != nil {
		return err
	}
	parts, err := filepath.Glob(filepath.Join(d.root, payloadDir, payloadParts))
	if err != nil {
		return err
	}
	proxy := filepath.Join(d.dir, proxyDir)
	if plain != "" {
		if err := s.addModule(ctx, d, proxy, modulePath, plain, d.sourceFiles(sources)); err != nil {
			return err
		}
	}
	for _, dir := range adapterDirs {
		if err := s.addAdapter(ctx, d, proxy, dir, full, goproxy.Subdirectory(d.sourceFiles(sources), dir)); err != nil {
			return err
		}
	}
	if d.page != nil {
		sources = append(sources, pageFile)
	}
	for _, p := range parts {
		sources = append(sources, filepath.ToSlash(filepath.Join(payloadDir, filepath.Base(p))))
	}
	return s.addModule(ctx, d, proxy, modulePath, full, d.sourceFiles(sources))
}

// sourceFiles returns files of the checkout by their slash-separated names.
func (d *delivery) sourceFiles(names []string) []goproxy.File {
	files := make([]goproxy.File, 0, len(names))
	for _, name := range names {
		files = append(files, goproxy.File{Name: name, From: filepath.Join(d.root, filepath.FromSlash(name))})
	}
	return files
}

// addAdapter adds the adapter in the directory dir of the checkout to the proxy. Its
// go.mod is published as it is, because the version in git has the same one. If it
// requires a version of the main module that is newer than this release, as in a release
// candidate, the adapter could not be fetched, and it is omitted.
func (s *Session) addAdapter(ctx context.Context, d *delivery, proxy, dir, version string, files []goproxy.File) error {
	i := slices.IndexFunc(files, func(f goproxy.File) bool { return f.Name == "go.mod" })
	if i < 0 {
		return nil
	}
	text, err := os.ReadFile(files[i].From)
	if err != nil {
		return err
	}
	mod, err := modfile.Parse(files[i].From, text, nil)
	if err != nil {
		return err
	}
	for _, r := range mod.Require {
		if r.Mod.Path == modulePath && semver.Compare(r.Mod.Version, version) > 0 {
			return s.printf("module %s: omitted, because its go.mod requires %s, which is newer than %s", dir, r.Mod, version)
		}
	}
	return s.addModule(ctx, d, proxy, path.Join(modulePath, dir), version, files)
}

// addModule packs a version of a module, unless the cache has it from the same files,
// and adds it to the proxy's directory.
func (s *Session) addModule(ctx context.Context, d *delivery, proxy, modulePath, version string, files []goproxy.File) error {
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
	for _, f := range files {
		if in.Files[f.Name], err = stage.FileDigest(f.From); err != nil {
			return err
		}
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
