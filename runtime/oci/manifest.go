package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
)

// Kind says what a layer is for.
type Kind int

// Kinds of layers.
const (
	KindModel     Kind = iota // the model, or a part of a split one
	KindProjector             // for images or audio
	KindAdapter               // a LoRA adapter, which changes what the model answers
	KindTemplate              // a chat template, which replaces the model's own
	noKind                    // a licence, parameters of another program, and others
)

// kinds are the media types of layers: those of Docker Model Runner (of its
// specification docker/model-spec and of its program, which differ), of ollama, and
// of the CNCF's model specification, with one that only Docker Model Runner writes.
var kinds = map[string]Kind{
	"application/vnd.docker.ai.gguf.v3":             KindModel,
	"application/vnd.docker.ai.gguf.v3.mmproj":      KindProjector,
	"application/vnd.docker.ai.mmproj":              KindProjector,
	"application/vnd.docker.ai.gguf.v3.lora":        KindAdapter,
	"application/vnd.docker.ai.chat.template.jinja": KindTemplate,
	"application/vnd.ollama.image.model":            KindModel,
	"application/vnd.ollama.image.projector":        KindProjector,
	"application/vnd.ollama.image.adapter":          KindAdapter,
	"application/vnd.cncf.model.weight.v1.gguf":     KindModel,
	cncfWeights: KindModel,
}

// cncfWeights are weights in any format, which the file's name says.
const cncfWeights = "application/vnd.cncf.model.weight.v1.raw"

// kindOf returns the kind of a layer with a file name, which may be empty. Programs
// that pack the files of a directory give projectors the media type of models.
func kindOf(mediaType, name string) Kind {
	kind, ok := kinds[mediaType]
	switch {
	case !ok, mediaType == cncfWeights && !strings.HasSuffix(name, ".gguf"):
		return noKind
	case kind == KindModel && strings.Contains(strings.ToLower(name), "mmproj"):
		return KindProjector
	}
	return kind
}

// Layer is a file of a model.
type Layer struct {
	Name   string // a file name
	Kind   Kind
	URL    string
	Size   int64
	SHA256 string
}

// Artifact is a model in a registry.
type Artifact struct {
	Digest string  // of the manifest, as sha256:HEX
	Layers []Layer // the model, or the parts of a split one in order, then the others
}

// manifest is an image manifest of the OCI or of Docker, or an index of manifests.
type manifest struct {
	MediaType string `json:"mediaType"`
	Layers    []struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations"`
	} `json:"layers"`
	Manifests []struct {
		Digest string `json:"digest"`
	} `json:"manifests"`
}

// ParseManifest returns the artifact of a manifest, which must have the digest that
// the reference names, if it names one.
func ParseManifest(ref modelref.Ref, raw []byte) (*Artifact, error) {
	sum := sha256.Sum256(raw)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	if strings.HasPrefix(ref.Tag, "sha256:") && digest != ref.Tag {
		return nil, fmt.Errorf("%w: the manifest is %s, want %s", download.ErrDigest, digest, ref.Tag)
	}
	layers, err := parseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	at := repository(address(ref), ref).JoinPath("blobs")
	for i := range layers {
		layers[i].URL = at.JoinPath("sha256:" + layers[i].SHA256).String()
	}
	return &Artifact{Digest: digest, Layers: layers}, nil
}

// parseManifest returns the files of a model, without their URLs.
func parseManifest(raw []byte) ([]Layer, error) {
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if len(m.Manifests) > 0 {
		return nil, m.describeIndex()
	}
	layers := map[Kind][]Layer{}
	for _, l := range m.Layers {
		title := l.Annotations["org.cncf.model.filepath"]
		if title == "" {
			title = l.Annotations["org.opencontainers.image.title"]
		}
		sum, ok := strings.CutPrefix(l.Digest, "sha256:")
		layer := Layer{Name: path.Base(title), Size: l.Size, SHA256: sum}
		if layer.Kind = kindOf(l.MediaType, layer.Name); layer.Kind == noKind {
			continue
		}
		if !ok || !modelref.ValidSHA256(sum) || l.Size <= 0 {
			return nil, fmt.Errorf("%w: a layer of %d bytes has the digest %.80q", ErrManifest, l.Size, l.Digest)
		}
		if !slices.ContainsFunc(layers[layer.Kind], func(other Layer) bool { return other.SHA256 == sum }) {
			layers[layer.Kind] = append(layers[layer.Kind], layer)
		}
	}
	models, err := nameModels(layers[KindModel])
	if err != nil {
		return nil, err
	}
	for i := range layers[KindAdapter] {
		layers[KindAdapter][i].Name = fmt.Sprintf("adapter-%d.gguf", i+1)
	}
	// llama-server loads one projector and one template.
	return slices.Concat(models, first(layers[KindProjector], "mmproj.gguf"), layers[KindAdapter], first(layers[KindTemplate], "template.jinja")), nil
}

// describeIndex returns the error about an index, which lists artifacts of which one
// must be chosen.
func (m *manifest) describeIndex() error {
	const most = 10
	var digests []string
	for i, each := range m.Manifests {
		if i == most {
			digests = append(digests, fmt.Sprintf("%d more", len(m.Manifests)-most))
			break
		}
		digests = append(digests, fmt.Sprintf("%.80q", each.Digest))
	}
	return fmt.Errorf("%w: it is an index of several; name one as oci:REGISTRY/NAME@DIGEST, with one of %s", ErrNotModel, strings.Join(digests, ", "))
}

// first returns the first of several layers under another name.
func first(layers []Layer, name string) []Layer {
	if len(layers) == 0 {
		return nil
	}
	layers[0].Name = name
	return layers[:1]
}

// nameModels names a model, or the parts of one as llama.cpp looks for them. Parts
// have the order of their numbers, if they have names, and else that of the manifest.
// Files that are not the parts of one model are an error.
func nameModels(models []Layer) ([]Layer, error) {
	switch {
	case len(models) == 0:
		return nil, ErrNotModel
	case len(models) == 1:
		if n := models[0].Name; !modelref.ValidFile(n) || !strings.HasSuffix(n, ".gguf") || n == "mmproj.gguf" || strings.HasPrefix(n, "adapter-") {
			models[0].Name = "model.gguf"
		}
		return models, nil
	}
	ordered := make([]Layer, len(models))
	var names []string
	named := 0
	for i, m := range models {
		names = append(names, fmt.Sprintf("%.80q", m.Name))
		_, no, count, ok := gguf.SplitName(m.Name)
		switch {
		case m.Name == ".": // of an empty path
			ordered[i] = m
		case ok && count == len(models):
			ordered[no-1] = m
			named++
		}
	}
	for i, m := range ordered {
		if m.SHA256 == "" || named != 0 && named != len(models) {
			return nil, fmt.Errorf("%w: its models are not the parts of one: %s", ErrManifest, strings.Join(names, ", "))
		}
		ordered[i].Name = fmt.Sprintf("model-%05d-of-%05d.gguf", i+1, len(models))
	}
	return ordered, nil
}
