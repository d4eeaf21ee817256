package hub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/testing/netcut"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

var sha = strings.Repeat("ab", 32)

func newHub(t *testing.T, h http.Handler) *hub.Hub {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL + "/mirror")
	if err != nil {
		t.Fatal(err)
	}
	return &hub.Hub{Endpoint: u, Client: &download.Client{Attempts: 1, Sleep: func(context.Context, time.Duration) error { return nil }}}
}

func lfs(path string, size int64) map[string]any {
	return map[string]any{"type": "file", "path": path, "size": size, "oid": "x", "lfs": map[string]any{"oid": sha, "size": size, "pointerSize": 134}}
}

func writeJSON(w http.ResponseWriter, v any) { _ = json.NewEncoder(w).Encode(v) }

func TestListReadsAllPages(t *testing.T) {
	var h *hub.Hub
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mirror/api/models/o/r/revision/{revision}", func(w http.ResponseWriter, r *http.Request) {
		if got := r.PathValue("revision"); got != "main" && got != "refs/pr/3" {
			t.Errorf("revision %q", got)
		}
		writeJSON(w, map[string]any{"sha": commit, "cardData": map[string]any{"license": []string{"mit", "other"}}})
	})
	mux.HandleFunc("GET /mirror/api/models/o/r/tree/"+commit, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("recursive") != "true" {
			t.Errorf("query %q", r.URL.RawQuery)
		}
		if r.URL.Query().Get("cursor") == "" {
			w.Header().Set("Link", `<`+h.Endpoint.String()+`/api/models/o/r/tree/`+commit+`?recursive=true&cursor=2>; rel="next"`)
			writeJSON(w, []any{
				map[string]any{"type": "directory", "path": "d"}, lfs("d/m.gguf", 9), lfs("../m.gguf", 9), lfs("/m.gguf", 9), lfs("a/../m.gguf", 9), lfs("zero.gguf", 0),
			})
			return
		}
		forged := lfs("forged.gguf", 9)
		forged["lfs"] = map[string]any{"oid": sha, "size": 10}
		writeJSON(w, []any{map[string]any{"type": "file", "path": "README.md", "size": 5}, forged})
	})
	h = newHub(t, mux)
	want := &hub.Repo{Owner: "o", Name: "r", Commit: commit, License: "mit, other", Files: []hub.File{
		{Path: "d/m.gguf", Size: 9, SHA256: sha}, {Path: "README.md", Size: 5}, {Path: "forged.gguf", Size: 9},
	}}
	for _, revision := range []string{"", "refs/pr/3"} {
		got, err := h.List(t.Context(), "o", "r", revision)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%v\n%s", err, d)
		}
	}
	if got := h.FileURL(want, want.Files[0]); got != h.Endpoint.String()+"/o/r/resolve/"+commit+"/d/m.gguf" {
		t.Error(got)
	}
}

// A connection may break after any byte of a listing, which is whole in the end.
func TestListSurvivesACutAnywhere(t *testing.T) {
	var h *hub.Hub
	mux := http.NewServeMux()
	mux.HandleFunc("GET /mirror/api/models/o/r/revision/main", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, map[string]any{"sha": commit, "cardData": map[string]any{"license": "mit"}})
	})
	mux.HandleFunc("GET /mirror/api/models/o/r/tree/"+commit, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			w.Header().Set("Link", `<`+h.Endpoint.String()+`/api/models/o/r/tree/`+commit+`?recursive=true&cursor=2>; rel="next"`)
			writeJSON(w, []any{lfs("a.gguf", 9)})
			return
		}
		writeJSON(w, []any{lfs("b.gguf", 9)})
	})
	h = newHub(t, mux)
	var cut netcut.Cutter
	h.Client.Attempts, h.Client.Transport = 2, cut.Transport()
	want := &hub.Repo{Owner: "o", Name: "r", Commit: commit, License: "mit", Files: []hub.File{{Path: "a.gguf", Size: 9, SHA256: sha}, {Path: "b.gguf", Size: 9, SHA256: sha}}}
	for n := 0; ; n++ {
		cut.After(n)
		got, err := h.List(t.Context(), "o", "r", "")
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Fatalf("after %d bytes: %v\n%s", n, err, d)
		}
		if !cut.Done() {
			if n < 500 {
				t.Errorf("the listing came in %d bytes", n)
			}
			return
		}
	}
}

