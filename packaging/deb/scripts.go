package deb

import (
	"bytes"
	"fmt"
	"text/template"

	"forge.lthn.ai/core/go-rocm/packaging/assets"
)

// scriptParts says what a package holds, and so what its scripts must see to.
type scriptParts struct {
	Command bool // the command with its service
	Bundle  bool // the bundle
}

// maintainerScripts gives the scripts of a package by name
// (https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html).
func maintainerScripts(parts scriptParts) (map[string][]byte, error) {
	source, err := readAsset("postinst.tmpl")
	if err != nil {
		return nil, err
	}
	t, err := template.New("postinst").Parse(string(source))
	if err != nil {
		return nil, fmt.Errorf("read the postinst template: %w", err)
	}
	var postinst bytes.Buffer
	if err := t.Execute(&postinst, parts); err != nil {
		return nil, fmt.Errorf("make postinst: %w", err)
	}
	out := map[string][]byte{"postinst": postinst.Bytes()}
	if !parts.Command {
		return out, nil
	}
	for _, name := range []string{"prerm", "postrm"} {
		if out[name], err = readAsset("go-rocm." + name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func readAsset(name string) ([]byte, error) {
	b, err := assets.Debian.ReadFile("debian/" + name)
	if err != nil {
		return nil, fmt.Errorf("read the asset %s: %w", name, err)
	}
	return b, nil
}
