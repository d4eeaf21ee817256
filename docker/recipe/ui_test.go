package recipe

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// tgz returns an npm package with files, below the usual directory.
func tgz(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, text := range files {
		h := &tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}
		if strings.HasPrefix(name, "bin/") {
			h.Mode = 0o755
		}
		_, err := w.Write(nil)
		if err := errors.Join(err, w.WriteHeader(h)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "package/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func integrity(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// npmEntry is a package of a lock for tests.
func npmEntry(name, version string, file []byte, more string) string {
	return fmt.Sprintf(`{"version":%q,"resolved":"https://registry.example/%s/-/%s-%s.tgz","integrity":%q%s}`,
		version, name, name[strings.LastIndex(name, "/")+1:], version, integrity(file), more)
}

func lockOf(t *testing.T, root string, entries map[string]string) *npmLock {
	t.Helper()
	all := []string{`"":` + root}
	for dir, e := range entries {
		all = append(all, fmt.Sprintf("%q:%s", dir, e))
	}
	l, err := parseNPMLock([]byte(`{"lockfileVersion":3,"packages":{` + strings.Join(all, ",") + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dirsOf(packages []*npmPackage) []string {
	var dirs []string
	for _, p := range packages {
		dirs = append(dirs, p.Dir)
	}
	return dirs
}

// The packages are those that npm installs for Linux on amd64, by Node.js's rules, less
// those for tests.
func TestNeededPackages(t *testing.T) {
	t.Parallel()
	f := []byte("x")
	l := lockOf(t, `{"devDependencies":{"a":"1","vitest":"1"}}`, map[string]string{
		"node_modules/a": npmEntry("a", "1.0.0", f, `,"dependencies":{"b":"1"},"optionalDependencies":{"a-linux":"1","a-darwin":"1","a-musl":"1","a-libc":"1","gone":"1"},
			"peerDependencies":{"peer":"1","choice":"1"},"peerDependenciesMeta":{"choice":{"optional":true}}`),
		"node_modules/a/node_modules/b": npmEntry("b", "2.0.0", f, `,"dependencies":{"c":"1"}`),
		"node_modules/b":                npmEntry("b", "1.0.0", f, ""),
		"node_modules/c":                npmEntry("c", "1.0.0", f, `,"dependencies":{"a":"1","b":"1"}`),
		"node_modules/peer":             npmEntry("peer", "1.0.0", f, ""),
		"node_modules/choice":           npmEntry("choice", "1.0.0", f, ""),
		"node_modules/a-linux":          npmEntry("a-linux", "1.0.0", f, `,"os":["linux"],"cpu":["x64"]`),
		"node_modules/a-darwin":         npmEntry("a-darwin", "1.0.0", f, `,"os":["darwin"]`),
		"node_modules/a-musl":           npmEntry("a-musl", "1.0.0", f, `,"os":["linux"],"cpu":["x64"]`),
		"node_modules/a-libc":           npmEntry("a-libc", "1.0.0", f, `,"os":["!win32"],"libc":["musl"]`),
		"node_modules/vitest":           npmEntry("vitest", "1.0.0", f, `,"dependencies":{"only-tests":"1"}`),
		"node_modules/only-tests":       npmEntry("only-tests", "1.0.0", f, ""),
	})
	got, err := l.needed(isUITool)
	want := []string{"node_modules/a", "node_modules/a-linux", "node_modules/a/node_modules/b", "node_modules/b", "node_modules/c", "node_modules/peer"}
	if err != nil || !slices.Equal(dirsOf(got), want) {
		t.Errorf("%q, %v; want %q", dirsOf(got), err, want)
	}
	delete(l.Packages, "node_modules/c")
	if _, err := l.needed(isUITool); err == nil || !strings.Contains(err.Error(), "lacks c (of b)") {
		t.Errorf("a package that is not in the lock: %v", err)
	}
}

func TestParseNPMLockRejects(t *testing.T) {
	t.Parallel()
	good := npmEntry("a", "1.0.0", []byte("x"), "")
	for text, want := range map[string]string{
		`{`: "package-lock.json", `{"lockfileVersion":2,"packages":{"":{}}}`: "format 2", `{"lockfileVersion":3,"packages":{}}`: "format 3",
		`{"lockfileVersion":3,"packages":{"":{},"node_modules/../../etc":` + good + `}}`:                                         "not a directory",
		`{"lockfileVersion":3,"packages":{"":{},"../node_modules/a":` + good + `}}`:                                              "not a directory",
		`{"lockfileVersion":3,"packages":{"":{},"node_modules/a":{"version":"1","resolved":"git+ssh://host/a.git"}}}`:            "not from a registry",
		`{"lockfileVersion":3,"packages":{"":{},"node_modules/a":{"resolved":"https://host/a.tgz","integrity":"sha1-abc"}}}`:     "no SHA-512",
		`{"lockfileVersion":3,"packages":{"":{},"node_modules/a":{"resolved":"https://host/a.tgz","integrity":"sha512-YWJj"}}}`:  "no SHA-512",
		`{"lockfileVersion":3,"packages":{"":{},"node_modules/a":{"resolved":"https://host/../a.tgz","integrity":"sha512-YQ"}}}`: "not from a registry",
	} {
		if _, err := parseNPMLock([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The user's registry has the packages below a path of its own.
func TestPackagesAreFetchedAndVerified(t *testing.T) {
	file := tgz(t, map[string]string{"package.json": "{}"})
	requests := map[string]int{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests[r.URL.Path]++
		switch {
		case r.URL.Path == "/npm/@s/a/-/a-1.0.0.tgz" && requests[r.URL.Path] == 1:
			w.WriteHeader(http.StatusBadGateway)
		case r.URL.Path == "/npm/@s/a/-/a-1.0.0.tgz":
			_, _ = w.Write(file)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer srv.Close()
	t.Setenv("npm_config_registry", srv.URL+"/npm/")
	l := lockOf(t, `{"dependencies":{"@s/a":"1"}}`, map[string]string{"node_modules/@s/a": npmEntry("@s/a", "1.0.0", file, "")})
	packages, err := l.needed(isUITool)
	if err != nil {
		t.Fatal(err)
	}
	r := &Recipe{Cache: cache(t), Log: io.Discard}
	res, err := r.uiPackages(t.Context(), packages)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(file)
	if b, err := os.ReadFile(filepath.Join(res.Dir, hex.EncodeToString(sum[:]))); err != nil || !bytes.Equal(b, file) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if requests["/npm/@s/a/-/a-1.0.0.tgz"] != 2 {
		t.Errorf("the server saw %v", requests)
	}
	other := lockOf(t, `{"dependencies":{"gone":"1"}}`, map[string]string{"node_modules/gone": npmEntry("gone", "1.0.0", file, "")})
	if packages, err = other.needed(isUITool); err != nil {
		t.Fatal(err)
	}
	r.Cache = cache(t) // the same content, which the first cache has
	if _, err := r.uiPackages(t.Context(), packages); err == nil || !strings.Contains(err.Error(), "gone 1.0.0") || !strings.Contains(err.Error(), "npm_config_registry") {
		t.Errorf("a package that the registry lacks: %v", err)
	}
}

func TestFetchRejectsOtherContent(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "changed") }))
	defer srv.Close()
	sum := sha512.Sum512([]byte("original"))
	if _, err := fetchVerified(t.Context(), srv.URL, hex.EncodeToString(sum[:]), filepath.Join(t.TempDir(), "f")); err == nil || !strings.Contains(err.Error(), "package-lock.json has") {
		t.Errorf("other content: %v", err)
	}
}

func TestNPMRegistry(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	other := filepath.Join(home, "other")
	for name, text := range map[string]string{filepath.Join(home, ".npmrc"): "audit=false\nregistry = \"https://mirror.example/npm/\"\n", other: "registry=ftp://x\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		env        map[string]string
		want, fail string
	}{
		{map[string]string{}, "", ""},
		{map[string]string{"HOME": home}, "https://mirror.example/npm/", ""},
		{map[string]string{"HOME": home, "NPM_CONFIG_REGISTRY": "http://127.0.0.1:1/"}, "http://127.0.0.1:1/", ""},
		{map[string]string{"npm_config_registry": "registry.example"}, "", "npm_config_registry"},
		{map[string]string{"npm_config_userconfig": other}, "", other},
	} {
		u, err := npmRegistry(func(name string) string { return tt.env[name] })
		got := ""
		if u != nil {
			got = u.String()
		}
		if got != tt.want || (err == nil) != (tt.fail == "") || err != nil && !strings.Contains(err.Error(), tt.fail) {
			t.Errorf("%v: %q, %v", tt.env, got, err)
		}
	}
}

// stored writes files of packages as the stage ui-packages does.
func stored(t *testing.T, files ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		sum := sha512.Sum512(f)
		if err := os.WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:])), f, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestInstallPackages(t *testing.T) {
	t.Parallel()
	file := tgz(t, map[string]string{"package.json": "{}", "bin/run": "#!"})
	l := lockOf(t, `{"dependencies":{"@s/a":"1"}}`, map[string]string{"node_modules/@s/a": npmEntry("@s/a", "1.0.0", file, "")})
	packages, err := l.needed(isUITool)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(installPackages(w, stored(t, file), packages, time.Unix(1, 0)), w.Close()); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.Mode
	}
	want := map[string]int64{
		"node_modules/": 0o755, "node_modules/@s/": 0o755, "node_modules/@s/a/": 0o755, "node_modules/@s/a/bin/": 0o755,
		"node_modules/@s/a/package.json": 0o644, "node_modules/@s/a/bin/run": 0o755,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	bad := tgz(t, map[string]string{"../../../etc/x": ""})
	packages[0].Integrity = integrity(bad)
	if err := installPackages(tar.NewWriter(io.Discard), stored(t, bad), packages, time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), "leaves the package") {
		t.Errorf("a name outside: %v", err)
	}
}

// What is in the page has its terms, and what is not, is not listed. The file's mode, which is part
// of the digest of the stage, does not depend on the umask.
func TestPageComponents(t *testing.T) {
	used := tgz(t, map[string]string{"LICENSE": "MIT terms", "package.json": `{"license":"MIT"}`})
	bare := tgz(t, map[string]string{"package.json": `{"license":"ISC","author":"A. Person"}`})
	unused := tgz(t, map[string]string{"package.json": "{}"})
	l := lockOf(t, `{}`, map[string]string{
		"node_modules/used":                   npmEntry("used", "1.0.0", used, `,"license":"MIT"`),
		"node_modules/used/node_modules/bare": npmEntry("bare", "2.0.0+x", bare, `,"license":"ISC"`),
		"node_modules/unused":                 npmEntry("unused", "1.0.0", unused, ""),
		"node_modules/vite":                   npmEntry("vite", "7.0.0", used, ""),
	})
	source, dir := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		filepath.Join(source, "LICENSE"):                                  "llama.cpp's terms",
		filepath.Join(source, "tools/ui/src/lib/vendors/math/LICENCE.md"): "terms of math",
		filepath.Join(source, "tools/ui/src/lib/vendors/package.json"):    "{}",
		filepath.Join(dir, pageModulesFile):                               "/src/src/app.ts\n\x00virtual:x\n/src/node_modules/used/a.js?raw\n/src/node_modules/used/node_modules/bare/dist/b.js\n/src/node_modules/@storybook/addon-vitest/empty.js\n",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	files := stored(t, used, bare, unused)
	old := syscall.Umask(0o077)
	err := writePageComponents(dir, source, files, l, Lock{Tag: "v1"})
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	name := (&Page{&stage.Result{Dir: dir}}).Components()
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var got []pageComponent
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range got {
		lines = append(lines, c.PURL+" "+c.Licence+" "+c.Texts[0].Name)
	}
	want := []string{
		"pkg:github/ggml-org/llama.cpp@v1#tools/ui  LICENSE", "pkg:github/ggml-org/llama.cpp@v1#tools/ui/src/lib/vendors/math  LICENCE.md",
		"pkg:npm/used@1.0.0 MIT LICENSE", "pkg:npm/bare@2.0.0+x ISC package.json", "pkg:npm/vite@7.0.0  LICENSE",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("%q\nwant %q", lines, want)
	}
	if _, err := pagePackages(strings.NewReader("/src/node_modules/unknown/a.js\n"), l); err == nil || !strings.Contains(err.Error(), "unknown/a.js") {
		t.Errorf("a module of no package: %v", err)
	}
	if npmPURL("@s/a", "1.0.0") != "pkg:npm/%40s/a@1.0.0" {
		t.Error(npmPURL("@s/a", "1.0.0"))
	}
}
