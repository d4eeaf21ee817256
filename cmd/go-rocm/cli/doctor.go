package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func doctorCommand() *cobra.Command {
	var asJSON bool
	var bundle string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "find what prevents models from running, and how to fix it",
		Long: `Checks kernel, distribution, container and memory, the GPU driver with its device
files and permissions, the kernel's messages about the GPU, every byte of the
bundle, the host's ROCm if the bundle uses it, the Vulkan drivers, what was measured
with "go-rocm bench", the cache directory, and that llama-server starts.

Each line is ok, warning or failure. A warning costs speed or the GPU: without a
usable GPU, models run on the CPU. A failure prevents models from running; the
exit status is then 1, otherwise 0.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := diagnose(cmd.Context(), bundle, logger(cmd))
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
					return err
				}
			} else {
				printFindings(stdout(cmd), findings)
			}
			for _, f := range findings {
				if f.Status == doctor.Failure {
					return fmt.Errorf("%s: %s; %s", f.Check, f.Detail, f.Remedy)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.Flags().StringVar(&bundle, "bundle", "", "check this bundle instead of the default one")
	return cmd
}

func printFindings(w io.Writer, findings []doctor.Finding) {
	for _, f := range findings {
		_, _ = fmt.Fprintf(w, "%-8s %-13s %s\n", f.Status, f.Check, f.Detail)
		if f.Remedy != "" {
			_, _ = fmt.Fprintf(w, "%-8s %-13s -> %s\n", "", "", f.Remedy)
		}
	}
}

// diagnose runs all checks, prerequisites first.
func diagnose(ctx context.Context, bundle string, log *slog.Logger) []doctor.Finding {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return []doctor.Finding{{Check: "platform", Status: doctor.Failure, Detail: platform, Remedy: "run models on linux/amd64"}}
	}
	m := doctor.Local()
	findings := []doctor.Finding{{Check: "platform", Status: doctor.OK, Detail: platform}}
	findings = append(findings, m.CheckSystem()...)
	findings = append(findings, m.CheckGPU()...)
	return append(findings, checkBundle(ctx, m, bundle, log)...)
}

const bundleRemedy = "install or build the bundle again"

// checkBundle checks the bundle that would be used and the place it runs from.
func checkBundle(ctx context.Context, m doctor.Machine, path string, log *slog.Logger) []doctor.Finding {
	b, err := locate.Find(path)
	if err != nil {
		return []doctor.Finding{{Check: "bundle", Status: doctor.Failure, Detail: err.Error(), Remedy: bundleRemedy}}
	}
	defer func() { _ = b.Close() }()
	findings := []doctor.Finding{checkIntegrity(ctx, b), m.CheckROCm(b.Manifest)}
	if f, ok := m.CheckTargets(b.Targets()); ok {
		findings = append(findings, f)
	}
	findings = append(findings, checkBackends(ctx, m, path, log)...)
	facts, err := b.Probe(ctx, log)
	if !b.Unpacked() {
		findings = append(findings, checkCache(m, b, facts.Dir))
	}
	if err != nil {
		return append(findings, doctor.Finding{
			Check: "server", Status: doctor.Failure, Detail: err.Error(),
			Remedy: "fix the problems listed above, or " + bundleRemedy,
		})
	}
	return append(findings, doctor.Finding{
		Check: "server", Status: doctor.OK, Detail: fmt.Sprintf("llama-server starts from %s and has %d flags", facts.Dir, facts.Flags),
	})
}

// checkBackends checks the Vulkan drivers, and reports what was measured.
func checkBackends(ctx context.Context, m doctor.Machine, path string, log *slog.Logger) []doctor.Finding {
	hardware, err := machine.Detect(path, machine.Config{Log: log})
	if err == nil {
		err = hardware.ReadVulkan(ctx, nil, plan.Options{})
	}
	if err != nil {
		return nil // the bundle's finding reports it
	}
	findings := []doctor.Finding{m.CheckVulkan(hardware.HasVulkan, gpu.NewMask(m.Environ).Apply(hardware.Devices), hardware.VulkanProblem())}
	records, err := hardware.Records()
	if err != nil {
		log.Warn("the measurements cannot be read", "cause", err.Error())
	}
	return append(findings, doctor.CheckSpeed(records, time.Now())...)
}

// checkIntegrity compares every byte of the bundle with its manifest.
func checkIntegrity(ctx context.Context, b *locate.Bundle) doctor.Finding {
	where := string(b.Origin)
	if b.Path != "" {
		where += ", " + b.Path
	}
	switch err := b.Verify(ctx); {
	case errors.Is(err, locate.ErrNoManifest):
		return doctor.Finding{Check: "bundle", Status: doctor.Warning, Detail: where + ": " + err.Error(), Remedy: "nothing, if this is your own build"}
	case err != nil:
		return doctor.Finding{Check: "bundle", Status: doctor.Failure, Detail: where + ": " + err.Error(), Remedy: bundleRemedy}
	}
	return doctor.Finding{Check: "bundle", Status: doctor.OK, Detail: fmt.Sprintf("%s %s is complete (%s)", b.Manifest.Name, b.Manifest.Version, where)}
}

// checkCache checks the directory that a packed bundle is unpacked to. If the
// bundle is already there, in dir, only space for the files of other GPUs may be
// missing.
func checkCache(m doctor.Machine, b *locate.Bundle, dir string) doctor.Finding {
	if dir != "" {
		return m.CheckCache([]string{dir}, 0)
	}
	dirs, err := extract.CacheDirs("")
	if err != nil {
		return doctor.Finding{
			Check: "cache", Status: doctor.Failure, Detail: err.Error(),
			Remedy: "set " + extract.CacheEnv + " to a directory on a disk that allows running programs",
		}
	}
	return m.CheckCache(dirs, uint64(max(b.UnpackedSize(), 0)))
}
