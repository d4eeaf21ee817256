package build

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// The documents that Emulate writes: one as a whole, and the numbers between two comments of another one.
const (
	emulatedKernelsPage = "docs/emulated-kernels.md"
	emulatedPage        = "docs/emulated-card.md"
	numbersBegin        = "<!-- mage emulate writes what follows -->\n"
	numbersEnd          = "<!-- the end of what mage emulate writes -->\n"
)

// writeCoverage writes which kernels of the bundle were executed, in this run and in those before.
func (e *emulation) writeCoverage() error {
	executed, err := survey.ReadExecuted(e.coverage())
	if err != nil {
		return err
	}
	c, err := survey.Cover([]string{e.bundle}, executed)
	if err != nil {
		return err
	}
	numbers, kernels, err := coveragePages(c)
	if err != nil {
		return err
	}
	if err := regfile.Replace(filepath.Join(e.root, filepath.FromSlash(emulatedKernelsPage)), kernels, 0o644); err != nil {
		return err
	}
	page := filepath.Join(e.root, filepath.FromSlash(emulatedPage))
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	if text, err = replaceNumbers(text, numbers); err != nil {
		return fmt.Errorf("%s: %w", emulatedPage, err)
	}
	if err := regfile.Replace(page, text, 0o644); err != nil {
		return err
	}
	for _, target := range c.Targets {
		ran, all := c.Total(survey.PartGGML, target)
		if err := e.printf("emulate: %d of %d kernels of libggml-hip were executed for %s", ran, all, target); err != nil {
			return err
		}
	}
	return nil
}

// replaceNumbers replaces what is between the two comments.
func replaceNumbers(page, numbers []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(numbersBegin))
	_, after, end := bytes.Cut(rest, []byte(numbersEnd))
	if !ok || !end {
		return nil, errors.New("the comments around the numbers are missing")
	}
	return bytes.Join([][]byte{before, []byte(numbersBegin), numbers, []byte(numbersEnd), after}, nil), nil
}

// coveragePages returns the numbers of executed kernels, and the page with the families.
func coveragePages(c *survey.Coverage) (numbers, kernels []byte, err error) {
	var n, k bytes.Buffer
	n.WriteString("\n")
	if err := c.WriteTotals(&n); err != nil {
		return nil, nil, err
	}
	whole, none := 0, 0
	for _, f := range c.Families {
		ran, all := 0, 0
		for _, target := range c.Targets {
			ran += f.Executed[target]
			all += f.Kernels[target]
		}
		switch ran {
		case all:
			whole++
		case 0:
			none++
		}
	}
	fmt.Fprintf(&n, "\nOf %d families of kernels, %d were executed whole for each target, %d in part and %d not at all:\n[emulated-kernels.md](emulated-kernels.md) lists them.\n\n",
		len(c.Families), whole, len(c.Families)-whole-none, none)
	k.WriteString(`# Kernels that were executed

Written by ` + "`mage emulate`" + `: how many kernels of each family ran to their end on the
[emulated card](emulated-card.md) of each target, of those that the bundle's files have. A family is the
instances of a template, for one type of weights where the template has it, or the solutions of Tensile for
one combination of layouts and types.
`)
	var parts []string
	for _, f := range c.Families {
		if len(parts) == 0 || parts[len(parts)-1] != f.Part {
			parts = append(parts, f.Part)
		}
	}
	for _, part := range parts {
		fmt.Fprintf(&k, "\n## %s\n\n", part)
		if err := c.WriteFamilies(&k, part); err != nil {
			return nil, nil, err
		}
	}
	if own := ownKernels(c); len(own) > 0 {
		fmt.Fprintf(&k, "\nThe HIP runtime compiled and ran kernels of its own: %s.\n", strings.Join(own, ", "))
	}
	return n.Bytes(), k.Bytes(), nil
}

// ownKernels returns the names of the HIP runtime's kernels, which no file of the bundle has.
func ownKernels(c *survey.Coverage) (names []string) {
	for _, k := range c.Others {
		if strings.HasPrefix(k.Kernel, "__amd_rocclr_") && (len(names) == 0 || !strings.Contains(strings.Join(names, " "), "`"+k.Kernel+"`")) {
			names = append(names, "`"+k.Kernel+"`")
		}
	}
	return names
}
