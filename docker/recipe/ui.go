package recipe

import (
	"archive/tar"
	"context"
	_ "embed" // the script is part of the program
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

//go:embed ui.sh
var uiScript string

// Page is llama.cpp's web page as files of a web server, and the terms of its parts.
type Page struct {
	*stage.Result
}

// Files is the directory with the page's files, of which index.html is the first.
func (p *Page) Files() string { return filepath.Join(p.Dir, pageDir) }

// Components is the file that lists the page's parts, as packaging/licences reads it.
func (p *Page) Components() string { return filepath.Join(p.Dir, pageComponentsFile) }

const (
	pageDir            = "page"
	pageComponentsFile = "components.json"
	pageModulesFile    = "modules"
	// uiDir is the directory of the page's source in that of llama.cpp.
	uiDir = "tools/ui"
)

// uiOmitted lists packages that the settings of vite import for tests only; ui.sh puts
// empty ones into their place.
var uiOmitted = []string{"@storybook/addon-vitest", "@vitest/browser-playwright"}

// isUITool reports whether a package is for the tests of the page, for its developers'
// editors, or for Node.js instead of a browser.
func isUITool(name string) bool {
	return slices.ContainsFunc([]string{
		"@chromatic-com/", "@eslint/", "@napi-rs/canvas", "@playwright/", "@storybook/", "@types/", "@vitest/", "eslint", "globals", "http-server",
		"playwright", "prettier", "storybook", "svelte-check", "typescript-eslint", "vite-plugin-devtools-json", "vitest",
	}, func(tool string) bool { return strings.HasPrefix(name, tool) })
}

// uiInputs key the page.
type uiInputs struct {
	Tree     string // of llama.cpp
	Packages []toolchain.Package
	Modules  uiPackagesInputs
	Script   string
	Env      []string
	Version  int // increment it when the way to write the components changes
}

// Page builds llama.cpp's web page, in a container without network, of the packages
// that its package-lock.json names.
func (r *Recipe) Page(ctx context.Context) (*Page, error) {
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(src.Dir, uiDir, "package-lock.json"))
	if err != nil {
		return nil, fmt.Errorf("the source of the web page: %w", err)
	}
	lock, err := parseNPMLock(text)
	if err != nil {
		return nil, err
	}
	packages, err := lock.needed(isUITool)
	if err != nil {
		return nil, err
	}
	spec := r.toolchainSpec(toolchain.UI)
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, spec, r.Log)
	if err != nil {
		return nil, err
	}
	in := uiInputs{Tree: r.Lock.Tree, Packages: t.Packages, Script: uiScript, Env: r.uiEnvironment(), Version: 2}
	for _, p := range packages {
		in.Modules.Files = append(in.Modules.Files, p.Integrity)
	}
	res, err := r.Cache.Do(ctx, "ui", in, func(ctx context.Context, dir string) error {
		files, err := r.uiPackages(ctx, packages)
		if err != nil {
			return err
		}
		if err := toolchain.Ensure(ctx, r.Engine, spec, t, r.Log); err != nil {
			return err
		}
		if err := r.buildPage(ctx, t, src, files, packages, in.Env, dir); err != nil {
			return err
		}
		return writePageComponents(dir, src.Dir, files.Dir, lock, r.Lock)
	})
	if err != nil {
		return nil, err
	}
	return &Page{res}, nil
}

// uiEnvironment returns the whole environment of the page's build.
func (r *Recipe) uiEnvironment() []string {
	return []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/build", "LC_ALL=C.UTF-8", "TZ=UTC", "CI=true", "NODE_ENV=production",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.Lock.Epoch, 10),
		"VERSION=" + r.Lock.Tag, "OMITTED=" + strings.Join(uiOmitted, " "),
		"VIPS_NOVECTOR=1", // the icons must not depend on the processor
	}
}

// buildPage runs the build and writes its results to dir.
func (r *Recipe) buildPage(ctx context.Context, t *toolchain.Toolchain, src, files *stage.Result, packages []*npmPackage, env []string, dir string) error {
	log, err := r.Progress.Open("ui")
	if err != nil {
		return err
	}
	defer log.Close()
	when := r.Lock.Time()
	return r.Engine.Run(ctx, engine.Job{
		Name: "ui", Image: t.ID, Cmd: []string{"/bin/sh", "-eu", "-c", uiScript, "ui"}, Env: env,
		Dir: "/build", UID: toolchain.User, GID: toolchain.User, Volumes: []string{"/src", "/build"},
		In: []engine.Input{
			{Dir: "/src", Write: engine.TarDirectory(filepath.Join(src.Dir, uiDir), toolchain.User, when)},
			{Dir: "/src", Write: func(w *tar.Writer) error { return installPackages(w, files.Dir, packages, when) }},
		},
		Out: []engine.Output{{Path: "/build/out", Read: extractBelow(dir)}},
		Log: log, Memory: r.Memory,
	})
}

// installPackages writes the packages as `npm ci --ignore-scripts` installs them: each
// file of a package in the directory that the lock says.
func installPackages(w *tar.Writer, files string, packages []*npmPackage, when time.Time) error {
	made := map[string]bool{".": true}
	var mkdir func(dir string) error
	mkdir = func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		if err := mkdir(path.Dir(dir)); err != nil {
			return err
		}
		return w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: toolchain.User, Gid: toolchain.User, ModTime: when})
	}
	for _, p := range packages {
		err := p.walk(files, func(name string, h *tar.Header, r io.Reader) error {
			mode := int64(0o644)
			if h.Mode&0o100 != 0 {
				mode = 0o755
			}
			name = path.Join(p.Dir, name)
			if err := mkdir(path.Dir(name)); err != nil {
				return err
			}
			if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: h.Size, Uid: toolchain.User, Gid: toolchain.User, ModTime: when}); err != nil {
				return err
			}
			_, err := io.Copy(w, r)
			return err
		})
		if err != nil {
			return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
		}
	}
	return nil
}

// walk calls visit for each regular file of the package, with its name below the
// package's directory. npm ignores other entries, too.
func (p *npmPackage) walk(files string, visit func(name string, h *tar.Header, r io.Reader) error) error {
	sum, err := p.sha512()
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(files, hex.EncodeToString(sum)))
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return err
	}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		_, name, ok := strings.Cut(path.Clean(h.Name), "/")
		if h.Typeflag != tar.TypeReg || !ok {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the name %q leaves the package", h.Name)
		}
		if err := visit(name, h, tr); err != nil {
			return err
		}
	}
}

// extractBelow returns an engine.Output.Read that writes files into dir by their names
// below the directory that is read.
func extractBelow(dir string) func(*tar.Header, io.Reader) error {
	return func(h *tar.Header, r io.Reader) error {
		_, name, ok := strings.Cut(path.Clean(h.Name), "/")
		switch {
		case h.Typeflag == tar.TypeDir || !ok:
			return nil
		case h.Typeflag != tar.TypeReg || !filepath.IsLocal(name):
			return fmt.Errorf("unexpected entry %q of type %q", h.Name, h.Typeflag)
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return engine.ExtractFile(to, r, fs.FileMode(h.Mode&0o777)&^0o133)
	}
}