func TestListErrors(t *testing.T) {
	status := func(status int, code string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if code != "" {
				w.Header().Set("X-Error-Code", code)
			}
			w.WriteHeader(status)
		}
	}
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		want  error
		says  string
	}{
		"gated":     {status(401, "GatedRepo"), hub.ErrAccess, "accept them at"},
		"gated 403": {status(403, "GatedRepo"), hub.ErrAccess, "accept them at"},
		"missing":   {status(401, "RepoNotFound"), hub.ErrNotFound, "or it is private"},
		"hidden":    {status(401, ""), hub.ErrNotFound, "or it is private"},
		"404":       {status(404, ""), hub.ErrNotFound, "check the name"},
		"revision":  {status(404, "RevisionNotFound"), hub.ErrNotFound, "no branch, tag or commit v9"},
		"forbidden": {status(403, ""), hub.ErrAccess, "HF_TOKEN"},
		"down":      {status(500, ""), nil, "500"},
		"HTML":      {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>log in</html>")) }, hub.ErrListing, "HF_ENDPOINT"},
		"no commit": {func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]any{"sha": "../../x"}) }, hub.ErrListing, "commit"},
		"endless pages": {func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/revision/") {
				writeJSON(w, map[string]any{"sha": commit})
				return
			}
			w.Header().Set("Link", `<`+r.URL.Path+`?recursive=true>; rel="next"`)
			writeJSON(w, []any{})
		}, hub.ErrListing, "pages"},
		"next page elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", `<http://127.0.0.1:1/x>; rel="next"`)
			if strings.Contains(r.URL.Path, "/revision/") {
				writeJSON(w, map[string]any{"sha": commit})
				return
			}
			writeJSON(w, []any{})
		}, hub.ErrListing, "not on the hub"},
	} {
		_, err := newHub(t, c.serve).List(t.Context(), "o", "r", "v9")
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %v with %q", name, err, c.want, c.says)
		}
	}
}

