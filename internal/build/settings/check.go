package settings

import (
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// check returns all errors of the settings.
func (s *Settings) check() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("settings: "+name+": "+format, args...))
	}
	for i, v := range s.Variants {
		if _, err := recipe.VariantByName(v); err != nil {
			bad("GOROCM_VARIANTS", "%q is not a variant; choose from %s", v, strings.Join(variantNames(), ", "))
		}
		if slices.Contains(s.Variants[:i], v) {
			bad("GOROCM_VARIANTS", "%s is listed twice", v)
		}
	}
	for i, f := range s.Flavours {
		if f != "hermetic" && f != "system" {
			bad("GOROCM_FLAVOURS", "%q is not a flavour; choose from hermetic, system", f)
		}
		if slices.Contains(s.Flavours[:i], f) {
			bad("GOROCM_FLAVOURS", "%s is listed twice", f)
		}
	}
	if slices.Contains(s.Flavours, "system") && !slices.Contains(s.Variants, "hip") {
		bad("GOROCM_FLAVOURS", "the flavour system requires the hip variant; add hip to GOROCM_VARIANTS, which is %v", s.Variants)
	}
	if !slices.Contains(s.Variants, s.Embed) {
		bad("GOROCM_EMBED", "%q is not in GOROCM_VARIANTS, which is %v", s.Embed, s.Variants)
	}
	if s.Reproduce != "signed" && s.Reproduce != "always" && s.Reproduce != "never" {
		bad("GOROCM_REPRODUCE", "%q is not a value; choose from signed, always, never", s.Reproduce)
	}
	for _, name := range s.Reuse {
		component, ok := strings.CutPrefix(name, "compile-")
		if name != "none" && (!ok || !slices.Contains(recipe.ComponentNames(), component)) {
			bad("GOROCM_REPRODUCE_REUSE", "%q is not a stage; choose from compile-%s, none", name, strings.Join(recipe.ComponentNames(), ", compile-"))
		}
	}
	if s.Toolchain != "debian" && s.Toolchain != "amd" {
		bad("GOROCM_TOOLCHAIN", "%q is not a toolchain; choose from debian, amd", s.Toolchain)
	}
	if len(s.Targets) == 0 && slices.Contains(s.Variants, "hip") {
		bad("GOROCM_TARGETS", "the hip variant needs at least one target, such as gfx1100")
	}
	for i, t := range s.Targets {
		if _, ok := t.ELFMach(); !ok {
			bad("GOROCM_TARGETS", "%s is not a target that the compiler has; choose such as gfx1100, gfx1101, gfx1102", t)
		}
		if slices.Contains(s.Targets[:i], t) {
			bad("GOROCM_TARGETS", "%s is listed twice", t)
		}
	}
	for _, o := range s.CMake {
		name, _, ok := strings.Cut(o, "=")
		component, option, only := strings.Cut(name, ":")
		if !only {
			option = name
		}
		switch {
		case !ok || option == "" || strings.HasPrefix(name, "-"):
			bad("GOROCM_CMAKE", "%q is not of the form NAME=VALUE", o)
		case only && !slices.Contains(recipe.ComponentNames(), component):
			bad("GOROCM_CMAKE", "%q: %q is not a component; write NAME=VALUE, or COMPONENT:NAME=VALUE for one of %s", o, component, strings.Join(recipe.ComponentNames(), ", "))
		case strings.Contains(option, ":"):
			bad("GOROCM_CMAKE", "%q has a type; write NAME=VALUE", o)
		}
	}
	if err := CheckVersion(s.Version); s.Version != "" && err != nil {
		bad("GOROCM_VERSION", "%w", err)
	}
	for _, name := range s.Bench {
		if !slices.Contains(benchpage.All(), name) {
			bad("GOROCM_BENCH", "%q is not a benchmark; choose from %s", name, strings.Join(benchpage.All(), ", "))
		}
	}
	if strings.ContainsFunc(s.Suite, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-", r) }) {
		bad("GOROCM_SUITE", "%q is not a Debian suite; set one such as forky", s.Suite)
	}
	if s.Jobs < 1 {
		bad("GOROCM_JOBS", "%d is not a number of jobs; set 1 or more", s.Jobs)
	}
	for _, date := range []struct {
		name, text string
		time       *time.Time
	}{{"SOURCE_DATE_EPOCH", s.Epoch, &s.SourceDate}, {"GOROCM_RELEASE_DATE", s.Date, &s.ReleaseDate}} {
		if date.text == "" {
			continue
		}
		var err error
		if *date.time, err = ParseEpoch(date.text); err != nil {
			bad(date.name, "%w", err)
		}
	}
	if err := s.checkMaintainer(); err != nil {
		bad("GOROCM_MAINTAINER", "%w", err)
	}
	switch signed := s.AptKeyFile != "" || s.AptKey != ""; {
	case s.AptKeyFile != "" && s.AptKey != "":
		bad("GOROCM_APT_KEY", "GOROCM_APT_KEY_FILE is set too; unset one of them")
	case signed && s.AptUnsigned:
		bad("GOROCM_APT_UNSIGNED", "a key is set too; unset one of them")
	case (signed || s.AptUnsigned) && s.AptURL == "":
		bad("GOROCM_APT_URL", "is not set; set the URL of the apt repository, such as https://example.org/apt")
	}
	if s.AptValid <= 0 {
		bad("GOROCM_APT_VALID", "%s is not a positive duration; set one such as 2160h", s.AptValid)
	}
	return errors.Join(errs...)
}

// variantNames returns the names of all variants.
func variantNames() []string {
	var names []string
	for _, v := range recipe.Variants() {
		names = append(names, v.Name)
	}
	return names
}

// CheckVersion checks that a version is valid for a Go module.
func CheckVersion(version string) error {
	v, _, _ := strings.Cut("v"+strings.TrimPrefix(version, "v"), "+")
	switch {
	case !semver.IsValid(v) || semver.Canonical(v) != v:
		return fmt.Errorf("%q is not a version; set one such as 0.1.0 or 0.2.0-rc.1", version)
	case semver.Prerelease(v) == PlainSuffix:
		return fmt.Errorf("%q is the name of the module of %s without a bundle, which each release contains; set %[2]s", version, strings.TrimSuffix(v, PlainSuffix)[1:])
	}
	return nil
}

// checkMaintainer checks the form of the maintainer, whom a signed release requires.
func (s *Settings) checkMaintainer() error {
	if s.Maintainer == "" {
		if !s.Signed() {
			return nil
		}
		return errors.New("is not set, but a key is: set the maintainer as NAME <ADDRESS>, such as Jane Doe <jane@example.org>")
	}
	who, err := mail.ParseAddress(s.Maintainer)
	if err != nil {
		return fmt.Errorf("%q: %w: set NAME <ADDRESS>, such as Jane Doe <jane@example.org>", s.Maintainer, err)
	}
	if want := who.Name + " <" + who.Address + ">"; who.Name == "" || s.Maintainer != want {
		return fmt.Errorf("%q is not of the form NAME <ADDRESS>, such as Jane Doe <jane@example.org>", s.Maintainer)
	}
	return nil
}

// ParseEpoch parses a time in the format of SOURCE_DATE_EPOCH: whole seconds since
// 1970 in UTC, see https://reproducible-builds.org/specs/source-date-epoch/.
func ParseEpoch(v string) (time.Time, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(v, "+") {
		return time.Time{}, fmt.Errorf("%q is not a number of seconds since 1970", v)
	}
	return time.Unix(n, 0).UTC(), nil
}
