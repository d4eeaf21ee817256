package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

func gpusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gpus",
		Short: "list the GPUs of this machine",
		Long: `Lists the GPUs that the kernel's drivers and the Vulkan drivers report, with their
target, their memory, and the backends with which this user and environment can use
them. The memory in use is the kernel's figure and includes all programs.

Where the bundle has the Vulkan module, llama-server is asked for Vulkan's devices; the
answer is kept until a driver changes. A software driver such as Mesa's lavapipe is
listed, and used only if $GGML_VK_VISIBLE_DEVICES names it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			devices, targets, err := listGPUs(cmd)
			if asJSON {
				if devices == nil {
					devices = []gpu.Device{}
				}
				if perr := printJSON(cmd.OutOrStdout(), devices); perr != nil {
					return perr
				}
				return ignoreNoDriver(err)
			}
			if errors.Is(err, gpu.ErrNoDriver) {
				_, _ = fmt.Fprintln(stdout(cmd), err)
				return nil
			}
			return errors.Join(printGPUs(stdout(cmd), devices, targets), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, with sensors and ids")
	return cmd
}

// listGPUs returns the devices and the targets that the bundle has code for, nil without
// a bundle.
func listGPUs(cmd *cobra.Command) ([]gpu.Device, []gfx.Target, error) {
	_, err := gpu.NewFS("/").Cards()
	m, findErr := machine.Detect("", machine.Config{Log: slog.New(slog.DiscardHandler)})
	if findErr != nil {
		m = machine.New(machine.Config{Log: logger(cmd)}) // the cards need no bundle
	}
	if err := m.ReadVulkan(cmd.Context(), nil, plan.Options{}); err != nil {
		return nil, nil, err
	}
	if len(m.Devices) > 0 {
		err = ignoreNoDriver(err)
	}
	return gpu.NewMask(os.Environ()).Apply(m.Devices), m.Targets, err
}

// usableWith returns the backends that can use a device, or why none can.
func usableWith(d gpu.Device, targets []gfx.Target) string {
	var with []string
	if d.Visible && (targets == nil || slices.Contains(targets, d.Target)) {
		with = append(with, "HIP")
	}
	v := d.Vulkan
	if v != nil && v.Unused == "" && d.Masked == "" {
		with = append(with, "Vulkan")
	}
	switch {
	case len(with) > 0:
		return strings.Join(with, ", ")
	case v != nil && v.Software:
		return "no: " + v.Unused + "; set " + gpu.EnvVulkan + " to use it all the same"
	case d.Visible:
		return fmt.Sprintf("no: the bundle has no code for %s, and no Vulkan driver offers it", d.Target)
	}
	return "no: " + d.UnusableReason
}

func printGPUs(out io.Writer, devices []gpu.Device, targets []gfx.Target) error {
	if len(devices) == 0 {
		_, err := fmt.Fprintln(out, "the drivers report no GPU")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "DEVICE\tTARGET\tNAME\tKIND\tMEMORY IN USE\tFREE\tTOTAL\tNOW\tUSABLE")
	for _, d := range devices {
		kind := "discrete"
		switch {
		case d.Vulkan != nil && d.Vulkan.Software:
			kind = "software"
		case d.Integrated:
			kind = "integrated"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID(), d.Target, printable(d.Name), kind,
			usageBar(d.VRAMUsed, d.VRAMTotal), formatSize(d.VRAMFree()), formatSize(d.VRAMTotal), formatSensors(d.Sensors), usableWith(d, targets))
	}
	return w.Flush()
}

// usageBar draws used/total in twenty steps. Any use shows as at least one step.
func usageBar(used, total uint64) string {
	const steps = 20
	n := 0
	if total > 0 {
		n = int((float64(min(used, total))*steps + float64(total) - 1) / float64(total))
	}
	n = min(n, steps)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", steps-n) + "]"
}

// formatSensors lists the sensors that a GPU has.
func formatSensors(s gpu.Sensors) string {
	var out []string
	for _, r := range []struct {
		value float64
		unit  string
	}{{s.EdgeCelsius, "°C"}, {s.PowerWatts, "W"}, {s.ShaderMHz, "MHz"}} {
		if r.value > 0 {
			out = append(out, strconv.FormatFloat(r.value, 'f', 0, 64)+" "+r.unit)
		}
	}
	return strings.Join(out, ", ")
}

// ignoreNoDriver drops ErrNoDriver: without the driver, the list of GPUs is empty
// and complete.
func ignoreNoDriver(err error) error {
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil
	}
	return err
}