func TestVariants(t *testing.T) {
	r := &hub.Repo{Owner: "o", Name: "r"}
	for i, name := range []string{
		"m-Q4_K_M.gguf", "m.q8_0.gguf", "UD/m-UD-Q4_K_XL.gguf", "m-fp16.gguf", "m-F32-00001-of-00002.gguf", "m-F32-00002-of-00002.gguf",
		"m-BF16-00001-of-00002.gguf", "mmproj-m-f32.gguf", "mmproj-m-F16.gguf", "UD/mmproj-BF16.gguf", "m.imatrix.gguf", "README.md", "plain.gguf",
		"m-Q4_K_M-v2-IQ2_XXS.gguf", "m-MXFP4.gguf", "sub/m-Q4_K_M.gguf",
	} {
		r.Files = append(r.Files, hub.File{Path: name, Size: int64(100 - i)})
	}
	var got []string
	for _, v := range r.Variants() {
		p, ok := r.Projector(&v)
		got = append(got, fmt.Sprintf("%s %d %s %v %s %v", v.Quant, v.Bytes(), v.Files[0].Path, v.Quantised(), p.Path, ok))
	}
	want := []string{
		"F32 191 m-F32-00001-of-00002.gguf false mmproj-m-F16.gguf true",
		"Q4_K_M 100 m-Q4_K_M.gguf true mmproj-m-F16.gguf true",
		"Q8_0 99 m.q8_0.gguf true mmproj-m-F16.gguf true",
		"UD-Q4_K_XL 98 UD/m-UD-Q4_K_XL.gguf true UD/mmproj-BF16.gguf true",
		"F16 97 m-fp16.gguf false mmproj-m-F16.gguf true",
		" 88 plain.gguf true mmproj-m-F16.gguf true",
		"IQ2_XXS 87 m-Q4_K_M-v2-IQ2_XXS.gguf true mmproj-m-F16.gguf true",
		"MXFP4 86 m-MXFP4.gguf true mmproj-m-F16.gguf true",
		"Q4_K_M 85 sub/m-Q4_K_M.gguf true mmproj-m-F16.gguf true",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, c := range []struct{ quant, file, want, says string }{
		{"Q8_0", "", "m.q8_0.gguf", ""},
		{"F16", "", "m-fp16.gguf", ""},
		{"", "m-F32-00002-of-00002.gguf", "m-F32-00001-of-00002.gguf", ""},
		{"", "sub/m-Q4_K_M.gguf", "sub/m-Q4_K_M.gguf", ""},
		{"Q4_K_M", "", "", "hf:o/r/FILE with one of m-Q4_K_M.gguf"},
		{"Q9_9", "", "", "it has m-F32-00001"},
		{"", "none.gguf", "", "has no file none.gguf"},
	} {
		v, err := r.Select(c.quant, c.file)
		if c.want == "" && (!errors.Is(err, hub.ErrChoice) || !strings.Contains(err.Error(), c.says)) || c.want != "" && (err != nil || len(v) != 1 || v[0].Files[0].Path != c.want) {
			t.Errorf("%+v: %+v, %v", c, v, err)
		}
	}
	if v, err := r.Select("", ""); err != nil || len(v) != len(want) {
		t.Errorf("all: %d, %v", len(v), err)
	}
	if _, err := (&hub.Repo{}).Select("", ""); !errors.Is(err, hub.ErrChoice) || !strings.Contains(err.Error(), "-GGUF") {
		t.Errorf("%v", err)
	}
}

func TestEndpointAndToken(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	for _, name := range []string{hub.EnvEndpoint, hub.EnvToken, hub.EnvTokenPath, hub.EnvHome} {
		t.Setenv(name, "")
	}
	if u, err := hub.Endpoint(); err != nil || u.String() != hub.DefaultEndpoint {
		t.Errorf("%v, %v", u, err)
	}
	t.Setenv(hub.EnvEndpoint, "http://127.0.0.1:9/hf/")
	if u, err := hub.Endpoint(); err != nil || u.String() != "http://127.0.0.1:9/hf" {
		t.Errorf("%v, %v", u, err)
	}
	for _, bad := range []string{"hub", "ftp://h", "https://u:secret@h"} {
		t.Setenv(hub.EnvEndpoint, bad)
		if u, err := hub.Endpoint(); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, %v", bad, u, err)
		}
	}
	if token, err := hub.Token(); err != nil || token != "" {
		t.Errorf("none: %q, %v", token, err)
	}
	write := func(name string) string {
		path := filepath.Join(home, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ variable, value, want string }{
		{"HOME", filepath.Dir(filepath.Dir(filepath.Dir(write(".cache/huggingface/token")))), ".cache/huggingface/token"},
		{hub.EnvHome, filepath.Dir(write("hf/token")), "hf/token"},
		{hub.EnvTokenPath, write("t"), "t"},
		{hub.EnvToken, " direct ", "direct"},
	} {
		t.Setenv(c.variable, c.value)
		if token, err := hub.Token(); err != nil || token != c.want {
			t.Errorf("%s: %q, %v; want %q", c.variable, token, err, c.want)
		}
	}
	t.Setenv(hub.EnvToken, "")
	t.Setenv(hub.EnvTokenPath, filepath.Join(home, "absent"))
	if _, err := hub.Token(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that was named and is missing: %v", err)
	}
}

// fixed answers every request with the same body, without a network.
type fixed string

func (f fixed) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if strings.Contains(req.URL.Path, "/revision/") {
		writeJSON(w, map[string]any{"sha": commit})
	} else {
		_, _ = w.WriteString(string(f))
	}
	res := w.Result()
	res.Request = req
	return res, nil
}

// Whatever the hub sends, the files of a listing stay in their repository.
func FuzzListing(f *testing.F) {
	seed, err := json.Marshal([]any{lfs("a/m-Q4_0.gguf", 3), lfs("../x.gguf", 3), lfs("m-00001-of-00002.gguf", 1), lfs("m-00002-of-00002.gguf", 1)})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(seed), "[]", "{}", "", `[{"type":"file","path":"m-00001-of-99999.gguf","size":1}]`, `[{"type":"file","path":"a//b.gguf","size":-1}]`} {
		f.Add(s)
	}
	endpoint := &url.URL{Scheme: "https", Host: "hub.test"}
	f.Fuzz(func(t *testing.T, body string) {
		h := &hub.Hub{Endpoint: endpoint, Client: &download.Client{Transport: fixed(body), Attempts: 1}}
		r, err := h.List(t.Context(), "o", "r", "")
		if err != nil {
			return
		}
		for _, v := range r.Variants() {
			for _, file := range v.Files {
				if got := h.FileURL(r, file); !strings.HasPrefix(got, "https://hub.test/o/r/resolve/"+commit+"/") || strings.Contains(got, "/../") || file.Size <= 0 {
					t.Errorf("%s, %+v", got, file)
				}
			}
			r.Projector(&v)
		}
	})
}
