package selftest

import (
	"context"
	"fmt"
	"os"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// checkMachine asks the doctor.
func (r *runner) checkMachine(ctx context.Context) Result {
	r.report.Checks = append(r.report.Checks, r.o.Diagnose(ctx)...)
	warnings := 0
	for _, f := range r.report.Checks {
		switch f.Status {
		case doctor.Failure:
			return failed(f.Remedy, "%s: %s", f.Check, f.Detail)
		case doctor.Warning:
			warnings++
		}
	}
	return passed("%s, %s", count(len(r.report.Checks), "check"), count(warnings, "warning"))
}

// checkCards lists the cards.
func (r *runner) checkCards(context.Context) Result {
	usable := 0
	for _, d := range gpu.NewMask(os.Environ()).Apply(r.machine.Devices) {
		c := describeCard(d)
		r.report.Cards = append(r.report.Cards, c)
		if !c.Software && (c.Unusable == "" || c.Vulkan != "") {
			usable++
		}
	}
	if usable == 0 {
		return notPossible(`run the test on a machine with a card; "go-rocm doctor" says why one is not found`,
			"no card can be used, so that none is tested (%s found)", count(len(r.report.Cards), "device"))
	}
	return passed("%s", count(usable, "card"))
}

func describeCard(d gpu.Device) Card {
	c := Card{Name: d.Name, PCI: d.PCI, Target: d.Target.String(), Bytes: d.VRAMTotal, Integrated: d.Integrated}
	if d.Vendor != 0 {
		c.IDs = fmt.Sprintf("%04x:%04x:%02x", d.Vendor, d.DeviceID, d.Revision)
	}
	if !d.Visible {
		c.Unusable = d.UnusableReason
	}
	if d.Vulkan != nil {
		c.Vulkan, c.Software = d.Vulkan.Description, d.Vulkan.Software
	}
	return c
}

// count formats a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// firstLine returns a text to its first line break: errors may have a log after it.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
