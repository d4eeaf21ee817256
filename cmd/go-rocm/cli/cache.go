package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
)

const day = 24 * time.Hour

func cacheCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "list unpacked bundles, and remove old ones",
		Long: fmt.Sprintf(`Lists the bundles in the cache directory, least recently used first, with their
size on disk and whether a program is using them.

Each bundle has its own directory, so a new bundle does not replace an old one.
Unpacking a bundle removes bundles of the same name that were not used for %d
days. "go-rocm cache prune" removes more. A bundle in use is never removed.`, int(extract.SupersededAge/day)),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := extract.List("")
			if err != nil {
				return fmt.Errorf("cache: %w", err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]extract.Cached{}, list...))
			}
			return printCache(stdout(cmd), list)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.AddCommand(pruneCommand())
	return cmd
}

func pruneCommand() *cobra.Command {
	var days int
	var all, dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "remove unused unpacked bundles",
		Long: `Removes the bundles that were not used for some days, and the leftovers of killed
programs. The bundle that this program would use is kept, unless --all is set. A
bundle in use is always kept. A removed bundle is unpacked again when needed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 0 {
				return fmt.Errorf("%w: cache prune: --days must be 0 or more", errUsage)
			}
			o := extract.PruneOptions{UnusedFor: time.Duration(days) * day, DryRun: dryRun, Log: logger(cmd)}
			if all {
				o.UnusedFor = 0
			} else if b, err := locate.Find(""); err == nil {
				if b.Manifest != nil {
					o.Keep = []string{b.Manifest.Digest()}
				}
				if err := b.Close(); err != nil {
					return fmt.Errorf("cache prune: %w", err)
				}
			}
			removed, err := extract.Prune(cmd.Context(), o)
			verb := "removed"
			if dryRun {
				verb = "would remove"
			}
			var sum int64
			for _, c := range removed {
				sum += c.Bytes
				_, _ = fmt.Fprintf(stdout(cmd), "%s %s\n", verb, c.Dir)
			}
			_, _ = fmt.Fprintf(stdout(cmd), "%s %d bundles, %s\n", verb, len(removed), formatSize(sum))
			if err != nil {
				return fmt.Errorf("cache prune: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&days, "days", int(extract.SupersededAge/day), "remove bundles not used for this many days")
	cmd.Flags().BoolVar(&all, "all", false, "remove every bundle that is not in use")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "list what would be removed, and remove nothing")
	cmd.MarkFlagsMutuallyExclusive("days", "all")
	return cmd
}

func printCache(out io.Writer, list []extract.Cached) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(out, "the cache is empty")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tVERSION\tTARGETS\tON DISK\tLAST USED\tSTATUS\tDIRECTORY")
	for _, c := range list {
		status := "unused"
		if c.InUse {
			status = "in use"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(printable(c.Name)), orDash(printable(c.Version)), orDash(gfx.Join(c.Targets, ",")),
			formatSize(c.Bytes), c.LastUsed.Format(time.DateOnly), status, c.Dir)
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
