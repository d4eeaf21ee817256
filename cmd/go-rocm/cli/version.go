package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

// buildInfo describes the program.
type buildInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// bundleInfo describes the bundle that the program would use.
type bundleInfo struct {
	Origin    locate.Origin    `json:"origin"`
	Path      string           `json:"path,omitempty"`
	Name      string           `json:"name,omitempty"`
	Variant   string           `json:"variant,omitempty"`
	Flavour   string           `json:"flavour,omitempty"`
	Version   string           `json:"version,omitempty"`
	Digest    string           `json:"digest,omitempty"`
	Targets   []gfx.Target     `json:"targets,omitempty"`
	Source    bundle.Source    `json:"source,omitzero"`
	Toolchain bundle.Toolchain `json:"toolchain,omitzero"`
	Files     int              `json:"files,omitempty"`
	Bytes     int64            `json:"bytes,omitempty"`
}

// versionInfo is the output of version.
type versionInfo struct {
	buildInfo
	Bundle      *bundleInfo `json:"bundle,omitempty"`
	BundleError string      `json:"bundle_error,omitempty"`
	*provenance             // with --all
}

func versionCommand(version string) *cobra.Command {
	var asJSON, all bool
	var path, config string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "print the versions of the program and its bundle",
		Long: `Prints the versions of the program and of the bundle that it would use. --all adds
the digests of the pulled models, of the lock file that "go-rocm models lock" writes
of them, and of the configuration file: with the bundle's digest, everything that the
answers of a service depend on. The models' digests are those that were computed when
they were pulled; "go-rocm models verify" reads the files again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info := versionInfo{buildInfo: readBuildInfo(version)}
			b, err := locate.Find(path)
			if err != nil {
				info.BundleError = err.Error()
			} else {
				defer func() { _ = b.Close() }()
				info.Bundle = readBundleInfo(b)
			}
			if all || config != "" {
				if info.provenance, err = readProvenance(config); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			info.print(stdout(cmd))
			if info.provenance != nil {
				info.provenance.print(stdout(cmd))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, including the toolchain's packages")
	cmd.Flags().BoolVar(&all, "all", false, "print the digests of the pulled models and of the configuration file, too")
	cmd.Flags().StringVar(&config, "config", "", "with --all: the configuration file (default: "+defaultConfig+", if it exists)")
	cmd.Flags().StringVar(&path, "bundle", "", "describe this bundle instead of the default one")
	return cmd
}

func readBuildInfo(version string) buildInfo {
	b := buildInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func readBundleInfo(b *locate.Bundle) *bundleInfo {
	info := &bundleInfo{Origin: b.Origin, Path: b.Path}
	if m := b.Manifest; m != nil {
		info.Name, info.Variant, info.Flavour, info.Version, info.Digest = m.Name, m.Variant, m.Flavour, m.Version, m.Digest()
		info.Targets, info.Source, info.Toolchain, info.Files, info.Bytes = m.Targets, m.Source, m.Toolchain, len(m.Files), m.Size()
	}
	return info
}

func (v *versionInfo) print(w io.Writer) {
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("go-rocm", "%s (%s, %s)", v.Version, v.Platform, v.Go)
	if v.Revision != "" {
		modified := ""
		if v.Modified {
			modified = ", modified"
		}
		row("revision", "%s%s", v.Revision, modified)
	}
	b := v.Bundle
	if b == nil {
		row("bundle", "none: %s", v.BundleError)
		return
	}
	where := string(b.Origin)
	if b.Path != "" {
		where += ", " + b.Path
	}
	if b.Digest == "" {
		row("bundle", "without a manifest (%s)", where)
		return
	}
	row("bundle", "%s %s (%s)", b.Name, b.Version, where)
	row("digest", "%s", b.Digest)
	row("source", "llama.cpp %s, tree %s", b.Source.Tag, b.Source.Tree)
	row("variant", "%s, %s", b.Variant, b.Flavour)
	if len(b.Targets) > 0 {
		row("targets", "%s", gfx.Join(b.Targets, ", "))
	}
	row("toolchain", "%s, %d packages", b.Toolchain.Kind, len(b.Toolchain.Packages))
	row("size", "%d files, %s", b.Files, formatSize(b.Bytes))
}

// provenance is what the answers of a service depend on, besides the bundle: the
// bytes of the pulled models and of the settings.
type provenance struct {
	Models []modelstore.Record `json:"models"`
	// Lock is the SHA-256 of the file that "go-rocm models lock" writes.
	Lock     string        `json:"lock"`
	Settings *settingsInfo `json:"settings,omitempty"`
}

// settingsInfo identifies a configuration file.
type settingsInfo struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// readProvenance reads the records of the store and the configuration file, which
// may be missing unless it was named.
func readProvenance(config string) (*provenance, error) {
	p := &provenance{}
	if err := withStore(func(s *modelstore.Store) (err error) {
		p.Models, err = storedRecords(s, nil)
		return err
	}); err != nil {
		return nil, err
	}
	l, err := pull.NewLock(p.Models)
	var raw []byte
	if err == nil {
		raw, err = l.Bytes()
	}
	if err != nil {
		return nil, fmt.Errorf("version: %w", err)
	}
	p.Lock = sumOf(raw)
	path := config
	if path == "" {
		path = defaultConfig
	}
	raw, err = regfile.Read(path, maxConfigSize)
	switch {
	case errors.Is(err, fs.ErrNotExist) && config == "":
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("version: %w", err)
	}
	p.Settings = &settingsInfo{path, sumOf(raw)}
	return p, nil
}

func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

func (p *provenance) print(w io.Writer) {
	for _, r := range p.Models {
		_, _ = fmt.Fprintf(w, "%-10s %s\n", "model", printable(r.Name))
		for _, f := range r.Files {
			_, _ = fmt.Fprintf(w, "%-10s %s %s\n", "", f.SHA256, printable(f.Name))
		}
	}
	_, _ = fmt.Fprintf(w, "%-10s %s\n", "lock", p.Lock)
	if p.Settings != nil {
		_, _ = fmt.Fprintf(w, "%-10s %s\n%-10s %s\n", "settings", printable(p.Settings.Path), "", p.Settings.SHA256)
	}
}
