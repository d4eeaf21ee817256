package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/testing/fakeregistry"
)

// layer describes a layer whose digest repeats one byte.
func layer(mediaType, name string, b byte) fakeregistry.Layer {
	l := fakeregistry.Layer{MediaType: mediaType, Digest: "sha256:" + strings.Repeat(fmt.Sprintf("%02x", b), 32), Size: int64(b)}
	if name != "" {
		l.Annotations = map[string]string{"org.cncf.model.filepath": name}
	}
	return l
}

// Manifests as the documents of their makers and their programs write them: what each
// layer becomes.
func TestLayersOfManifests(t *testing.T) {
	const docker, ollama, cncf = "application/vnd.docker.ai.", "application/vnd.ollama.image.", "application/vnd.cncf.model."
	for name, c := range map[string]struct {
		layers []fakeregistry.Layer
		want   []string
	}{
		"docker, as in its specification": {
			[]fakeregistry.Layer{layer(docker+"gguf.v3", "", 1), layer(docker+"license", "", 2)},
			[]string{"model.gguf 1 model"},
		},
		"docker, projector and adapter of its specification": {
			[]fakeregistry.Layer{layer(docker+"gguf.v3.mmproj", "", 1), layer(docker+"gguf.v3.lora", "", 2), layer(docker+"gguf.v3.lora", "", 3), layer(docker+"gguf.v3", "", 4)},
			[]string{"model.gguf 4 model", "mmproj.gguf 1 projector", "adapter-1.gguf 2 adapter", "adapter-2.gguf 3 adapter"},
		},
		"docker model package": {
			[]fakeregistry.Layer{
				layer(docker+"gguf.v3", "tiny-Q8_0.gguf", 1), layer(docker+"license", "license.txt", 2), layer(docker+"mmproj", "dummy.mmproj", 3),
				layer(docker+"chat.template.jinja", "template.jinja", 4), layer(docker+"dir.tar", "", 5),
			},
			[]string{"tiny-Q8_0.gguf 1 model", "mmproj.gguf 3 projector", "template.jinja 4 template"},
		},
		"docker, a directory with a projector": { // of the media type of models
			[]fakeregistry.Layer{layer(docker+"model.file", "README.md", 1), layer(docker+"gguf.v3", "gguf/mmproj-F16.gguf", 2), layer(docker+"gguf.v3", "gguf/tiny.gguf", 3)},
			[]string{"tiny.gguf 3 model", "mmproj.gguf 2 projector"},
		},
		"docker, parts without names": {
			[]fakeregistry.Layer{layer(docker+"gguf.v3", "", 2), layer(docker+"gguf.v3", "", 1)},
			[]string{"model-00001-of-00002.gguf 2 model", "model-00002-of-00002.gguf 1 model"},
		},
		"docker, parts in another order": {
			[]fakeregistry.Layer{layer(docker+"gguf.v3", "d/x-00002-of-00002.gguf", 2), layer(docker+"gguf.v3", "d/x-00001-of-00002.gguf", 1)},
			[]string{"model-00001-of-00002.gguf 1 model", "model-00002-of-00002.gguf 2 model"},
		},
		"a name that is an option": {[]fakeregistry.Layer{layer(docker+"gguf.v3", "d/-x.gguf", 1)}, []string{"model.gguf 1 model"}},
		"a name with a directory":  {[]fakeregistry.Layer{layer(docker+"gguf.v3", `..\..\x.gguf`, 1)}, []string{"model.gguf 1 model"}},
		"docker, a layer that is listed twice": {
			[]fakeregistry.Layer{layer(docker+"gguf.v3", "x.gguf", 1), layer(docker+"gguf.v3", "x.gguf", 1)},
			[]string{"x.gguf 1 model"},
		},
		"docker in the form of the CNCF": {
			[]fakeregistry.Layer{
				layer(cncf+"weight.v1.raw", "x.gguf", 1), layer(cncf+"weight.v1.raw", "../up/model.mmproj", 2), layer(cncf+"weight.config.v1.raw", "template.jinja", 3), layer(cncf+"doc.v1.raw", "LICENSE", 4),
				layer(cncf+"weight.v1.raw", "mmproj.gguf", 5),
			},
			[]string{"x.gguf 1 model", "mmproj.gguf 5 projector"},
		},
		"docker's older form of the CNCF": {
			[]fakeregistry.Layer{layer(cncf+"weight.v1.gguf", "", 1)},
			[]string{"model.gguf 1 model"},
		},
		"ollama": {
			[]fakeregistry.Layer{
				layer(ollama+"model", "", 1), layer(ollama+"projector", "", 2), layer(ollama+"projector", "", 3), layer(ollama+"license", "", 4), layer(ollama+"license", "", 5),
				layer(ollama+"template", "", 6), layer(ollama+"system", "", 7), layer(ollama+"params", "", 8), layer(ollama+"messages", "", 9), layer(ollama+"draft", "", 10),
			},
			[]string{"model.gguf 1 model", "mmproj.gguf 2 projector"},
		},
		"ollama with an adapter": {
			[]fakeregistry.Layer{layer(ollama+"model", "", 1), layer(ollama+"adapter", "", 2)},
			[]string{"model.gguf 1 model", "adapter-1.gguf 2 adapter"},
		},
	} {
		raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "layers": c.layers})
		if err != nil {
			t.Fatal(err)
		}
		layers, err := parseManifest(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, l := range layers {
			got = append(got, fmt.Sprintf("%s %d %s", l.Name, l.Size, []string{"model", "projector", "adapter", "template"}[l.Kind]))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Manifests without one GGUF model are errors that say what there is.
func TestManifestsWithoutOneModel(t *testing.T) {
	const docker = "application/vnd.docker.ai."
	for name, c := range map[string]struct {
		layers []fakeregistry.Layer
		want   error
		says   string
	}{
		"safetensors":           {[]fakeregistry.Layer{layer(docker+"safetensors", "model.safetensors", 1), layer("application/vnd.cncf.model.weight.v1.raw", "model.safetensors", 2)}, ErrNotModel, ""},
		"ollama's tensors":      {[]fakeregistry.Layer{layer("application/vnd.ollama.image.tensor", "", 1), layer("application/vnd.ollama.image.json", "", 2)}, ErrNotModel, ""},
		"a projector":           {[]fakeregistry.Layer{layer(docker+"mmproj", "", 1)}, ErrNotModel, ""},
		"two models":            {[]fakeregistry.Layer{layer(docker+"gguf.v3", "q4.gguf", 1), layer(docker+"gguf.v3", "q8.gguf", 2)}, ErrManifest, `"q4.gguf", "q8.gguf"`},
		"a missing part":        {[]fakeregistry.Layer{layer(docker+"gguf.v3", "x-00001-of-00003.gguf", 1), layer(docker+"gguf.v3", "x-00003-of-00003.gguf", 2)}, ErrManifest, "00003"},
		"a part twice":          {[]fakeregistry.Layer{layer(docker+"gguf.v3", "x-00001-of-00002.gguf", 1), layer(docker+"gguf.v3", "y-00001-of-00002.gguf", 2)}, ErrManifest, "y-00001"},
		"a part without a name": {[]fakeregistry.Layer{layer(docker+"gguf.v3", "x-00001-of-00002.gguf", 1), layer(docker+"gguf.v3", "", 2)}, ErrManifest, "x-00001"},
	} {
		raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "layers": c.layers})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseManifest(raw); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want %v with %q", name, got, err, c.want, c.says)
		}
	}
	index := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"sha256:ab"},{"digest":"sha256:cd"}]}`
	if got, err := parseManifest([]byte(index)); !errors.Is(err, ErrNotModel) || !strings.Contains(err.Error(), `"sha256:ab", "sha256:cd"`) {
		t.Errorf("an index: %+v, %v", got, err)
	}
}
