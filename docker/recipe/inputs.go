package recipe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// CheckToolchain returns an error if the toolchain is of another kind than the one that m
// records. The error names the settings to change.
func (r *Recipe) CheckToolchain(v Variant, m *bundle.Manifest) error {
	now, recorded := r.toolchainSpec(v.Set).Name(), m.Toolchain.Kind
	if now == recorded {
		return nil
	}
	remedy := "GOROCM_TOOLCHAIN=" + recorded + ", and unset GOROCM_BASE_IMAGE"
	if kind, ok := strings.CutSuffix(recorded, "-image"); ok {
		remedy = "GOROCM_TOOLCHAIN=" + kind + " and GOROCM_BASE_IMAGE to the image that was given then"
	} else if suite, ok := strings.CutPrefix(recorded, "debian-"); ok {
		remedy = "GOROCM_TOOLCHAIN=debian and GOROCM_SUITE=" + suite + ", and unset GOROCM_BASE_IMAGE"
	}
	return fmt.Errorf("the manifest records the toolchain %s, this build uses %s: set %s", recorded, now, remedy)
}

// CheckInputs returns an error if a compile of v would have other options or another environment
// than m records. The error names them and the settings to change. CheckInputs fetches the source,
// whose files determine which options it has.
func (r *Recipe) CheckInputs(ctx context.Context, v Variant, m *bundle.Manifest) error {
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return err
	}
	known, err := declaredOptions(src.Dir)
	if err != nil {
		return err
	}
	var diff, further []string
	own := true // only the user's own options differ
	all := components(r.Lock, r.Targets)
	v = r.available(v)
	for _, name := range v.Components {
		c := all[name]
		i := slices.IndexFunc(m.Stages, func(s bundle.Stage) bool { return s.Name == "compile-"+name })
		if i < 0 {
			diff, own = append(diff, "compile-"+name+" is not recorded"), false
			continue
		}
		was, env := m.Stages[i], r.environment(c)
		diff = append(diff, diffInputs(was.Name, was.Options, c.arguments(r.CMake, known))...)
		diff = append(diff, diffInputs(was.Name, was.Env, env)...)
		fixed := c.arguments(nil, known)
		if len(was.Options) < len(fixed) || !slices.Equal(was.Options[:len(fixed)], fixed) || !slices.Equal(was.Env, env) {
			own = false
			continue
		}
		for _, o := range was.Options[len(fixed):] {
			further = append(further, name+":"+strings.TrimPrefix(o, "-D"))
		}
	}
	if len(diff) == 0 {
		return nil
	}
	remedy := "use the checkout of that release"
	switch {
	case own && len(further) > 0:
		remedy = "set GOROCM_CMAKE='" + strings.Join(further, ";") + "'"
	case own:
		remedy = "unset GOROCM_CMAKE"
	}
	return fmt.Errorf("the inputs of the compiles differ from those in the manifest, so the files cannot be the same: %s:\n  %s", remedy, strings.Join(diff, "\n  "))
}

// diffInputs returns a line for each entry that only one of the two lists of inputs has, or one
// that says that their order differs.
func diffInputs(compile string, recorded, now []string) (diff []string) {
	for _, s := range recorded {
		if !slices.Contains(now, s) {
			diff = append(diff, compile+" had "+s)
		}
	}
	for _, s := range now {
		if !slices.Contains(recorded, s) {
			diff = append(diff, compile+" has "+s)
		}
	}
	if len(diff) == 0 && !slices.Equal(recorded, now) {
		diff = append(diff, fmt.Sprintf("%s had %q, and has them in another order or number: %q", compile, recorded, now))
	}
	return diff
}
