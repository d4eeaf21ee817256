package pull

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/oci"
)

// Candidate is a model in the cache of another program.
type Candidate struct {
	// Record has the files with the digests that the cache states.
	Record modelstore.Record
	// Paths are those of the files, in the order of the record.
	Paths []string
}

// CacheDirs returns the directories in which other programs keep models, of those
// that exist: the hub's own tools, LM Studio and ollama.
func CacheDirs() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		home = string(filepath.Separator)
	}
	hubHome := os.Getenv(hub.EnvHome)
	if hubHome == "" {
		hubHome = filepath.Join(home, ".cache", "huggingface")
	}
	ollama := os.Getenv("OLLAMA_MODELS")
	if ollama == "" {
		ollama = filepath.Join(home, ".ollama", "models")
	}
	var dirs []string
	for _, dir := range []string{
		filepath.Join(hubHome, "hub"), filepath.Join(home, ".lmstudio", "models"), filepath.Join(home, ".cache", "lm-studio", "models"),
		ollama, "/usr/share/ollama/.ollama/models",
	} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Candidates returns the models in a cache directory, whose layout it recognises:
//
//   - models--OWNER--REPO/snapshots/COMMIT/FILE, links to blobs/SHA256, of the hub's tools;
//   - manifests/REGISTRY/NAME/TAG and blobs/sha256-HEX, of ollama;
//   - OWNER/REPO/FILE, of LM Studio.
func (p *Puller) Candidates(dir string) ([]Candidate, error) {
	if _, err := os.Stat(filepath.Join(dir, "manifests")); err == nil {
		return ollamaCandidates(dir)
	}
	snapshots, err := filepath.Glob(filepath.Join(dir, "models--*--*", "snapshots", "*"))
	if err != nil {
		return nil, err
	}
	var out []Candidate
	for _, snapshot := range snapshots {
		id := strings.TrimPrefix(filepath.Base(filepath.Dir(filepath.Dir(snapshot))), "models--")
		owner, name, _ := strings.Cut(id, "--")
		out = append(out, p.repoCandidates(snapshot, &hub.Repo{Owner: owner, Name: name, Commit: filepath.Base(snapshot)})...)
	}
	if len(snapshots) > 0 {
		return out, nil
	}
	repos, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return nil, err
	}
	for _, repo := range repos {
		owner, name := filepath.Base(filepath.Dir(repo)), filepath.Base(repo)
		out = append(out, p.repoCandidates(repo, &hub.Repo{Owner: owner, Name: name})...)
	}
	return out, nil
}

// repoCandidates returns the models in a copy of a repository.
func (p *Puller) repoCandidates(dir string, r *hub.Repo) []Candidate {
	paths := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		info, statErr := os.Stat(path) // through the link
		if name = filepath.ToSlash(name); err != nil || statErr != nil || !info.Mode().IsRegular() || info.Size() == 0 || !modelref.ValidFile(name) {
			return nil //nolint:nilerr // a link to a file that is gone is no model
		}
		file := hub.File{Path: name, Size: info.Size()}
		if target, err := os.Readlink(path); err == nil && modelref.ValidSHA256(filepath.Base(target)) {
			file.SHA256 = filepath.Base(target)
		}
		r.Files, paths[name] = append(r.Files, file), path
		return nil
	})
	if err != nil {
		return nil // not readable, and no cache of ours
	}
	var out []Candidate
	for _, v := range r.Variants() {
		ref, err := modelref.Parse("hf:" + r.Owner + "/" + r.Name)
		if err != nil {
			return nil
		}
		c := Candidate{Record: p.found(ref, r, v, "").Record}
		files := v.Files
		if projector, ok := r.Projector(&v); ok && !p.NoProjector {
			files = append(files[:len(files):len(files)], projector)
		}
		for i, f := range files {
			c.Paths = append(c.Paths, paths[f.Path])
			if r.Commit == "" {
				c.Record.Files[i].URL = ""
			}
		}
		out = append(out, c)
	}
	return out
}

func ollamaCandidates(dir string) ([]Candidate, error) {
	var out []Candidate
	manifests := filepath.Join(dir, "manifests")
	err := filepath.WalkDir(manifests, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(manifests, filepath.Dir(path))
		if err != nil {
			return err
		}
		ref, err := modelref.Parse("oci:" + filepath.ToSlash(name) + ":" + d.Name())
		if err != nil {
			return nil //nolint:nilerr // a file that is no manifest
		}
		raw, err := regfile.Read(path, 4<<20)
		if err != nil {
			return err
		}
		artifact, err := oci.ParseManifest(ref, raw)
		if err != nil {
			return nil //nolint:nilerr // of something else than a GGUF model
		}
		c := Candidate{Record: artifactRecord(ref, artifact, false)}
		for _, f := range c.Record.Files {
			c.Paths = append(c.Paths, filepath.Join(dir, "blobs", "sha256-"+f.SHA256))
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

// Import puts a candidate into the store without a second copy of its bytes on the
// disk. It says how the model's first file is there. Files are checked as a download
// is: their header, and the digest that the cache states.
func (p *Puller) Import(ctx context.Context, s *modelstore.Store, c Candidate) (r *modelstore.Record, how modelstore.How, err error) {
	w, err := s.Write(ctx)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	record := c.Record
	record.Files = append([]modelstore.File{}, record.Files...)
	for i, path := range c.Paths {
		f := &record.Files[i]
		if err := checkFile(path, f.Role); err != nil {
			return nil, "", fmt.Errorf("import %s: %s: %w", record.Name, path, err)
		}
		var this modelstore.How
		if f.SHA256, f.Size, this, err = w.Adopt(ctx, path, f.SHA256); err != nil {
			return nil, "", fmt.Errorf("import %s: %w", record.Name, err)
		}
		if i == 0 {
			how = this
		}
	}
	r, err = put(w, s, record)
	return r, how, err
}

func checkFile(path, role string) error {
	f, err := regfile.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return checkHeader(f, info.Size(), role)
}
