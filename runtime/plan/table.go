package plan

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the plan as text: a row for each place, then the reasons.
func (p *Plan) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	extras := p.extras()
	head := []string{"WHERE", "LAYERS", "WEIGHTS", "CACHE", "COMPUTE"}
	fmt.Fprintln(t, strings.Join(append(head, append(extras, "USED", "FREE", "MARGIN")...), "\t"))
	for _, e := range append(append([]Estimate(nil), p.Devices...), p.Host) {
		row := []string{e.Name, fmt.Sprintf("%d/%d", e.Layers, p.TotalLayers), size(e.Weights), size(e.KV), size(e.Compute)}
		for _, x := range extras {
			row = append(row, size(e.extra(x)))
		}
		free, margin := "", ""
		if e.Free > 0 || e.Margin > 0 {
			free, margin = size(e.Free), size(e.Margin)
		}
		fmt.Fprintln(t, strings.Join(append(row, size(e.Used()), free, margin), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	verdict := "runs on the CPU"
	backend := ""
	if p.GPU {
		backend = "; backend " + p.Backend.String()
	}
	switch {
	case p.Fits:
		verdict = "fits on the GPU"
	case p.GPU:
		verdict = fmt.Sprintf("does not fit whole: %d of %d layers on the GPU", p.Layers, p.TotalLayers)
	}
	if _, err := fmt.Fprintf(w, "\n%s%s; context %d; slots: %d\n", verdict, backend, p.Context, p.Slots); err != nil {
		return err
	}
	for _, r := range p.Reasons {
		if _, err := fmt.Fprintf(w, "  - %s\n", r); err != nil {
			return err
		}
	}
	return nil
}

// Verdict returns the plan in a few words, for one row of a table.
func (p *Plan) Verdict() string {
	switch {
	case p.Fits:
		return "fits"
	case p.Overfull:
		return "does not fit"
	case p.GPU:
		return fmt.Sprintf("does not fit, %d of %d layers on the GPU", p.Layers, p.TotalLayers)
	}
	return "on the CPU"
}

// extras returns the columns that only some plans have.
func (p *Plan) extras() []string {
	var out []string
	for _, x := range []string{"PROJECTOR", "ADAPTERS", "DRAFT"} {
		used := p.Host.extra(x) > 0
		for _, e := range p.Devices {
			used = used || e.extra(x) > 0
		}
		if used {
			out = append(out, x)
		}
	}
	return out
}

func (e Estimate) extra(name string) uint64 {
	switch name {
	case "PROJECTOR":
		return e.Projector
	case "ADAPTERS":
		return e.Adapters
	case "DRAFT":
		return e.Draft
	}
	return 0
}
