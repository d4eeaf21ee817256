package deb

import (
	"fmt"
	"os"
	"path"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/packaging/assets"
)

// bundleProvides is the virtual package that every bundle package provides, in the
// version of its llama.cpp. Bundle packages conflict with each other, because they
// install into the same directory.
const bundleProvides = "go-rocm-llama"

// defaultBundle is the bundle package that a machine gets unless another one is
// chosen.
const defaultBundle = bundleProvides + "-hip"

// newCommandPackage returns the package with the command and its service.
func newCommandPackage(o Options, v Version, c Command) (*pkg, error) {
	llama, err := llamaVersion(c.LlamaVersion)
	if err != nil {
		return nil, err
	}
	p := &pkg{
		name: "go-rocm", synopsis: "language models on AMD GPUs: command and service",
		details: []string{
			"go-rocm runs GGUF models with a supervised llama.cpp, in the terminal or as a service with an OpenAI-compatible API on 127.0.0.1.",
			"The service is disabled until it has a model; see /etc/go-rocm/config.toml. llama.cpp itself is in a separate package: " + defaultBundle + ", or another package that provides " + bundleProvides + ".",
		},
		depends: []string{
			"passwd", // useradd, for machines without systemd-sysusers
			// The first alternative is the default; the second dependency sets the
			// version that any of them needs.
			defaultBundle + " | " + bundleProvides,
			bundleProvides + " (>= " + llama + ")",
		},
		// dpkg triggers the postinst after a bundle has changed, to restart the service.
		interest: []string{installedBundle},
	}
	if err := p.addCommand(c); err != nil {
		return nil, err
	}
	t, err := commandTerms(c)
	if err != nil {
		return nil, err
	}
	changes, err := commandChangelog(o, v)
	if err != nil {
		return nil, err
	}
	// https://www.debian.org/doc/debian-policy/ch-maintainerscripts.html
	return p, p.finish(o, t, changes, map[string]string{
		"postinst": "go-rocm.postinst", "prerm": "go-rocm.prerm", "postrm": "go-rocm.postrm",
	})
}

// addCommand adds the files of the command and its service.
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
	for _, name := range []string{"dashboard.json", "alerts.yml"} {
		text, err := assets.Monitoring.ReadFile("monitoring/" + name)
		if err != nil {
			return err
		}
		p.entries = append(p.entries, entry{path: path.Join("/usr/share/go-rocm/monitoring", name), text: text, mode: 0o644})
	}
	manual, err := manualEntries(c.Manual)
	if err != nil {
		return err
	}
	p.entries = append(p.entries, manual...)
	p.overrides = append(p.overrides, commandOverrides()...)
	return nil
}

// manualDirs maps the subdirectories of Command.Manual to where they are installed.
func manualDirs() []struct{ from, to string } {
	return []struct{ from, to string }{
		{"man1", "/usr/share/man/man1"},
		{"bash", "/usr/share/bash-completion/completions"},
		{"zsh", "/usr/share/zsh/vendor-completions"},
		{"fish", "/usr/share/fish/vendor_completions.d"},
	}
}

// manualEntries returns the compressed man pages and the shell completions.
func manualEntries(manual string) ([]entry, error) {
	var out []entry
	for _, d := range manualDirs() {
		dir := filepath.Join(manual, d.from)
		files, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("%w: manual: %w: write it with packaging/manual", ErrOptions, err)
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: manual: %s is empty: write it with packaging/manual", ErrOptions, dir)
		}
		for _, f := range files {
			text, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				return nil, fmt.Errorf("read the manual: %w", err)
			}
			name := f.Name()
			if d.from == "man1" {
				if text, err = compress(text); err != nil {
					return nil, err
				}
				name += ".gz"
			}
			out = append(out, entry{path: path.Join(d.to, name), text: text, mode: 0o644})
		}
	}
	return out, nil
}
