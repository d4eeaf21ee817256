package selftest

import (
	"fmt"
	"io"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
)

// Markdown writes the report for an issue.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# go-rocm selftest: %s\n\n", r.Verdict)
	fmt.Fprintf(&b, "%s\n\n", r.Summary())
	b.WriteString("| | |\n|---|---|\n")
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "| %s | %s |\n", name, cell(fmt.Sprintf(format, args...)))
	}
	row("go-rocm", "%s", r.Version)
	row("bundle", "%s %s", r.Bundle.Name, r.Bundle.Version)
	row("kernel", "%s", r.Kernel)
	row("model", "%s (%s, %s, %s)", r.Model.Name, r.Model.Architecture, r.Model.Quantisation, mib(uint64(max(r.Model.Bytes, 0))))
	row("backend", "%s", string(r.Backend))
	row("started", "%s", r.Started.Format(time.RFC3339))
	row("duration", "%.0f s", r.Seconds)
	for _, c := range r.Cards {
		row("card", "%s", c.describe())
	}
	b.WriteString("\n## Steps\n\n| step | backend | result | details |\n|---|---|---|---|\n")
	for _, res := range r.Results {
		detail := cell(res.Detail)
		if res.Remedy != "" {
			detail += "<br>→ " + cell(res.Remedy)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", res.Step, string(res.Backend), res.Outcome, detail)
	}
	r.writeMemory(&b)
	r.writeOperations(&b)
	r.writeSensors(&b)
	r.writeChecks(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// Summary says what passed, and what was not tested.
func (r *Report) Summary() string {
	text := fmt.Sprintf("%d passed, %d failed, %d not possible.", r.Count(Passed), r.Count(Failed), r.Count(NotPossible))
	if !r.CardTested {
		text += " No card was tested."
	}
	if r.Ended != "" {
		text += " The test ended early: " + r.Ended + "."
	}
	return text
}

func (c Card) describe() string {
	parts := []string{c.Name}
	if c.Target != "" {
		parts = append(parts, c.Target)
	}
	if c.IDs != "" {
		parts = append(parts, c.IDs, "at "+c.PCI)
	}
	parts = append(parts, mib(c.Bytes))
	if c.Vulkan != "" && c.Vulkan != c.Name {
		parts = append(parts, "Vulkan: "+c.Vulkan)
	}
	if c.Unusable != "" {
		parts = append(parts, "not with HIP: "+c.Unusable)
	}
	return strings.Join(parts, ", ")
}

// cell escapes a text for a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "\r", "", "<", "&lt;", "`", "'").Replace(s)
}

func (r *Report) writeMemory(b *strings.Builder) {
	head := false
	for _, res := range r.Results {
		m := res.Memory
		if m == nil {
			continue
		}
		if !head {
			b.WriteString("\n## Memory\n\n| backend | place | planned | weights | margin | llama-server | kernel: process | kernel: growth |\n|---|---|---|---|---|---|---|---|\n")
			head = true
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", string(res.Backend), cell(m.Place), mib(m.Planned), mib(m.Weights), mib(m.Margin), mib(m.Server), mib(m.Process), mib(m.Growth))
	}
}

func (r *Report) writeOperations(b *strings.Builder) {
	for _, res := range r.Results {
		o := res.Operations
		if o == nil {
			continue
		}
		fmt.Fprintf(b, "\n## Operations: %s\n\n| operation | equal | different | not supported |\n|---|---|---|---|\n", res.Backend)
		for _, op := range o.Table {
			fmt.Fprintf(b, "| %s | %d | %d | %d |\n", cell(op.Name), op.Equal, op.Different, op.Unsupported)
		}
		for _, c := range o.Cases {
			fmt.Fprintf(b, "\n    %s\n", strings.ReplaceAll(c, "\n", " "))
		}
	}
}

func (r *Report) writeSensors(b *strings.Builder) {
	for _, res := range r.Results {
		for i, c := range res.Sensors {
			if i == 0 {
				b.WriteString("\n## Highest readings\n\n| card | edge | junction | memory | power | limit | clock | limited by |\n|---|---|---|---|---|---|---|---|\n")
			}
			fmt.Fprintf(b, "| %s | %.0f °C | %.0f °C | %.0f °C | %.0f W | %.0f W | %.0f MHz | %s |\n", cell(c.Name),
				c.EdgeCelsius, c.JunctionCelsius, c.MemoryCelsius, c.PowerWatts, c.PowerCapWatts, c.ShaderMHz, strings.Join(c.Throttled, ", "))
		}
	}
}

func (r *Report) writeChecks(b *strings.Builder) {
	if len(r.Checks) == 0 {
		return
	}
	b.WriteString("\n## Checks of the machine\n\n| check | status | details |\n|---|---|---|\n")
	for _, f := range r.Checks {
		detail := cell(f.Detail)
		if f.Remedy != "" && f.Status != doctor.OK {
			detail += "<br>→ " + cell(f.Remedy)
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", cell(f.Check), f.Status, detail)
	}
}
