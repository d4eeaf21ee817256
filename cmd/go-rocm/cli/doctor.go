package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/rocm"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, warn or fail
	Detail string `json:"detail"`
}

const (
	stateOK   = "ok"
	stateWarn = "warn"
	stateFail = "fail"
)

func doctorCommand() *cobra.Command {
	var asJSON bool
	var given string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "check what could keep models from running, and say what to do",
		Long: `Checks the platform, the GPU driver and its permissions, the bundle, and that
llama-server starts from it. The status is not 0 when something keeps models
from running at all; without a usable GPU they run on the CPU, which is a
warning.`,
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
				if f.State == stateFail {
					return fmt.Errorf("%s: %s", f.Check, f.Detail)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.Flags().StringVar(&given, "bundle", "", "check this bundle instead of the one that would be used")
	return cmd
}

func printFindings(w io.Writer, list []finding) {
	for _, f := range list {
		_, _ = fmt.Fprintf(w, "%-5s %-10s %s\n", f.State, f.Check, f.Detail)
	}
}

// diagnose runs the checks, the ones that others need first.
func diagnose(ctx context.Context, given string, log *slog.Logger) []finding {
	platform := runtime.GOOS + "/" + runtime.GOARCH
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return []finding{{"platform", stateFail, platform + ": models run on linux/amd64 alone"}}
	}
	list := []finding{{"platform", stateOK, platform}}
	list = append(list, checkGPUs()...)
	list = append(list, checkDevice("/dev/kfd"))
	return append(list, checkBundle(ctx, given, log)...)
}

// checkDevice opens the compute driver's device as llama-server will.
func checkDevice(path string) finding {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		_ = f.Close()
		return finding{"kfd", stateOK, path + " can be opened"}
	case errors.Is(err, os.ErrNotExist):
		return finding{"kfd", stateWarn, path + " is missing: no AMD compute driver is loaded, or the container was started without --device " + path}
	case errors.Is(err, os.ErrPermission):
		return finding{"kfd", stateWarn, "no permission for " + path + ": add the user to the group that owns it (usually render) and log in again"}
	}
	return finding{"kfd", stateWarn, err.Error()}
}

func checkGPUs() []finding {
	devices, err := gpu.NewFS("/").Devices()
	if errors.Is(err, gpu.ErrNoDriver) {
		return []finding{{"gpu", stateWarn, err.Error() + "; models run on the CPU"}}
	}
	var out []finding
	if err != nil {
		out = append(out, finding{"gpu", stateWarn, err.Error()})
	}
	for _, d := range gpu.NewMask(os.Environ()).Apply(devices) {
		f := finding{"gpu", stateOK, fmt.Sprintf("%s at %s (%s), %s of %s free", d.Name, d.PCI, d.Target, size(d.VRAMFree()), size(d.VRAMTotal))}
		if !d.Visible {
			f.State, f.Detail = stateWarn, fmt.Sprintf("%s at %s cannot be used: %s", d.Name, d.PCI, d.Why)
		}
		out = append(out, f)
	}
	if len(devices) == 0 {
		out = append(out, finding{"gpu", stateWarn, "the driver knows no GPU; models run on the CPU"})
	}
	return out
}

func checkBundle(ctx context.Context, given string, log *slog.Logger) []finding {
	b, err := rocm.FindBundle(given)
	if err != nil {
		return []finding{{"bundle", stateFail, err.Error()}}
	}
	defer func() { _ = b.Close() }()
	where := string(b.Origin)
	if b.Path != "" {
		where += ", " + b.Path
	}
	out := []finding{{"bundle", stateOK, where}}
	facts, err := b.Probe(ctx, log)
	if err != nil {
		return append(out, finding{"server", stateFail, err.Error()})
	}
	return append(out, finding{"server", stateOK, fmt.Sprintf("llama-server starts from %s and knows %d flags", facts.Dir, facts.Flags)})
}
