package cli

import (
	"errors"
	"fmt"
	"os"
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
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(w, "PCI\tTARGET\tNAME\tKIND\tFREE\tTOTAL\tUSABLE")
			for _, d := range devices {
				kind, usable := "discrete", "yes"
				if d.Integrated {
					kind = "integrated"
				}
				if !d.Visible {
					usable = "no: " + d.Why
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.PCI, d.Target, d.Name, kind, size(d.VRAMFree()), size(d.VRAMTotal), usable)
			}
			return errors.Join(w.Flush(), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, with sensors and ids")
	return cmd
}

// ignoreNoDriver: a machine without the driver has no GPUs, and that is an
// answer.
func ignoreNoDriver(err error) error {
	if errors.Is(err, gpu.ErrNoDriver) {
		return nil
	}
	return err
}
