package engine

import (
	"archive/tar"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

// daemon is a fake container engine that records requests.
type daemon struct {
	containers []container.Summary

	mu      sync.Mutex
	removed []string
	created map[string]container.Config // by name
	stat    container.PathStat
	archive []tar.Header // what the archive of each path has
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/") // without the version
	w.Header().Set("Content-Type", "application/json")
	switch {
	case path == "containers/json":
		_ = json.NewEncoder(w).Encode(d.containers)
	case path == "containers/create":
		var c container.Config
		_ = json.NewDecoder(r.Body).Decode(&c)
		d.created[r.URL.Query().Get("name")] = c
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(container.CreateResponse{ID: "new"})
	case strings.HasSuffix(path, "/archive"):
		b, _ := json.Marshal(d.stat)
		w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(b))
		if r.Method == http.MethodGet {
			tw := tar.NewWriter(w)
			for i := range d.archive {
				_ = tw.WriteHeader(&d.archive[i])
			}
			_ = tw.Close()
		}
	case r.Method == http.MethodDelete:
		d.removed = append(d.removed, strings.TrimPrefix(path, "containers/"))
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, `{"message":"not in this test"}`, http.StatusNotImplemented)
	}
}

func connectTo(t *testing.T, d *daemon) *client.Client {
	t.Helper()
	d.created = map[string]container.Config{}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	api, err := client.NewClientWithOpts(client.WithHost("tcp://"+s.Listener.Addr().String()), client.WithVersion("1.44"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return api
}

// A container that a person created from an image that was committed from a job
// has the job's labels. It must survive the next build.
func TestRemovesOnlyOwnOrphans(t *testing.T) {
	me, err := currentOwner()
	if err != nil {
		t.Fatal(err)
	}
	exited := me
	exited.pid, exited.start = 1<<22+1, "1" // above the kernel's largest process id
	labels := func(o owner, name string) map[string]string {
		return map[string]string{labelOwner: o.String(), labelName: name}
	}
	d := &daemon{containers: []container.Summary{
		{ID: "orphan", Names: []string{"/go-rocm-1"}, Labels: labels(exited, "go-rocm-1")},
		{ID: "running", Names: []string{"/go-rocm-2"}, Labels: labels(me, "go-rocm-2")},
		{ID: "of a committed image", Names: []string{"/database"}, Labels: labels(exited, "go-rocm-3")},
		{ID: "of a committed image, without a name", Names: nil, Labels: labels(exited, "go-rocm-4")},
		{ID: "with the owner alone", Names: []string{"/shell"}, Labels: map[string]string{labelOwner: exited.String()}},
		{ID: "with cleared labels", Names: []string{"/"}, Labels: map[string]string{labelOwner: "", labelName: ""}},
		{ID: "named as its label, by a person", Names: []string{"/mine"}, Labels: labels(exited, "mine")},
	}}
	if _, err := newDocker(t.Context(), connectTo(t, d)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"orphan"}; !slices.Equal(d.removed, want) {
		t.Errorf("removed %q, want %q", d.removed, want)
	}
}

func TestContainersAreNamedByTheirLabel(t *testing.T) {
	d := new(daemon)
	e, err := newDocker(t.Context(), connectTo(t, d))
	if err != nil {
		t.Fatal(err)
	}
	files, err := e.Files(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Close(); err != nil {
		t.Error(err)
	}
	for name, c := range d.created {
		if c.Labels[labelName] != name || c.Labels[labelOwner] != e.owner.String() || !strings.HasPrefix(name, namePrefix) {
			t.Errorf("container %q has the labels %v", name, c.Labels)
		}
	}
	if len(d.created) != 1 || !slices.Equal(d.removed, []string{"new"}) {
		t.Errorf("created %v, removed %q", d.created, d.removed)
	}
}

// Docker and Podman answer differently about the files of a container.
func TestFilesOfDockerAndPodman(t *testing.T) {
	for name, d := range map[string]*daemon{
		"Docker": {
			stat:    container.PathStat{Name: "lib", Size: 7, Mode: 0o644},
			archive: []tar.Header{{Name: "lib/", Typeflag: tar.TypeDir}, {Name: "lib/a.so", Typeflag: tar.TypeReg}, {Name: "lib/lib/b.so", Typeflag: tar.TypeReg}},
		},
		"Podman": {
			stat:    container.PathStat{Name: "lib", Size: 7, Mode: 0o644, LinkTarget: "/usr/lib"},
			archive: []tar.Header{{Name: "/", Typeflag: tar.TypeDir}, {Name: "/a.so", Typeflag: tar.TypeReg}, {Name: "/lib/b.so", Typeflag: tar.TypeReg}},
		},
	} {
		e, err := newDocker(t.Context(), connectTo(t, d))
		if err != nil {
			t.Fatal(err)
		}
		files, err := e.Files(t.Context(), "image")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := files.Stat(t.Context(), "/usr/lib"); err != nil || got != (Entry{Size: 7}) {
			t.Errorf("%s: a regular file: %+v, %v", name, got, err)
		}
		d.stat.Mode, d.stat.LinkTarget = 0o777|fs.ModeSymlink, "/elsewhere"
		if got, err := files.Stat(t.Context(), "/usr/lib"); err != nil || got.LinkTarget != "/elsewhere" {
			t.Errorf("%s: a link: %+v, %v", name, got, err)
		}
		var names []string
		err = files.Walk(t.Context(), "/usr/lib", func(h *tar.Header, _ io.Reader) error {
			names = append(names, h.Name)
			return nil
		})
		if want := []string{"lib", "lib/a.so", "lib/lib/b.so"}; err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: names %q, %v, want %q", name, names, err, want)
		}
	}
}
