// Package settings reads the settings of a build from the environment, once, into
// one typed struct. A malformed variable is an error, and so is an unknown one that
// begins with GOROCM_: a misspelt setting must not be ignored.
package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/docker/go-units"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Settings are the settings of a build, one field for each variable.
type Settings struct {
	Variants         []string      `env:"GOROCM_VARIANTS" envDefault:"hip,cpu" help:"bundles to build: cpu, and the backends that docs/drivers.md lists"`
	Flavours         []string      `env:"GOROCM_FLAVOURS" envDefault:"hermetic" help:"flavours of the hip bundle: hermetic, system (uses the host's ROCm); of both, the first is embedded in the command"`
	Targets          []gfx.Target  `env:"GOROCM_TARGETS" envDefault:"gfx1100,gfx1101" help:"GPU targets of the hip bundle"`
	Embed            string        `env:"GOROCM_EMBED" envDefault:"hip" help:"variant of the bundle in the command, the container image and the Go module"`
	Page             bool          `env:"GOROCM_PAGE" envDefault:"true" help:"build llama.cpp's web page into the command; its packages come from npm's registry"`
	Toolchain        string        `env:"GOROCM_TOOLCHAIN" envDefault:"debian" help:"debian, or amd (AMD's own image)"`
	Suite            string        `env:"GOROCM_SUITE" envDefault:"forky" help:"Debian suite of the debian toolchain"`
	BaseImage        string        `env:"GOROCM_BASE_IMAGE" help:"image to compile in, by digest or ID, instead of the toolchain's own"`
	MmdebstrapImage  string        `env:"GOROCM_MMDEBSTRAP_IMAGE" help:"image with mmdebstrap, if it is not installed on this machine"`
	Locked           bool          `env:"GOROCM_LOCKED" envDefault:"false" help:"reject toolchain packages that differ from the locked ones"`
	Source           string        `env:"GOROCM_SOURCE" help:"llama.cpp as a git repository, git bundle or tarball on this machine"`
	CMake            []string      `env:"GOROCM_CMAKE" envSeparator:";" help:"further CMake options, NAME=VALUE;NAME=VALUE, or COMPONENT:NAME=VALUE for core or one backend"`
	Jobs             int           `env:"GOROCM_JOBS" help:"parallel compile jobs (default: the number of processors)"`
	Memory           Bytes         `env:"GOROCM_MEMORY" envDefault:"0" help:"memory limit of a compile, such as 16GiB (0: no limit)"`
	Cache            string        `env:"GOROCM_CACHE" help:"cache directory (default: go-rocm in the user's cache directory)"`
	Dist             string        `env:"GOROCM_DIST" envDefault:"dist" help:"directory for the deliverables; a directory with other files in it is rejected"`
	Reproduce        string        `env:"GOROCM_REPRODUCE" envDefault:"signed" help:"when a release must be proven reproducible by a second build: signed (if a key is set), always, never"`
	Reuse            []string      `env:"GOROCM_REPRODUCE_REUSE" envDefault:"compile-hip" help:"stages that the second build reuses: compile-core, compile-hip, compile-vulkan (none: everything is built twice)"`
	Vary             bool          `env:"GOROCM_VARY" envDefault:"false" help:"compile with another user, host name, clock and directory order; mage reproduce sets it for its second build"`
	Version          string        `env:"GOROCM_VERSION" help:"version to release (default: the newest in CHANGELOG.md)"`
	Maintainer       string        `env:"GOROCM_MAINTAINER" help:"maintainer of the Debian packages, as NAME <ADDRESS>; required for a signed release"`
	Epoch            string        `env:"SOURCE_DATE_EPOCH" help:"time stamp of the command's package, the container image, the Go module and the bills of materials, in seconds since 1970 (default: the time of the llama.cpp release, for the module that of the commit); bundles and their packages always have the time of the llama.cpp release"`
	SigningKey       string        `env:"GOROCM_SIGNING_KEY" help:"file with the Ed25519 private key, in PEM, that signs the provenance of a release"`
	MinisignKey      string        `env:"GOROCM_MINISIGN_KEY" help:"file with the minisign private key that signs the checksums of a release"`
	MinisignPassword Secret        `env:"GOROCM_MINISIGN_PASSWORD" help:"password of the minisign key, if it has one"`
	Date             string        `env:"GOROCM_RELEASE_DATE" help:"date of the apt repository, in seconds since 1970 (default: SOURCE_DATE_EPOCH if it is set, else the time of the commit)"`
	Published        string        `env:"GOROCM_PUBLISHED" help:"directory of the published releases, as given to mage publish; this release is added to them (default: GOROCM_DIST, if the release in it is signed)"`
	AptURL           string        `env:"GOROCM_APT_URL" help:"URL of the apt repository, such as https://example.org/apt"`
	AptKeyFile       string        `env:"GOROCM_APT_KEY_FILE" help:"file with the OpenPGP private key that signs the apt repository and the checksums of a release"`
	AptKey           Secret        `env:"GOROCM_APT_KEY" help:"the OpenPGP private key itself, armoured, instead of GOROCM_APT_KEY_FILE"`
	AptPassphrase    Secret        `env:"GOROCM_APT_PASSPHRASE" help:"passphrase of the OpenPGP key, if it has one"`
	AptUnsigned      bool          `env:"GOROCM_APT_UNSIGNED" envDefault:"false" help:"create an apt repository without signatures"`
	AptValid         time.Duration `env:"GOROCM_APT_VALID" envDefault:"2160h" help:"how long the apt repository is valid after its date"`
	Bench            []string      `env:"GOROCM_BENCH" help:"benchmarks to run, such as ready,first (default: all but go; docs/benchmarks.md lists them)"`
	CI               bool          `env:"CI" envDefault:"false" help:"never ask, install missing programs"`
	Yes              bool          `env:"GOROCM_YES" envDefault:"false" help:"answer every question with yes"`

	// SourceDate and ReleaseDate are Epoch and Date in UTC, zero if they are not set.
	SourceDate, ReleaseDate time.Time
}

