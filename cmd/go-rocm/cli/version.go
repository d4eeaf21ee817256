package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// buildFacts are what the program knows of itself.
type buildFacts struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// bundleFacts are what is known of the bundle.
type bundleFacts struct {
	Origin    rocm.Origin      `json:"origin"`
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

type versionFacts struct {
	buildFacts
	Bundle      *bundleFacts `json:"bundle,omitempty"`
	BundleError string       `json:"bundle_error,omitempty"`
}

func versionCommand(version string) *cobra.Command {
	var asJSON bool
	var given string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "tell the versions of the program and of its bundle",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			facts := versionFacts{buildFacts: readBuild(version)}
			b, err := rocm.FindBundle(given)
			if err != nil {
				facts.BundleError = err.Error()
			} else {
				defer func() { _ = b.Close() }()
				facts.Bundle = describe(b)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), facts)
			}
			facts.print(cmd.OutOrStdout())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, with the toolchain's packages")
	cmd.Flags().StringVar(&given, "bundle", "", "look at this bundle instead of the one that would be used")
	return cmd
}

func readBuild(version string) buildFacts {
	f := buildFacts{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return f
	}
	if f.Version == "" {
		f.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			f.Revision = s.Value
		case "vcs.modified":
			f.Modified = s.Value == "true"
		}
	}
	return f
}

func describe(b *rocm.Bundle) *bundleFacts {
	f := &bundleFacts{Origin: b.Origin, Path: b.Path}
	if m := b.Manifest; m != nil {
		f.Name, f.Variant, f.Flavour, f.Version, f.Digest = m.Name, m.Variant, m.Flavour, m.Version, m.Digest()
		f.Targets, f.Source, f.Toolchain, f.Files, f.Bytes = m.Targets, m.Source, m.Toolchain, len(m.Files), m.Size()
	}
	return f
}

func (f *versionFacts) print(w io.Writer) {
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	row("go-rocm", "%s (%s, %s)", f.Version, f.Platform, f.Go)
	if f.Revision != "" {
		modified := ""
		if f.Modified {
			modified = ", modified"
		}
		row("revision", "%s%s", f.Revision, modified)
	}
	b := f.Bundle
	if b == nil {
		row("bundle", "none: %s", f.BundleError)
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
	row("size", "%d files, %s", b.Files, size(b.Bytes))
}
