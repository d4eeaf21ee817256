package deb

import (
	"fmt"
	"os"
	"path"
	"slices"
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
	entries   []entry
	scripts   map[string][]byte // by maintainer script name
	overrides []override        // lintian tags that are answered
}

// providedBundle is the virtual name under which packages with a bundle are to
// be had; no two of them share a machine, since they share a folder.
const providedBundle = "go-rocm-llama"

// describe gives the packages of the layout that o asks for.
func describe(o Options, v Version, b *unpacked) ([]pkg, error) {
	terms, err := gatherTerms(o, b)
	if err != nil {
		return nil, err
	}
	command := pkg{name: "go-rocm", synopsis: "language models on AMD GPUs: command and service"}
	llama := pkg{name: "go-rocm-llama-" + b.label(), synopsis: "llama.cpp bundle for go-rocm, variant " + b.label()}

	if err := command.addCommand(o); err != nil {
		return nil, err
	}
	if !o.Split {
		command.addBundle(b)
		command.details = append(commandDetails(), bundleDetails(b)...)
		if err := command.finish(o, v, scriptParts{Command: true, Bundle: true}, terms.all()); err != nil {
			return nil, err
		}
		return []pkg{command}, nil
	}

	command.details = commandDetails()
	command.depends = append(command.depends, "go-rocm-llama-hip | "+providedBundle)
	if err := command.finish(o, v, scriptParts{Command: true}, terms.command()); err != nil {
		return nil, err
	}
	llama.addBundle(b)
	llama.details = bundleDetails(b)
	if err := llama.finish(o, v, scriptParts{Bundle: true}, terms.bundle()); err != nil {
		return nil, err
	}
	return []pkg{command, llama}, nil
}

func commandDetails() []string {
	return []string{
		"go-rocm runs GGUF models with llama.cpp, supervised, in the terminal or as a service with an OpenAI-compatible interface on 127.0.0.1.",
		"The service is installed switched off; see /etc/go-rocm/config.toml.",
	}
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
func (p *pkg) addCommand(o Options) error {
	// useradd, for machines without systemd-sysusers.
	p.depends = append(p.depends, "passwd")
	p.entries = append(p.entries, entry{path: "/usr/bin/go-rocm", from: o.Command, mode: 0o755})
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
	manual, err := manualEntries(o)
	if err != nil {
		return err
	}
	p.entries = append(p.entries, manual...)
	p.overrides = append(p.overrides, commandOverrides()...)
	return nil
}

// addBundle puts in the bundle and says which packages it cannot stand beside.
func (p *pkg) addBundle(b *unpacked) {
	p.entries = append(p.entries, b.entries()...)
	if b.manifest.Host != nil {
		for _, l := range b.manifest.Host.Libraries {
			held := slices.DeleteFunc([]string{l.Debian, l.AMD}, func(name string) bool { return name == "" })
			if len(held) > 0 {
				p.recommend = append(p.recommend, strings.Join(held, " | "))
			}
		}
	}
	p.provides = append(p.provides, providedBundle)
	p.conflicts = append(p.conflicts, providedBundle)
	p.replaces = append(p.replaces, providedBundle)
	p.overrides = append(p.overrides, bundleOverrides(b)...)
}

// finish puts in what every package has: documents, overrides and scripts.
func (p *pkg) finish(o Options, v Version, parts scriptParts, t terms) error {
	var err error
	if p.scripts, err = maintainerScripts(parts); err != nil {
		return err
	}
	changes, err := changelog(p.name, o, v)
	if err != nil {
		return err
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