// otherVariables are the variables with the prefix GOROCM_ that other parts of the
// project read.
var otherVariables = []string{"GOROCM_BUNDLE", "GOROCM_HIP_BUNDLE", "GOROCM_SYSTEM_BUNDLE", "GOROCM_BACKEND_OPS", "GOROCM_LAVAPIPE", "GOROCM_OPERATIONS", "GOROCM_OPERATION_PARAMS", "GOROCM_DEB", "GOROCM_SMALL_DEB", "GOROCM_SMALL_IMAGE", "GOROCM_TORTURE", "GOROCM_CLI", "GOROCM_MODELS", "GOROCM_TEST_MODELS", "GOROCM_LLAMA_SOURCE", "GOROCM_API_KEY", "GOROCM_E2E_WORK", "GOROCM_BENCH_PACK", "GOROCM_CHROMIUM", "GOROCM_SOAK", "GOROCM_VULKAN_DEB", "GOROCM_EMULATE", "GOROCM_EMULATE_PARTS", "GOROCM_EMULATE_LIMIT", "GOROCM_OBJDUMP"}

// Secret is a string that is never printed.
type Secret string

// String returns "(set)" for any secret, and "" for none.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(set)"
}

// GoString returns the same as String, for the verb %#v.
func (s Secret) GoString() string { return s.String() }

// Bytes is a size such as 16GiB.
type Bytes int64

// UnmarshalText parses a size with an optional binary unit.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := units.RAMInBytes(string(text))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size such as 16GiB", text)
	}
	*b = Bytes(n)
	return nil
}

// Read parses the environment of the process.
func Read() (*Settings, error) {
	return Parse(os.Environ())
}

// Parse parses and checks an environment of NAME=value strings.
func Parse(environ []string) (*Settings, error) {
	values := env.ToMap(environ)
	for name, v := range values {
		if strings.TrimSpace(v) == "" {
			delete(values, name) // empty means unset
		}
	}
	// CI systems set CI to true, to 1 or to their name.
	if v, ok := values["CI"]; ok {
		if _, err := parseBool(v); err != nil {
			values["CI"] = "true"
		}
	}
	if err := trimLists(values); err != nil {
		return nil, err
	}
	s := &Settings{}
	if err := env.ParseWithOptions(s, env.Options{Environment: values, FuncMap: parsers}); err != nil {
		return nil, translateError(err, values)
	}
	if err := unknown(values); err != nil {
		return nil, err
	}
	if s.Jobs == 0 {
		s.Jobs = runtime.NumCPU()
	}
	if s.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("settings: no cache directory: %w; set GOROCM_CACHE", err)
		}
		s.Cache = filepath.Join(dir, "go-rocm")
	}
	for name, path := range s.paths() {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return nil, fmt.Errorf("settings: %s: %w", name, err)
		}
		*path = abs
	}
	return s, s.check()
}

// paths returns the settings that name a file or directory. They are made absolute,
// because programs in other directories get them. GOROCM_DIST is not among them: each
// checkout has its own.
func (s *Settings) paths() map[string]*string {
	return map[string]*string{
		"GOROCM_CACHE": &s.Cache, "GOROCM_SOURCE": &s.Source, "GOROCM_PUBLISHED": &s.Published,
		"GOROCM_SIGNING_KEY": &s.SigningKey, "GOROCM_MINISIGN_KEY": &s.MinisignKey, "GOROCM_APT_KEY_FILE": &s.AptKeyFile,
	}
}

// Paths returns the settings that name a file or directory as NAME=value strings,
// for a build that runs in another directory.
func (s *Settings) Paths() []string {
	var out []string
	for name, path := range s.paths() {
		out = append(out, name+"="+*path)
	}
	slices.Sort(out)
	return out
}

// PlainSuffix marks the version of the Go module without a bundle.
const PlainSuffix = "-plain"

// Signed reports whether any key is set.
func (s *Settings) Signed() bool {
	return s.AptKeyFile+string(s.AptKey)+s.MinisignKey+s.SigningKey != ""
}

// MustReproduce reports whether a release must be proven reproducible.
func (s *Settings) MustReproduce() bool {
	return s.Reproduce == "always" || s.Reproduce == "signed" && s.Signed()
}
