// Command fitcheck compares the expected memory of models with llama.cpp's figures and prints a table.
// It fails if a limit is exceeded.
//
//	go run ./testing/ggufgen/cmd/fitcheck /path/to/llama-fit-params
//	go run ./testing/ggufgen/cmd/fitcheck -scenarios c4096 LOADER --library-path DIR DIR/llama-fit-params
//
// With -rpc, the address of a running ggml-rpc-server of the same llama.cpp (built with GGML_RPC=ON),
// it also compares the split between a device and the host.
//
// It needs no GPU and no model: it uses sparse files with the real shapes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fitcheck:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("fitcheck", flag.ContinueOnError)
	dir := fs.String("dir", "", "`DIR` for the sparse files (default: a temporary directory)")
	record := fs.String("record", "", "`FILE` to write what llama-fit-params said")
	rpc := fs.String("rpc", "", "`ADDRESS` of a ggml-rpc-server that stands in for a GPU")
	only := fs.String("scenarios", "", "comma-separated scenarios (default: all)")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("name the llama-fit-params program, with leading arguments if it needs any")
	}
	if *dir == "" {
		tmp, err := os.MkdirTemp("", "fitcheck")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(tmp) }() // temporary; the system clears it otherwise
		*dir = tmp
	}
	rows, err := compare(ctx, fs.Args(), *dir, *only, *rpc)
	if err != nil {
		return err
	}
	if *record != "" {
		if err := save(*record, rows); err != nil {
			return err
		}
	}
	return table(out, rows)
}

func compare(ctx context.Context, program []string, dir, only, rpc string) ([]fitcheck.Row, error) {
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	var rows []fitcheck.Row
	for _, k := range ggufgen.Catalogue() {
		path, err := fitcheck.Write(dir, k)
		if err != nil {
			return nil, err
		}
		scenarios := fitcheck.Scenarios()
		if rpc != "" {
			scenarios = append(scenarios, fitcheck.DeviceScenarios()...)
		}
		for _, s := range scenarios {
			if len(wanted) > 0 && !slices.Contains(wanted, s.Name) {
				continue
			}
			command := program
			if s.Layers > 0 {
				command = append(slices.Clone(program), "--rpc", rpc)
			}
			said, err := fitcheck.Ask(ctx, command, path, s)
			if err != nil {
				return nil, err
			}
			more, err := fitcheck.Compare(k, path, s, said)
			if err != nil {
				return nil, err
			}
			rows = append(rows, more...)
		}
	}
	return rows, nil
}

func save(path string, rows []fitcheck.Row) error {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, "# model run place weights kv compute, in MiB, as llama-fit-params of llama.cpp v0.5.0 printed them; the device is an RPC server")
	return errors.Join(err, fitcheck.Record(f, rows), f.Close())
}

func table(out io.Writer, rows []fitcheck.Row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "model\tarchitecture\trun\tplace\tweights\texpected\tkv\texpected\tcompute\texpected\ttotal\texpected\terror\t")
	worst, bad := 0.0, 0
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.0f\t%.1f\t%.0f\t%.1f\t%.0f\t%.1f\t%.0f\t%.1f\t%+.2f%%\t%s\n",
			r.Model.ID(), r.Model.Arch, r.Scenario, r.Place, r.Said.Weights, r.Expected.Weights, r.Said.KV, r.Expected.KV,
			r.Said.Compute, r.Expected.Compute, r.Said.Total(), r.Expected.Total(), 100*r.Deviation(), r.Off())
		if r.Said.Weights > 0 {
			worst = max(worst, r.Deviation(), -r.Deviation())
		}
		if r.Off() != "" {
			bad++
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d comparisons, sizes in MiB, largest error of a total %.2f%%\n", len(rows), 100*worst)
	if bad > 0 {
		return fmt.Errorf("%d comparisons exceed the limits (weights and kv %.0f%%, total %.0f%%)", bad, 100*fitcheck.WeightsLimit, 100*fitcheck.TotalLimit)
	}
	return nil
}
