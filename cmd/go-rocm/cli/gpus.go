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
		Long: `Lists the GPUs that the kernel's driver knows, with their target, their memory
and whether this user and environment may use them. The figures come from the
kernel and count what every program holds.`,
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
				_, _ = fmt.Fprintln(cmd.OutOrStdout(), err)
				return nil
			}
			return errors.Join(printGPUs(cmd.OutOrStdout(), devices), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, with sensors and ids")
	return cmd
}

func printGPUs(out io.Writer, devices []gpu.Device) error {
	if len(devices) == 0 {
		_, err := fmt.Fprintln(out, "the driver knows no GPU")
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
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.PCI, d.Target, d.Name, kind,
			bar(d.VRAMUsed, d.VRAMTotal), size(d.VRAMFree()), size(d.VRAMTotal), sensors(d.Sensors), usable)
	}
	return w.Flush()
}

// bar draws a share in twenty steps. Anything that is used shows.
func bar(used, total uint64) string {
	const steps = 20
	n := 0
	if total > 0 {
		n = int((float64(min(used, total))*steps + float64(total) - 1) / float64(total))
	}
	n = min(n, steps)
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", steps-n) + "]"
}

// sensors is what a card tells of itself, left out where it does not.
func sensors(s gpu.Sensors) string {
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

// ignoreNoDriver: a machine without the driver has no GPUs, and that is an
// answer.
func ignoreNoDriver(err error) error {
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil
	}
	return err
}
