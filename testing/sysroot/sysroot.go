// Package sysroot writes the trees of kernel files that stand for other machines in
// tests: what /sys and /proc contain on machines with different GPUs, or without.
//
// Each NAME.txtar beside this file describes one machine. A file X.hex in it holds
// the bytes of X in hexadecimal.
package sysroot

import (
	"embed"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

//go:embed *.txtar vulkan/*.txtar
var machines embed.FS

// Names returns the names of all machines, sorted.
func Names() []string {
	entries, err := machines.ReadDir(".")
	if err != nil {
		panic(err) // an embedded directory can always be read
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		names = append(names, strings.TrimSuffix(e.Name(), ".txtar"))
	}
	return names
}

// VulkanDrivers returns the files of packages with Vulkan drivers, for [Write]: manifests with
// the facts of the packages' own, and libraries without content. Each vulkan/NAME.txtar
// beside this file is a package.
func VulkanDrivers(t testing.TB, names ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range names {
		text, err := machines.ReadFile("vulkan/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(text).Files {
			files[f.Name] = string(f.Data)
		}
	}
	return files
}

// Write writes the files of a machine and then more files, by their paths without the
// leading slash, into a directory that the test removes. It returns the directory. An
// empty name writes the other files alone. A path that ends in "->" becomes a symbolic
// link to the content.
func Write(t testing.TB, name string, more map[string]string) string {
	t.Helper()
	root := t.TempDir()
	if name != "" {
		text, err := machines.ReadFile(name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(text).Files {
			write(t, root, f.Name, string(f.Data))
		}
	}
	for path, text := range more {
		write(t, root, path, text)
	}
	return root
}

func write(t testing.TB, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if link, ok := strings.CutSuffix(path, "->"); ok {
		if err := os.Symlink(text, link); err != nil {
			t.Fatal(err)
		}
		return
	}
	data := []byte(text)
	if binary, ok := strings.CutSuffix(path, ".hex"); ok {
		var err error
		if data, err = hex.DecodeString(strings.Join(strings.Fields(text), "")); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path = binary
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
