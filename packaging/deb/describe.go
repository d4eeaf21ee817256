package deb

import (
	"fmt"
	"os"
	"path"
	"strings"
)

// entry is one file of a package: from a path on disk, or with text made here.
type entry struct {
	path string      // absolute, where it is installed
	from string      // on disk; empty when text is meant
	text []byte      // the content when from is empty
	mode os.FileMode // permission bits
	conf bool        // a conffile: dpkg keeps the administrator's changes
}

// pkg describes one binary package.
type pkg struct {
	name      string
	arch      string // "amd64" when empty
	section   string // "science" when empty
	synopsis  string
	details   []string // paragraphs of the description
	depends   []string
	recommend []string
	provides  []string
	conflicts []string
	replaces  []string
	interest  []string // paths whose change the package is told of by dpkg
	entries   []entry
	scripts   map[string][]byte // by maintainer script name
	overrides []override        // lintian tags that are answered
}

// providedBundle is the virtual name under which packages with a bundle are to
// be had, in the version of their llama.cpp; no two of them share a machine,
// since they share a folder.
const providedBundle = "go-rocm-llama"

// defaultBundle is the package with a bundle that a machine gets when nobody
// chose another.
const defaultBundle = providedBundle + "-hip"

// describeCommand is the package with the command and its service.
func describeCommand(o Options, v Version, c Command) (*pkg, error) {
	llama, err := llamaVersion(c.LlamaVersion)
	if err != nil {
		return nil, err
	}
	p := &pkg{
		name: "go-rocm", synopsis: "language models on AMD GPUs: command and service",
		details: []string{
			"go-rocm runs GGUF models with llama.cpp, supervised, in the terminal or as a service with an OpenAI-compatible interface on 127.0.0.1.",
			"The service is installed switched off; see /etc/go-rocm/config.toml. llama.cpp itself is in a package of its own, " + defaultBundle + " unless another is installed.",
		},
		depends: []string{
			"passwd", // useradd, for machines without systemd-sysusers
			// The first names what to take where there is none, the second which do.
			defaultBundle + " | " + providedBundle,
			providedBundle + " (>= " + llama + ")",
		},
		// The service goes on with another bundle once all is in place.
		interest: []string{installedBundle},
	}
	if err := p.addCommand(c); err != nil {
		return nil, err
	}
	t, err := commandTerms(c)
	if err != nil {
		return nil, err
	}
	changes, err := changelog(o, v)
	if err != nil {
		return nil, err
	}
	return p, p.finish(o, t, changes, commandScripts())
}

// describeBundle is the package with a bundle.
func describeBundle(o Options, v Version, b *unpacked) (*pkg, error) {
	llama, err := llamaVersion(b.manifest.Version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	p := &pkg{
		name:      BundlePackageName(b.manifest),
		synopsis:  "llama.cpp bundle for go-rocm, variant " + label(b.manifest),
		details:   append(bundleDetails(b), "Its content is: sha256:"+b.manifest.Digest()),
		provides:  []string{providedBundle + " (= " + llama + ")"},
		conflicts: []string{providedBundle},
		replaces:  []string{providedBundle},
		entries:   b.entries(),
		overrides: bundleOverrides(b),
		recommend: b.hostPackages(),
	}
	t, err := bundleTerms(b)
	if err != nil {
		return nil, err
	}
	changes, err := bundleChangelog(p.name, o, v, b)
	if err != nil {
		return nil, err
	}
	return p, p.finish(o, t, changes, bundleScripts())
}

func bundleDetails(b *unpacked) []string {
	if h := b.manifest.Host; h != nil {
		major, _, _ := strings.Cut(h.ROCm, ".")
		return []string{
			fmt.Sprintf("The bundle holds llama.cpp %s with the C library, and takes ROCm %s.x from the machine, from Debian's packages or AMD's; without it models run on the CPU. It runs on x86-64 alone. GPU targets: %s.",
				b.manifest.Version, major, b.targets()),
		}
	}
	return []string{
		fmt.Sprintf("The bundle holds llama.cpp %s with all the libraries that it needs, the C library included; only the kernel's amdgpu driver is the machine's own. It runs on x86-64 alone. GPU targets: %s.",
			b.manifest.Version, b.targets()),
	}
}

// addCommand puts in what the command and its service need.
func (p *pkg) addCommand(c Command) error {
	p.entries = append(p.entries, entry{path: "/usr/bin/go-rocm", from: c.Program, mode: 0o755})
	for _, f := range []struct {
		asset, path string
		mode        os.FileMode
		conf        bool
	}{
		{"go-rocm.service", "/usr/lib/systemd/system/go-rocm.service", 0o644, false},
		{"go-rocm.sysusers", "/usr/lib/sysusers.d/go-rocm.conf", 0o644, false},
		{"go-rocm.tmpfiles", "/usr/lib/tmpfiles.d/go-rocm.conf", 0o644, false},
		{"config.toml", "/etc/go-rocm/config.toml", 0o644, true},
	} {
		text, err := readAsset(f.asset)
		if err != nil {
			return err
		}
		p.entries = append(p.entries, entry{path: f.path, text: text, mode: f.mode, conf: f.conf})
	}
	manual, err := manualEntries(c.Manual)
	if err != nil {
		return err
	}
	p.entries = append(p.entries, manual...)
	p.overrides = append(p.overrides, commandOverrides()...)
	return nil
}

// finish puts in what every package has: documents, overrides and scripts, these
// by the names of their assets.
func (p *pkg) finish(o Options, t terms, changes []byte, scripts map[string]string) error {
	p.scripts = map[string][]byte{}
	for name, asset := range scripts {
		text, err := readAsset(asset)
		if err != nil {
			return err
		}
		p.scripts[name] = text
	}
	doc := path.Join("/usr/share/doc", p.name)
	p.entries = append(p.entries,
		entry{path: path.Join(doc, "copyright"), text: t.copyright(o.Epoch), mode: 0o644},
		entry{path: path.Join(doc, "changelog.Debian.gz"), text: changes, mode: 0o644},
	)
	p.overrides = append(p.overrides, packageOverrides()...)
	p.addOverrides()
	return nil
}

// addOverrides puts in the answers to lintian.
func (p *pkg) addOverrides() {
	p.entries = append(p.entries, entry{
		path: path.Join("/usr/share/lintian/overrides", p.name),
		text: overridesFile(p.name, p.overrides),
		mode: 0o644,
	})
}

// description is the control field: the synopsis, then the paragraphs folded at
// 78 columns with a lone dot between them.
func (p *pkg) description() string {
	var b strings.Builder
	b.WriteString(p.synopsis)
	for i, para := range p.details {
		if i > 0 {
			b.WriteString("\n.")
		}
		for _, line := range fold(para, 78) {
			b.WriteString("\n" + line)
		}
	}
	return b.String()
}

// fold breaks text at blanks into lines of at most width bytes; a word longer
// than that has a line of its own.
func fold(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
