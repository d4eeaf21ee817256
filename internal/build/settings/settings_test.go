package settings

import (
	"bytes"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name string
		env  []string
		err  string // part of the error, empty for none
		ok   func(*Settings) bool
	}{
		{"defaults", nil, "", func(s *Settings) bool {
			return len(s.Variants) == 2 && len(s.Targets) == 2 && s.Targets[0].String() == "gfx1100" && s.Jobs > 0 && s.Embed == "hip"
		}},
		{"one variant", []string{"GOROCM_VARIANTS=cpu", "GOROCM_EMBED=cpu"}, "", func(s *Settings) bool { return len(s.Variants) == 1 }},
		{"empty means unset", []string{"GOROCM_VARIANTS="}, "", func(s *Settings) bool { return len(s.Variants) == 2 }},
		{"another backend", []string{"GOROCM_VARIANTS=hip,cuda", "GOROCM_CMAKE=cuda:GGML_CUDA_FA=OFF", "GOROCM_REPRODUCE_REUSE=compile-vulkan"}, "", func(s *Settings) bool { return s.Variants[1] == "cuda" }},
		{"memory", []string{"GOROCM_MEMORY=16GiB"}, "", func(s *Settings) bool { return s.Memory == 16<<30 }},
		{"options", []string{"GOROCM_CMAKE=A=1;hip:B=2;3"}, "\"3\" is not of the form NAME=VALUE", nil},
		{"options of a component", []string{"GOROCM_CMAKE=hip:B=2;core:C=a:b"}, "", func(s *Settings) bool { return len(s.CMake) == 2 }},
		{"option of no component", []string{"GOROCM_CMAKE=hpi:GGML_HIP_GRAPHS=OFF"}, `"hpi" is not a component`, nil},
		{"option with a type", []string{"GOROCM_CMAKE=GGML_LTO:BOOL=ON"}, `"GGML_LTO" is not a component; write NAME=VALUE`, nil},
		{"option of a component with a type", []string{"GOROCM_CMAKE=hip:GGML_LTO:BOOL=ON"}, "has a type", nil},
		{"option without a name", []string{"GOROCM_CMAKE=hip:=ON"}, "is not of the form NAME=VALUE", nil},
		{"target twice", []string{"GOROCM_TARGETS=gfx1100,gfx1101,gfx1100"}, "gfx1100 is listed twice", nil},
		{"variant twice", []string{"GOROCM_VARIANTS=cpu,cpu", "GOROCM_EMBED=cpu"}, "cpu is listed twice", nil},
		{"options kept whole", []string{"GOROCM_CMAKE=A=1,2;B=x y"}, "", func(s *Settings) bool { return len(s.CMake) == 2 && s.CMake[0] == "A=1,2" }},
		{"variables of other parts", []string{"GOROCM_BUNDLE=/x", "HOME=/h"}, "", nil},
		{"misspelt", []string{"GOROCM_TARGET=gfx1100"}, "GOROCM_TARGET is not a setting", nil},
		{"unknown variant", []string{"GOROCM_VARIANTS=hip,metal"}, `"metal" is not a variant`, nil},
		{"flavours", []string{"GOROCM_FLAVOURS=system,hermetic"}, "", func(s *Settings) bool { return len(s.Flavours) == 2 && s.Flavours[0] == "system" }},
		{"hermetic by default", nil, "", func(s *Settings) bool { return len(s.Flavours) == 1 && s.Flavours[0] == "hermetic" }},
		{"unknown flavour", []string{"GOROCM_FLAVOURS=vanilla"}, `"vanilla" is not a flavour`, nil},
		{"flavour twice", []string{"GOROCM_FLAVOURS=system,system"}, "system is listed twice", nil},
		{"flavour without its variant", []string{"GOROCM_FLAVOURS=system", "GOROCM_VARIANTS=cpu", "GOROCM_EMBED=cpu"}, "requires the hip variant", nil},
		{"embed a variant that is not built", []string{"GOROCM_VARIANTS=cpu"}, "is not in GOROCM_VARIANTS", nil},
		{"bad target", []string{"GOROCM_TARGETS=rx7900"}, "rx7900", nil},
		{"bad jobs", []string{"GOROCM_JOBS=-2"}, "-2 is not a number of jobs", nil},
		{"bad memory", []string{"GOROCM_MEMORY=lots"}, "is not a size", nil},
		{"bad version", []string{"GOROCM_VERSION=latest"}, `GOROCM_VERSION: "latest" is not a version; set one such as 0.1.0`, nil},
		{"version of two numbers", []string{"GOROCM_VERSION=0.1"}, `GOROCM_VERSION: "0.1" is not a version`, nil},
		{"version of the module without a bundle", []string{"GOROCM_VERSION=0.1.0-plain"}, "GOROCM_VERSION: \"0.1.0-plain\" is the name of the module of 0.1.0 without a bundle, which each release contains; set 0.1.0", nil},
		{"pre-release", []string{"GOROCM_VERSION=v0.2.0-rc.1+x"}, "", func(s *Settings) bool { return s.Version == "v0.2.0-rc.1+x" }},
		{"target that no compiler has", []string{"GOROCM_TARGETS=gfx1100,gfx1109"}, "GOROCM_TARGETS: gfx1109 is not a target", nil},
		{"unknown benchmark", []string{"GOROCM_BENCH=ready,frist"}, `GOROCM_BENCH: "frist" is not a benchmark; choose from tokens`, nil},
		{"bad suite", []string{"GOROCM_SUITE=forky/updates"}, `GOROCM_SUITE: "forky/updates" is not a Debian suite`, nil},
		{"spaces in lists", []string{"GOROCM_VARIANTS= hip, cpu,", "GOROCM_TARGETS=gfx1100, gfx1101"}, "", func(s *Settings) bool { return len(s.Variants) == 2 && s.Variants[1] == "cpu" && len(s.Targets) == 2 }},
		{"list without elements", []string{"GOROCM_FLAVOURS=,"}, `GOROCM_FLAVOURS: "," lists nothing; unset it for the default, "hermetic"`, nil},
		{"bad epoch", []string{"SOURCE_DATE_EPOCH=yesterday"}, `settings: SOURCE_DATE_EPOCH: "yesterday" is not a number of seconds`, nil},
		{"times", []string{"SOURCE_DATE_EPOCH=1", "GOROCM_RELEASE_DATE=2"}, "", func(s *Settings) bool { return s.SourceDate.Unix() == 1 && s.ReleaseDate.Unix() == 2 }},
		{"the earliest time", []string{"SOURCE_DATE_EPOCH=0"}, "", func(s *Settings) bool {
			return !s.SourceDate.IsZero() && s.SourceDate.Unix() == 0 && s.ReleaseDate.IsZero()
		}},
		{"no times", nil, "", func(s *Settings) bool { return s.SourceDate.IsZero() && s.ReleaseDate.IsZero() }},
		{"a signed repository", []string{"GOROCM_APT_KEY=text", "GOROCM_APT_URL=https://example.org/apt", "GOROCM_APT_VALID=24h", "GOROCM_MAINTAINER=J. Doe <j@example.org>"}, "", func(s *Settings) bool {
			return s.AptKey == "text" && s.AptValid == 24*time.Hour
		}},
		{"signed without a maintainer", []string{"GOROCM_MINISIGN_KEY=/k"}, "GOROCM_MAINTAINER: is not set, but a key is", nil},
		{"unsigned without a maintainer", nil, "", func(s *Settings) bool { return s.Maintainer == "" }},
		{"no address", []string{"GOROCM_MAINTAINER=Jane Doe"}, "set NAME <ADDRESS>", nil},
		{"no name", []string{"GOROCM_MAINTAINER=jane@example.org"}, "not of the form NAME <ADDRESS>", nil},
		{"two lines", []string{"GOROCM_MAINTAINER=Jane\nBcc: x <jane@example.org>"}, "GOROCM_MAINTAINER", nil},
		{"two keys", []string{"GOROCM_APT_KEY=text", "GOROCM_APT_KEY_FILE=/k", "GOROCM_APT_URL=https://example.org/"}, "unset one of them", nil},
		{"signed and unsigned", []string{"GOROCM_APT_KEY=text", "GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=https://example.org/"}, "unset one of them", nil},
		{"a repository without a URL", []string{"GOROCM_APT_UNSIGNED=true"}, "GOROCM_APT_URL: is not set", nil},
		{"a repository that is never valid", []string{"GOROCM_APT_VALID=-1h"}, "GOROCM_APT_VALID", nil},
		{"bad date", []string{"GOROCM_RELEASE_DATE=today"}, "GOROCM_RELEASE_DATE", nil},
		{"reproduced if signed", []string{"GOROCM_MINISIGN_KEY=/k", "GOROCM_MAINTAINER=J. Doe <j@example.org>"}, "", (*Settings).MustReproduce},
		{"not reproduced if unsigned", nil, "", func(s *Settings) bool { return !s.MustReproduce() }},
		{"always reproduced", []string{"GOROCM_REPRODUCE=always"}, "", (*Settings).MustReproduce},
		{"never reproduced", []string{"GOROCM_REPRODUCE=never", "GOROCM_MINISIGN_KEY=/k", "GOROCM_MAINTAINER=J. Doe <j@example.org>"}, "", func(s *Settings) bool { return !s.MustReproduce() }},
		{"sometimes reproduced", []string{"GOROCM_REPRODUCE=sometimes"}, `"sometimes" is not a value; choose from signed, always, never`, nil},
		{"nothing reused", []string{"GOROCM_REPRODUCE_REUSE=none"}, "", func(s *Settings) bool { return s.Reuse[0] == "none" }},
		{"reusing another stage", []string{"GOROCM_REPRODUCE_REUSE=pack-hip"}, `"pack-hip" is not a stage`, nil},
		{"bad toolchain", []string{"GOROCM_TOOLCHAIN=suse"}, `"suse" is not a toolchain`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Parse(append(tc.env, "HOME=/nonexistent"))
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("got error %v, want one with %q", err, tc.err)
			}
			if tc.ok != nil && !tc.ok(s) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// Some CI systems set CI to 1 or to their name.
func TestAnyCIIsTrue(t *testing.T) {
	for value, want := range map[string]bool{"woodpecker": true, "1": true, "true": true, "drone": true, "false": false, "0": false, "": false, "no": false} {
		s, err := Parse([]string{"CI=" + value, "HOME=/nonexistent"})
		if err != nil || s.CI != want {
			t.Errorf("CI=%s: %+v, %v, want %t", value, s, err, want)
		}
	}
}

// Every error names the variable and not the field, and says what to set.
func TestErrorsNameTheVariable(t *testing.T) {
	for field := range reflect.TypeFor[Settings]().Fields() {
		name := field.Tag.Get("env")
		var values, ok []string
		var remedy string
		switch field.Type {
		case reflect.TypeFor[bool]():
			values, ok, remedy = []string{"maybe", "2", "tru"}, []string{"true", "FALSE", "1", "0", "yes", "no", "On", "off", " true "}, "set true or false"
		case reflect.TypeFor[int]():
			values, ok, remedy = []string{"many", "1.5", "99999999999999999999"}, []string{"3", " 3 "}, "set one such as 4"
		case reflect.TypeFor[time.Duration]():
			values, ok, remedy = []string{"soon", "5", "90d"}, []string{"5h"}, "set one such as 2160h"
		case reflect.TypeFor[Bytes]():
			values, ok, remedy = []string{"lots", "-1"}, []string{"1GiB"}, "16GiB"
		case reflect.TypeFor[[]gfx.Target]():
			values, ok, remedy = []string{"rx7900", "gfx"}, []string{"gfx1102"}, "gfx1100"
		default:
			continue
		}
		for _, v := range values {
			_, err := Parse([]string{name + "=" + v, "HOME=/nonexistent"})
			if name == "CI" {
				continue // any value is valid
			}
			if err == nil || !strings.HasPrefix(err.Error(), "settings: "+name+": ") || !strings.Contains(err.Error(), remedy) || !strings.Contains(err.Error(), v) || strings.Contains(err.Error(), "field") {
				t.Errorf("%s=%s: %v", name, v, err)
			}
		}
		for _, v := range ok {
			environ := []string{name + "=" + v, "HOME=/nonexistent", "GOROCM_APT_URL=https://example.org/apt"}
			if _, err := Parse(environ); err != nil {
				t.Errorf("%s=%s: %v", name, v, err)
			}
		}
	}
}

// A path means the same in every directory that a program runs in.
func TestParseMakesPathsAbsolute(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	var environ, want []string
	for _, name := range []string{"GOROCM_APT_KEY_FILE", "GOROCM_CACHE", "GOROCM_MINISIGN_KEY", "GOROCM_PUBLISHED", "GOROCM_SIGNING_KEY", "GOROCM_SOURCE"} {
		environ = append(environ, name+"=in/../"+name)
		want = append(want, name+"="+filepath.Join(dir, name))
	}
	s, err := Parse(append(environ, "GOROCM_MAINTAINER=J. Doe <j@example.org>", "GOROCM_APT_URL=https://example.org/apt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Paths(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, path := range []string{s.Cache, s.Source, s.Published, s.SigningKey, s.MinisignKey, s.AptKeyFile} {
		if !filepath.IsAbs(path) {
			t.Errorf("%s is not absolute", path)
		}
	}
	if s, err = Parse(nil); err != nil || s.Published != "" || s.Source != "" || !filepath.IsAbs(s.Cache) {
		t.Errorf("unset paths: %+v, %v", s, err)
	}
}

func TestParseEpoch(t *testing.T) {
	for _, bad := range []string{"", "-1", "+1", "1.5", "1e9", "99999999999999999999"} {
		if _, err := ParseEpoch(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	got, err := ParseEpoch("1790556072")
	if err != nil || got.Format("2006-01-02T15:04:05Z07:00") != "2026-09-28T00:41:12Z" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestPrintNamesEverySetting(t *testing.T) {
	s, err := Parse([]string{"GOROCM_CMAKE=A=1;B=2", "GOROCM_MAINTAINER=J. Doe <j@example.org>", "GOROCM_APT_KEY=hidden", "GOROCM_APT_PASSPHRASE=hidden", "GOROCM_APT_URL=https://example.org/"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GOROCM_TARGETS", "gfx1100,gfx1101", "A=1;B=2", "SOURCE_DATE_EPOCH"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String()+fmt.Sprintf("%v %+v %#v", s, s, s), "hidden") || !strings.Contains(b.String(), "(set)") {
		t.Errorf("a secret is printed, or not reported as set:\n%s", &b)
	}
	for line := range strings.Lines(b.String()) {
		if len(strings.Fields(line)) < 2 {
			t.Errorf("a setting without a meaning: %q", line)
		}
	}
}
