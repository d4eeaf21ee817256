package install

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// imageFile writes an image with one layer, compressed with zstd, and returns its path.
func imageFile(t *testing.T, ref, layer string) string {
	t.Helper()
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(z, layer); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct{ name, body string }{
		{"blobs/sha256/1", packed.String()},
		{"blobs/sha256/2", "{}"},
		{"empty", ""},
		{"manifest.json", `[{"RepoTags":["` + ref + `"],"Layers":["blobs/sha256/1"]}]`},
	} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.body))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// imageDaemon is a fake engine with images by their references.
type imageDaemon struct {
	version string
	images  map[string]string // IDs by reference
	loads   string            // the ID of the loaded image
	ref     string
	calls   []string          // removals and tags
	files   map[string]string // of the loaded image
}

func (d *imageDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // without the version
	name, action := strings.TrimPrefix(path, "images/"), ""
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		name, action = name[:i], name[i+1:]
	}
	switch {
	case path == "version":
		_ = json.NewEncoder(w).Encode(types.Version{Version: d.version})
	case path == "images/load":
		d.files = map[string]string{}
		for in := tar.NewReader(r.Body); ; {
			h, err := in.Next()
			if err != nil {
				break
			}
			b, _ := io.ReadAll(in)
			d.files[h.Name] = string(b)
		}
		d.images[d.ref] = d.loads
		_, _ = io.WriteString(w, `{"stream":"Loaded image: `+d.ref+`\n"}`)
	case r.Method == http.MethodGet && action == "json":
		id, ok := d.images[name]
		if !ok {
			http.Error(w, `{"message":"no such image"}`, http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, `{"Id":"`+id+`"}`)
	case r.Method == http.MethodDelete:
		d.calls = append(d.calls, "remove "+path[len("images/"):]+" force="+r.URL.Query().Get("force"))
		delete(d.images, path[len("images/"):])
		_, _ = io.WriteString(w, "[]")
	case action == "tag":
		q := r.URL.Query()
		d.calls = append(d.calls, "tag "+name+" "+q.Get("repo")+":"+q.Get("tag"))
		w.WriteHeader(http.StatusCreated)
	default:
		http.Error(w, `{"message":"not in this test"}`, http.StatusNotImplemented)
	}
}

// A person may have an image with the same name, or the same image.
func TestImageRemovesOnlyWhatItLoaded(t *testing.T) {
	const ref = "go-rocm:1"
	for name, tc := range map[string]struct {
		before string // the ID of the image that has the name already
		after  string // the ID of the image that has it at the end; empty: the loaded one
		want   []string
	}{
		"a new image":                        {"", "", []string{"remove " + ref + " force="}},
		"a person's image of that name":      {"sha256:b", "", []string{"remove " + ref + " force=", "tag sha256:b docker.io/library/" + ref}},
		"the same image, from a person":      {"sha256:a", "", nil},
		"a person has used the name since":   {"", "sha256:c", nil},
		"a person has removed it since then": {"", "-", nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := &imageDaemon{version: "28.0.0", images: map[string]string{}, loads: "sha256:a", ref: ref}
			if tc.before != "" {
				d.images[ref] = tc.before
			}
			s := httptest.NewServer(d)
			defer s.Close()
			api, err := client.NewClientWithOpts(client.WithHost("tcp://"+s.Listener.Addr().String()), client.WithVersion("1.44"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = api.Close() }()
			im, err := (&Engine{api: api}).LoadImage(t.Context(), imageFile(t, ref, "layer"))
			if err != nil {
				t.Fatal(err)
			}
			switch tc.after {
			case "":
			case "-":
				delete(d.images, ref)
			default:
				d.images[ref] = tc.after
			}
			if err := im.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, d.calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s", diff)
			}
		})
	}
}

// Docker before version 23 gets the layers uncompressed.
func TestLoadImageForOldDocker(t *testing.T) {
	const ref = "go-rocm:1"
	for version, want := range map[string]bool{"20.10.24+dfsg1": true, "23.0.0": false, "28.2.2": false} {
		d := &imageDaemon{version: version, images: map[string]string{}, loads: "sha256:a", ref: ref}
		s := httptest.NewServer(d)
		api, err := client.NewClientWithOpts(client.WithHost("tcp://"+s.Listener.Addr().String()), client.WithVersion("1.41"))
		if err != nil {
			t.Fatal(err)
		}
		layer := strings.Repeat("a layer ", 1000)
		if _, err := (&Engine{api: api}).LoadImage(t.Context(), imageFile(t, ref, layer)); err != nil {
			t.Errorf("%s: %v", version, err)
		}
		if plain := d.files["blobs/sha256/1"] == layer; plain != want || d.files["blobs/sha256/2"] != "{}" || len(d.files) != 4 {
			t.Errorf("%s: the layer is uncompressed: %t, want %t; %d files", version, plain, want, len(d.files))
		}
		if err := errors.Join(api.Close()); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}
