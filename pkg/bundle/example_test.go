package bundle_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// A directory becomes one packed file, and unpacks to an equal directory.
func ExamplePack() {
	dir, err := os.MkdirTemp("", "bundle-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	for path, content := range map[string]string{"llama-server": "a program", "kernels_gfx1100.co": "code", "kernels_gfx1101.co": "other code"} {
		if err := writeFile(filepath.Join(from, path), content); err != nil {
			fmt.Println(err)
			return
		}
	}

	manifest, err := bundle.Build(from, bundle.Manifest{
		Name: "llama-example", Variant: "hip", Flavour: bundle.FlavourSystem, Version: "v0.0.1",
		Targets: []gfx.Target{"gfx1100", "gfx1101"}, Entry: bundle.Entry{Program: "llama-server"},
		Source: bundle.Source{Tag: "v0.0.1"}, SourceDateEpoch: 1_700_000_000,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(context.Background(), &packed, from, manifest, bundle.PackOptions{}); err != nil {
		fmt.Println(err)
		return
	}

	reader, err := bundle.Open(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
	if err != nil {
		fmt.Println(err)
		return
	}
	card := []gfx.Target{"gfx1100"}
	if err := unpackTo(reader, to, card); err != nil {
		fmt.Println(err)
		return
	}
	names, err := os.ReadDir(to)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range names {
		fmt.Println(n.Name())
	}
	fmt.Println(bundle.VerifyTargets(context.Background(), to, reader.Manifest(), card))
	// Output:
	// kernels_gfx1100.co
	// llama-server
	// manifest.json
	// <nil>
}

func writeFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o700)
}

// unpackTo unpacks the core files and those of the targets.
func unpackTo(r *bundle.Reader, dir string, targets []gfx.Target) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if err := r.Extract(context.Background(), root, bundle.ExtractOptions{Select: bundle.ForTargets(targets)}); err != nil {
		return err
	}
	return r.WriteManifest(root, false)
}
