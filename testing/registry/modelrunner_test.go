package registry

import (
	"encoding/json"
	"errors"
	"io"
	"path"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/oci"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// The artifacts of this file have the manifests that Docker Model Runner's program
// writes (github.com/docker/model-runner, pkg/distribution: builder, types,
// internal/partial): three annotations at each layer, and a config with the model's
// facts and the digests of the layers.

// packed pushes a layer as "docker model package" writes one of a file.
func (p pusher) packed(r *remote.Repository, mediaType, file string, content []byte) v1.Descriptor {
	p.t.Helper()
	d := p.blob(r, mediaType, content)
	metadata, err := json.Marshal(map[string]any{
		"name": path.Base(file), "mode": 0o644, "uid": 0, "gid": 0, "size": len(content), "mtime": time.Unix(1750000000, 0).UTC(), "typeflag": 0,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	d.Annotations = map[string]string{
		"org.cncf.model.filepath": file, "org.cncf.model.file.metadata+json": string(metadata), "org.cncf.model.file.mediatype.untested": "false",
	}
	return d
}

// packedManifest pushes the manifest of packed layers with a config of one of its
// versions, and tags it as latest.
func (p pusher) packedManifest(r *remote.Repository, version string, layers ...v1.Descriptor) {
	p.t.Helper()
	diffIDs := []string{}
	for _, l := range layers {
		diffIDs = append(diffIDs, string(l.Digest))
	}
	config, err := json.Marshal(map[string]any{
		"config": map[string]any{
			"format": "gguf", "quantization": "F32", "parameters": "4.10 K", "architecture": "llama", "size": "16.38kB",
			"gguf": map[string]string{"general.architecture": "llama", "general.name": "one"}, "context_size": 4096,
		},
		"descriptor": map[string]any{"created": time.Unix(1750000000, 0).UTC()},
		"rootfs":     map[string]any{"type": "rootfs", "diff_ids": diffIDs},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.tag(r, "latest", v1.MediaTypeImageManifest, map[string]any{
		"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest,
		"config": p.blob(r, "application/vnd.docker.ai.model.config."+version+"+json", config), "layers": layers,
	})
}

// tag pushes a manifest or an index, and returns its descriptor.
func (p pusher) tag(r *remote.Repository, tag, mediaType string, content any) v1.Descriptor {
	p.t.Helper()
	raw, err := json.Marshal(content)
	if err != nil {
		p.t.Fatal(err)
	}
	d, err := oras.TagBytes(p.t.Context(), r, mediaType, raw, tag)
	if err != nil {
		p.t.Fatal(err)
	}
	return d
}

func adapter(t *testing.T) []byte {
	t.Helper()
	b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return file(t, b)
}

// licensed returns the bytes of a model that states its licence.
func licensed(t *testing.T) []byte {
	t.Helper()
	b := ggufgen.New("llama")
	b.Text("general.license", "apache-2.0")
	b.Tensor("a", gguf.F32, func(w io.Writer, size uint64) error {
		_, err := w.Write(make([]byte, size))
		return err
	}, 64, 64)
	return file(t, b)
}

// What Docker Model Runner packs is pulled with everything that changes its answers,
// and without what does not.
func TestPullOfDockerModelRunner(t *testing.T) {
	t.Setenv(oci.EnvDockerConfig, t.TempDir())
	p := pusher{t, serve(t, distribution(t, nil)), nil}
	const ai = "application/vnd.docker.ai."
	one, eyes, lora, template := licensed(t), projector(t), adapter(t), []byte("{{ messages }}")
	parts := [][]byte{model(t, "split", 0, 2), model(t, "split", 1, 2)}

	whole := p.repository("ai/whole") // docker model package --gguf --license --mmproj --chat-template
	p.packedManifest(whole, "v0.1", p.packed(whole, ai+"gguf.v3", "one-F32.gguf", one), p.packed(whole, ai+"license", "LICENSE", []byte("text")),
		p.packed(whole, ai+"mmproj", "eyes.mmproj", eyes), p.packed(whole, ai+"chat.template.jinja", "chat.jinja", template))
	split := p.repository("ai/split")
	p.packedManifest(split, "v0.1", p.packed(split, ai+"gguf.v3", "x-00001-of-00002.gguf", parts[0]), p.packed(split, ai+"gguf.v3", "x-00002-of-00002.gguf", parts[1]))
	dir := p.repository("ai/dir") // a directory, whose files keep their paths
	p.packedManifest(dir, "v0.2", p.packed(dir, ai+"model.file", "config.json", []byte("{}")), p.packed(dir, ai+"gguf.v3", "vision/mmproj-F16.gguf", eyes), p.packed(dir, ai+"gguf.v3", "weights/one.gguf", one))
	spec := p.repository("ai/spec") // as docker/model-spec has it: without annotations
	p.packedManifest(spec, "v0.1", p.blob(spec, ai+"gguf.v3", one), p.blob(spec, ai+"gguf.v3.mmproj", eyes), p.blob(spec, ai+"gguf.v3.lora", lora))
	cncf := p.repository("ai/cncf") // docker model package --format cncf
	const cncfModel = "application/vnd.cncf.model."
	p.manifest(cncf, "latest", cncfModel+"manifest.v1+json", cncfModel+"config.v1+json", p.packed(cncf, cncfModel+"weight.v1.raw", "one-F32.gguf", one),
		p.packed(cncf, cncfModel+"weight.v1.raw", "mmproj-F16.gguf", eyes), p.packed(cncf, cncfModel+"doc.v1.raw", "LICENSE", []byte("text")))
	several := p.repository("ai/several")
	p.packedManifest(several, "v0.2", p.packed(several, ai+"gguf.v3", "q4.gguf", one), p.packed(several, ai+"gguf.v3", "q8.gguf", model(t, "other", 0, 1)))
	index := p.repository("ai/index")
	entry := p.tag(index, "one", v1.MediaTypeImageManifest, map[string]any{
		"schemaVersion": 2, "mediaType": v1.MediaTypeImageManifest, "config": p.blob(index, ai+"model.config.v0.1+json", []byte("{}")), "layers": []v1.Descriptor{p.packed(index, ai+"gguf.v3", "one.gguf", one)},
	})
	p.tag(index, "latest", v1.MediaTypeImageIndex, map[string]any{"schemaVersion": 2, "mediaType": v1.MediaTypeImageIndex, "manifests": []v1.Descriptor{entry}})

	s, prefix := newStore(t), "oci:"+p.host+"/ai/"
	r := check(t, s, prefix+"whole", map[string][]byte{"one-F32.gguf": one, "mmproj.gguf": eyes, "template.jinja": template})
	if r != nil && (r.License != "apache-2.0" || r.Files[2].Role != modelstore.RoleTemplate) {
		t.Errorf("%+v", r)
	}
	check(t, s, prefix+"split", map[string][]byte{"model-00001-of-00002.gguf": parts[0], "model-00002-of-00002.gguf": parts[1]})
	check(t, s, prefix+"dir", map[string][]byte{"one.gguf": one, "mmproj.gguf": eyes})
	r = check(t, s, prefix+"spec", map[string][]byte{"model.gguf": one, "mmproj.gguf": eyes, "adapter-1.gguf": lora})
	if r != nil && r.Files[2].Role != modelstore.RoleAdapter {
		t.Errorf("%+v", r)
	}
	check(t, s, prefix+"cncf", map[string][]byte{"one-F32.gguf": one, "mmproj.gguf": eyes})
	check(t, s, prefix+"index@"+string(entry.Digest), map[string][]byte{"one.gguf": one})
	for name, says := range map[string]string{"several": `"q4.gguf", "q8.gguf"`, "index": string(entry.Digest)} {
		if r, err := pullName(t, s, prefix+name); !errors.Is(err, oci.ErrManifest) && !errors.Is(err, oci.ErrNotModel) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %+v, %v; want an error with %s", name, r, err, says)
		}
	}
}
