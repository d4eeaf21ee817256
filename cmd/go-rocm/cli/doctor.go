package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
)

func doctorCommand() *cobra.Command {
	var asJSON bool
	var given string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "check what could keep models from running, and say what to do",
		Long: `Checks kernel, distribution, container and memory, the GPU driver with its device
files and permissions, the kernel's messages about the GPU, every byte of the
bundle, the host's ROCm where the bundle takes it from there, the folder that the
bundle is unpacked to, and that llama-server starts from it.

Each line is ok, warning or failure. A warning costs the GPU or speed: without a
usable GPU models run on the CPU. The status is 1 when something fails, which
keeps models from running at all, and 0 otherwise.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list := diagnose(cmd.Context(), given, logger(cmd))
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), list); err != nil {
					return err
				}
			} else {
				printFindings(cmd.OutOrStdout(), list)
			}
			for _, f := range list {
				if f.Status == doctor.Failure {
					return fmt.Errorf("%s: %s; %s", f.Check, f.Detail, f.Remedy)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.Flags().StringVar(&given, "bundle", "", "check this bundle instead of the one that would be used")
	return cmd
}

func printFindings(w io.Writer, list []doctor.Finding) {
	for _, f := range list {
		_, _ = fmt.Fprintf(w, "%-8s %-13s %s\n", f.Status, f.Check, f.Detail)
		if f.Remedy != "" {
			_, _ = fmt.Fprintf(w, "%-8s %-13s -> %s\n", "", "", f.Remedy)
		}
	}
}

// diagnose runs the checks, the ones that others need first.
func diagnose(ctx context.Context, given string, log *slog.Logger) []doctor.Finding {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return []doctor.Finding{{Check: "platform", Status: doctor.Failure, Detail: platform, Remedy: "run models on linux/amd64"}}
	}
	m := doctor.Local()
	list := []doctor.Finding{{Check: "platform", Status: doctor.OK, Detail: platform}}
	list = append(list, m.CheckSystem()...)
	list = append(list, m.CheckGPU()...)
	return append(list, checkBundle(ctx, m, given, log)...)
}

const bundleRemedy = "install or build the bundle again"

// checkBundle checks the bundle that would be used and where it runs from.
func checkBundle(ctx context.Context, m doctor.Machine, given string, log *slog.Logger) []doctor.Finding {
	b, err := rocm.FindBundle(given)
	if err != nil {
		return []doctor.Finding{{Check: "bundle", Status: doctor.Failure, Detail: err.Error(), Remedy: bundleRemedy}}
	}
	defer func() { _ = b.Close() }()
	out := []doctor.Finding{integrity(ctx, b), m.CheckROCm(b.Manifest)}
	if f, ok := m.CheckTargets(b.Targets()); ok {
		out = append(out, f)
	}
	facts, err := b.Probe(ctx, log)
	if !b.Unpacked() {
		out = append(out, cache(m, b, facts.Dir))
	}
	if err != nil {
		return append(out, doctor.Finding{Check: "server", Status: doctor.Failure, Detail: err.Error(), Remedy: "mend what the lines above name, or " + bundleRemedy})
	}
	return append(out, doctor.Finding{Check: "server", Status: doctor.OK, Detail: fmt.Sprintf("llama-server starts from %s and knows %d flags", facts.Dir, facts.Flags)})
}

// integrity compares every byte of the bundle with its manifest.
func integrity(ctx context.Context, b *rocm.Bundle) doctor.Finding {
	where := string(b.Origin)
	if b.Path != "" {
		where += ", " + b.Path
	}
	switch err := b.Verify(ctx); {
	case errors.Is(err, rocm.ErrNoManifest):
		return doctor.Finding{Check: "bundle", Status: doctor.Warning, Detail: where + ": " + err.Error(), Remedy: "nothing, if it is a build of your own"}
	case err != nil:
		return doctor.Finding{Check: "bundle", Status: doctor.Failure, Detail: where + ": " + err.Error(), Remedy: bundleRemedy}
	}
	return doctor.Finding{Check: "bundle", Status: doctor.OK, Detail: fmt.Sprintf("%s %s is whole (%s)", b.Manifest.Name, b.Manifest.Version, where)}
}

// cache checks the folder that a packed bundle is unpacked to. Where it lies
// there already, room for what other GPUs need is all that may be missing.
func cache(m doctor.Machine, b *rocm.Bundle, dir string) doctor.Finding {
	if dir != "" {
		return m.CheckCache([]string{dir}, 0)
	}
	folders, err := extract.CacheDirs("")
	if err != nil {
		return doctor.Finding{Check: "cache", Status: doctor.Failure, Detail: err.Error(), Remedy: "set " + extract.CacheEnv + " to a folder on a disk that may run programs"}
	}
	return m.CheckCache(folders, uint64(max(b.Need(), 0)))
}
