package apt

import (
	"fmt"
	"strings"
)

const (
	// sourcesName is the file for /etc/apt/sources.list.d.
	sourcesName = "go-rocm.sources"
	// KeyringFile is the file with the keys, not armoured, at the top of a signed
	// repository.
	KeyringFile = "go-rocm-archive-keyring.gpg"
	// keyringDir is where the package with the keys puts them.
	keyringDir = "/usr/share/keyrings/"
)

// sources tells apt of the repository, in the form of sources.list(5) that is
// called deb822.
func sources(o Options) []byte {
	p := paragraph{
		{"Types", "deb"},
		{"URIs", strings.TrimRight(o.URL, "/") + "/"},
		{"Suites", o.Suite},
		{"Components", component},
		{"Architectures", architecture},
	}
	if o.Keys == nil {
		return fmt.Appendf(nil, "# Nothing in this repository is signed: whoever is between it and you can change it.\n%sTrusted: yes\n", p)
	}
	return []byte(append(p, field{"Signed-By", keyringDir + KeyringFile}).String())
}
