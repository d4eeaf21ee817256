package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

func gpusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gpus",
		Short: "list the AMD GPUs of this machine",
		Long: `Lists the GPUs that the kernel's driver reports, with their target, their memory
and whether this user and environment can use them. The memory in use is the
kernel's figure and includes all programs.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			devices, err := gpu.NewFS("/").Devices()
			devices = gpu.NewMask(os.Environ()).Apply(devices)
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
			return errors.Join(printGPUs(stdout(cmd), devices), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, with sensors and ids")
	return cmd
}

func printGPUs(out io.Writer, devices []gpu.Device) error {
	if len(devices) == 0 {
		_, err := fmt.Fprintln(out, "the driver reports no GPU")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PCI\tTARGET\tNAME\tKIND\tMEMORY IN USE\tFREE\tTOTAL\tNOW\tUSABLE")
	for _, d := range devices {
		kind, usable := "discrete", "yes"
		if d.Integrated {
			kind = "integrated"
		}
		if !d.Visible {
			usable = "no: " + d.UnusableReason
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.PCI, d.Target, printable(d.Name), kind,
			usageBar(d.VRAMUsed, d.VRAMTotal), formatSize(d.VRAMFree()), formatSize(d.VRAMTotal), formatSensors(d.Sensors), usable)
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
