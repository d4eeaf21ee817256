package survey

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// Executed is a kernel that ran to its end on the emulated card.
type Executed struct {
	Target gfx.Target
	Object string // rdna3.ObjectID of the code object
	Kernel string
}

// ReadExecuted reads the file that the emulated card's library writes kernels to, each once. A file that does not exist
// has none.
func ReadExecuted(path string) (_ map[Executed]bool, err error) {
	out := map[Executed]bool{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s := bufio.NewScanner(f)
	for n := 1; s.Scan(); n++ {
		target, rest, _ := strings.Cut(s.Text(), " ")
		object, kernel, ok := strings.Cut(rest, " ")
		if !ok || !shipped(gfx.Target(target)) || object == "" || kernel == "" {
			return nil, fmt.Errorf("%s: line %d is no kernel: %q", path, n, s.Text())
		}
		out[Executed{gfx.Target(target), object, kernel}] = true
	}
	return out, s.Err()
}

// The parts of a bundle that have kernels.
const (
	PartGGML    = "libggml-hip"
	PartRocBLAS = "rocBLAS"
	PartTensile = "Tensile"
)

// A Family is the kernels that are instances of the same template, or solutions of Tensile for the same types.
type Family struct {
	Part, Name        string
	Kernels, Executed map[gfx.Target]int
}

// Coverage says which kernels of a bundle were executed.
type Coverage struct {
	Targets  []gfx.Target
	Families []Family
	Files    map[Executed]string // of the bundle's kernels, by their base names
	// Others are kernels that were executed and are not in the bundle: those of the HIP runtime itself, which it compiles,
	// and those of bundles that a test has changed.
	Others []Executed
}

// Cover counts the kernels of files and directories, and those that were executed.
func Cover(paths []string, executed map[Executed]bool) (*Coverage, error) {
	n := counter{executed: executed, files: map[Executed]string{}, families: map[[2]string]*Family{}}
	err := Walk(paths, func(code CodeObject) error {
		kernels, err := code.Kernels()
		object := rdna3.ObjectID(code.Code)
		for _, k := range kernels {
			n.add(code.File, Executed{code.Target, object, k.Name})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return n.coverage(), nil
}

// A counter counts kernels by family.
type counter struct {
	executed map[Executed]bool
	files    map[Executed]string
	families map[[2]string]*Family
}

// add adds a kernel of a file. The same code may be there twice, and counts once.
func (n *counter) add(file string, k Executed) {
	if _, again := n.files[k]; again {
		return
	}
	n.files[k] = file
	id := [2]string{part(file), FamilyOf(k.Kernel)}
	f := n.families[id]
	if f == nil {
		f = &Family{id[0], id[1], map[gfx.Target]int{}, map[gfx.Target]int{}}
		n.families[id] = f
	}
	f.Kernels[k.Target]++
	if n.executed[k] {
		f.Executed[k.Target]++
	}
}

func (n *counter) coverage() *Coverage {
	c := &Coverage{Files: n.files}
	for _, f := range n.families {
		c.Families = append(c.Families, *f)
		for t := range f.Kernels {
			if !slices.Contains(c.Targets, t) {
				c.Targets = append(c.Targets, t)
			}
		}
	}
	slices.Sort(c.Targets)
	slices.SortFunc(c.Families, func(a, b Family) int {
		return cmp.Or(strings.Compare(a.Part, b.Part), strings.Compare(a.Name, b.Name))
	})
	for k := range n.executed {
		if n.files[k] == "" {
			c.Others = append(c.Others, k)
		}
	}
	slices.SortFunc(c.Others, func(a, b Executed) int {
		return cmp.Or(strings.Compare(string(a.Target), string(b.Target)), strings.Compare(a.Kernel, b.Kernel), strings.Compare(a.Object, b.Object))
	})
	return c
}

// part returns the part of a bundle that a file belongs to.
func part(file string) string {
	switch {
	case strings.HasPrefix(file, "libggml-hip."):
		return PartGGML
	case strings.HasPrefix(file, "librocblas."):
		return PartRocBLAS
	case strings.HasSuffix(file, ".co"), strings.HasSuffix(file, ".hsaco"):
		return PartTensile
	}
	return file
}

var (
	// solution matches a kernel of Tensile: the tensors' indices, the types, and what distinguishes solutions.
	solution = regexp.MustCompile(`^(Cijk_.*?)_MT\d`)
	// weights matches the first type of a tensor in the arguments of a template.
	weights = regexp.MustCompile(`L9ggml_type(\d+)E`)
)

// FamilyOf returns the family of a kernel: the name of its function without the arguments of its template, except for the
// type of the weights, or of a solution of Tensile everything up to its tile.
func FamilyOf(kernel string) string {
	if m := solution.FindStringSubmatch(kernel); m != nil {
		return m[1]
	}
	name := functionName(kernel)
	if m := weights.FindStringSubmatch(kernel); m != nil {
		if n, err := strconv.ParseUint(m[1], 10, 32); err == nil {
			name += " " + gguf.TensorType(n).String()
		}
	}
	return name
}

// functionName returns the unqualified name of a function from its mangled name.
func functionName(mangled string) string {
	rest, ok := strings.CutPrefix(mangled, "_Z")
	if !ok {
		return mangled
	}
	rest = strings.TrimLeft(rest, "NLKV") // nested, internal, const, volatile
	name := mangled
	for {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.Atoi(rest[:digits])
		if err != nil || digits+n > len(rest) {
			return name
		}
		name, rest = rest[digits:digits+n], strings.TrimPrefix(rest[digits+n:], "L")
	}
}

// Total adds the families of a part.
func (c *Coverage) Total(part string, target gfx.Target) (executed, kernels int) {
	for _, f := range c.Families {
		if f.Part == part {
			executed += f.Executed[target]
			kernels += f.Kernels[target]
		}
	}
	return executed, kernels
}

// parts returns the parts that have kernels.
func (c *Coverage) parts() (out []string) {
	for _, f := range c.Families {
		if !slices.Contains(out, f.Part) {
			out = append(out, f.Part)
		}
	}
	return out
}

// WriteTotals writes a table in Markdown with a row for each part.
func (c *Coverage) WriteTotals(w io.Writer) error {
	return c.write(w, "kernels of", c.parts(), func(part string, t gfx.Target) (executed, kernels int) { return c.Total(part, t) })
}

// WriteFamilies writes a table in Markdown with a row for each family of a part.
func (c *Coverage) WriteFamilies(w io.Writer, part string) error {
	byName := map[string]Family{}
	var names []string
	for _, f := range c.Families {
		if f.Part == part {
			byName[f.Name] = f
			names = append(names, f.Name)
		}
	}
	return c.write(w, "family", names, func(name string, t gfx.Target) (executed, kernels int) {
		return byName[name].Executed[t], byName[name].Kernels[t]
	})
}

func (c *Coverage) write(w io.Writer, first string, rows []string, cell func(row string, t gfx.Target) (executed, kernels int)) error {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |", first)
	for _, t := range c.Targets {
		fmt.Fprintf(&b, " %s |", t)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(c.Targets)) + "\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s |", row)
		for _, t := range c.Targets {
			executed, kernels := cell(row, t)
			fmt.Fprintf(&b, " %d of %d |", executed, kernels)
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
