package hub

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// ErrChoice reports that a reference names no model of the repository, or several.
var ErrChoice = errors.New("name one model of the repository")

// Variant is one model of a repository: one file, or all parts of a split one.
type Variant struct {
	// Quant is the quantisation in the file's name, in upper case; empty: the name
	// has none.
	Quant string
	Files []File // in order
}

// Bytes returns the size of all files.
func (v *Variant) Bytes() int64 {
	var sum int64
	for _, f := range v.Files {
		sum += f.Size
	}
	return sum
}

// Quantised reports whether the weights have fewer than 16 bits, as far as the name
// says.
func (v *Variant) Quantised() bool {
	return !slices.Contains([]string{"F16", "BF16", "F32"}, v.Quant)
}

// quantName matches the names of llama.cpp's file types (llama-quant.cpp) with the
// prefix of dynamic quantisations, between separators.
var quantName = regexp.MustCompile(`(?:^|[-._])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|NVFP4|BF16|FP16|F16|FP32|F32))(?:$|[-.])`)

// quantOf returns the quantisation that a file name states; the last, if several.
func quantOf(file string) string {
	name := path.Base(file)
	if prefix, _, _, split := gguf.SplitName(name); split {
		name = prefix
	}
	name = strings.TrimSuffix(strings.ToUpper(name), ".GGUF")
	quant := ""
	for rest := name; ; {
		m := quantName.FindStringSubmatchIndex(rest)
		if m == nil {
			if digits, ok := strings.CutPrefix(quant, "FP"); ok {
				quant = "F" + digits
			}
			return quant
		}
		quant, rest = rest[m[2]:m[3]], rest[m[3]:]
	}
}

// isProjector reports whether a name is that of a multimodal projector. They are not
// told apart by anything else in a listing.
func isProjector(file string) bool {
	return strings.Contains(strings.ToLower(path.Base(file)), "mmproj")
}

// Variants returns the models of the repository, the largest first. Split models of
// which a part is missing are left out.
func (r *Repo) Variants() []Variant {
	var out []Variant
	for _, f := range r.Files {
		if !strings.HasSuffix(strings.ToLower(f.Path), ".gguf") || isProjector(f.Path) || strings.Contains(strings.ToLower(f.Path), "imatrix") {
			continue
		}
		files := []File{f}
		if prefix, no, count, split := gguf.SplitName(f.Path); split {
			if no != 1 {
				continue
			}
			if files = r.parts(prefix, count); files == nil {
				continue
			}
		}
		out = append(out, Variant{Quant: quantOf(f.Path), Files: files})
	}
	slices.SortStableFunc(out, func(a, b Variant) int {
		return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), cmp.Compare(a.Files[0].Path, b.Files[0].Path))
	})
	return out
}

// parts returns the parts of a split model in order, or nil if one is missing.
func (r *Repo) parts(prefix string, count int) []File {
	var out []File
	for no := 1; no <= count; no++ {
		name, err := gguf.PartPath(fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, 1, count), no, count)
		i := slices.IndexFunc(r.Files, func(f File) bool { return f.Path == name })
		if err != nil || i < 0 {
			return nil
		}
		out = append(out, r.Files[i])
	}
	return out
}

// Projector returns the projector for a variant; ok is false if the repository has
// none. One in the directory of the variant is preferred, then one of 16 bits, which
// all backends compute.
func (r *Repo) Projector(v *Variant) (f File, ok bool) {
	order := []string{"F16", "BF16", "Q8_0", "F32"}
	rank := func(f File) int {
		n := slices.Index(order, quantOf(f.Path))
		if n < 0 {
			n = len(order)
		}
		if path.Dir(f.Path) != path.Dir(v.Files[0].Path) {
			n += len(order) + 1
		}
		return n
	}
	for _, c := range r.Files {
		if isProjector(c.Path) && strings.HasSuffix(strings.ToLower(c.Path), ".gguf") && (!ok || rank(c) < rank(f)) {
			f, ok = c, true
		}
	}
	return f, ok
}

// Select returns the variants that a reference's quantisation or file names; with
// neither, all. Its error wraps ErrChoice and lists what there is.
func (r *Repo) Select(quant, file string) ([]Variant, error) {
	all := r.Variants()
	var out []Variant
	for _, v := range all {
		switch {
		case file != "" && slices.ContainsFunc(v.Files, func(f File) bool { return f.Path == file }),
			file == "" && (quant == "" || v.Quant == quant):
			out = append(out, v)
		}
	}
	what := "hf:" + r.Owner + "/" + r.Name
	switch {
	case len(all) == 0:
		return nil, fmt.Errorf("%w: %s has no GGUF model; look for a repository whose name ends in -GGUF", ErrChoice, what)
	case len(out) == 0 && file != "":
		return nil, fmt.Errorf("%w: %s has no file %s; it has %s", ErrChoice, what, file, describe(all))
	case len(out) == 0:
		return nil, fmt.Errorf("%w: %s has no %s; it has %s", ErrChoice, what, quant, describe(all))
	case len(out) > 1 && quant != "":
		return nil, fmt.Errorf("%w: %s has several files with %s; write %s/FILE with one of %s", ErrChoice, what, quant, what, describe(out))
	}
	return out, nil
}

// describe lists variants with their sizes.
func describe(list []Variant) string {
	const most = 40
	var words []string
	for i, v := range list {
		if i == most {
			words = append(words, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		words = append(words, fmt.Sprintf("%s (%.1f GiB)", v.Files[0].Path, float64(v.Bytes())/(1<<30)))
	}
	return strings.Join(words, ", ")
}
