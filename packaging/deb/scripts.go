package deb

import (
	"fmt"

	"forge.lthn.ai/core/go-rocm/packaging/assets"
)

// commandScripts are the maintainer scripts of the package with the command, by
// name, each with its asset
// (https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html).
func commandScripts() map[string]string {
	return map[string]string{"postinst": "go-rocm.postinst", "prerm": "go-rocm.prerm", "postrm": "go-rocm.postrm"}
}

// bundleScripts are those of a package with a bundle.
func bundleScripts() map[string]string {
	return map[string]string{"postinst": "go-rocm-llama.postinst"}
}

func readAsset(name string) ([]byte, error) {
	b, err := assets.Debian.ReadFile("debian/" + name)
	if err != nil {
		return nil, fmt.Errorf("read the asset %s: %w", name, err)
	}
	return b, nil
}
