// Package settings reads everything that a build can be told from the
// environment, once, into one typed struct. A variable that is malformed, or
// that begins with GOROCM_ and means nothing, is an error: a misspelt setting
// must not be ignored.
package settings

import (
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/docker/go-units"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Settings is what a build can be told.
type Settings struct {
	Variants     []string      `env:"GOROCM_VARIANTS" envDefault:"hip,cpu" help:"bundles to build: hip, cpu"`
	Flavours     []string      `env:"GOROCM_FLAVOURS" envDefault:"hermetic" help:"hermetic, or system (ROCm of the host) for the hip bundle; with both, the first goes into the command"`
	Targets      []gfx.Target  `env:"GOROCM_TARGETS" envDefault:"gfx1100,gfx1101" help:"GPU targets of the hip bundle"`
	Embed        string        `env:"GOROCM_EMBED" envDefault:"hip" help:"bundle inside the command, the container image and the Go module"`
	Toolchain    string        `env:"GOROCM_TOOLCHAIN" envDefault:"debian" help:"debian, or amd (AMD's own image)"`
	Suite        string        `env:"GOROCM_SUITE" envDefault:"forky" help:"Debian suite of the debian toolchain"`
	BaseImage    string        `env:"GOROCM_BASE_IMAGE" help:"an image to build in, by digest or id, instead of the toolchain's own"`
	Mmdebstrap   string        `env:"GOROCM_MMDEBSTRAP_IMAGE" help:"image to run mmdebstrap in when this machine has none"`
	Locked       bool          `env:"GOROCM_LOCKED" envDefault:"false" help:"refuse toolchain packages other than the locked ones"`
	Source       string        `env:"GOROCM_SOURCE" help:"llama.cpp as a git repository, git bundle or tarball on this machine"`
	CMake        []string      `env:"GOROCM_CMAKE" envSeparator:";" help:"further CMake options, NAME=VALUE;NAME=VALUE, for one component alone core:NAME=VALUE or hip:NAME=VALUE"`
	Jobs         int           `env:"GOROCM_JOBS" help:"parallel compile jobs (default: all processors)"`
	Memory       Bytes         `env:"GOROCM_MEMORY" envDefault:"0" help:"memory limit of a compile, as 16GiB (0: none)"`
	Cache        string        `env:"GOROCM_CACHE" help:"cache folder (default: go-rocm in the user's cache folder)"`
	Dist         string        `env:"GOROCM_DIST" envDefault:"dist" help:"folder for the deliverables; one with anything else in it is refused"`
	Reproduce    string        `env:"GOROCM_REPRODUCE" envDefault:"signed" help:"when mage release builds a second time and compares before there is a delivery: signed (if a key is given), always, never"`
	TakesOver    []string      `env:"GOROCM_REPRODUCE_TAKES" envDefault:"compile-hip" help:"what a second build takes over from the first: compile-core, compile-hip (none: everything is built twice)"`
	Elsewhere    bool          `env:"GOROCM_ELSEWHERE" envDefault:"false" help:"true: compile as another user, with another host name and clock and folders read in reverse; mage reproduce sets it for its second build"`
	Version      string        `env:"GOROCM_VERSION" help:"version to release (default: the newest in CHANGELOG.md)"`
	Maintainer   string        `env:"GOROCM_MAINTAINER" help:"who answers for the Debian packages, as NAME <ADDRESS>; needed when a release is signed"`
	Epoch        string        `env:"SOURCE_DATE_EPOCH" help:"time of the command's package, the container image, the Go module and the bills of materials, seconds since 1970 (default: that of the llama.cpp release, for the module that of the commit); bundles and their packages always have that of the llama.cpp release"`
	SigningKey   string        `env:"GOROCM_SIGNING_KEY" help:"file with an Ed25519 key in PEM that signs the provenance of a release"`
	Minisign     string        `env:"GOROCM_MINISIGN_KEY" help:"file with a minisign private key that signs the list of digests of a release"`
	MinisignPass Secret        `env:"GOROCM_MINISIGN_PASSWORD" help:"password of that key, if it has one"`
	Date         string        `env:"GOROCM_RELEASE_DATE" help:"time of the apt repository, seconds since 1970 (default: SOURCE_DATE_EPOCH if that is set, else the time of the commit)"`
	Published    string        `env:"GOROCM_PUBLISHED" help:"folder with what is published, as mage publish was given it, to add this release to (default: the folder for the deliverables, if the release in it is signed)"`
	AptURL       string        `env:"GOROCM_APT_URL" help:"address at which the apt repository will be served, such as https://example.org/apt"`
	AptKeyFile   string        `env:"GOROCM_APT_KEY_FILE" help:"file with the OpenPGP private key that signs the apt repository and the list of digests of a release"`
	AptKey       Secret        `env:"GOROCM_APT_KEY" help:"that key itself, armoured, instead of a file"`
	AptPass      Secret        `env:"GOROCM_APT_PASSPHRASE" help:"passphrase of that key, if it is locked"`
	AptUnsign    bool          `env:"GOROCM_APT_UNSIGNED" envDefault:"false" help:"true: make an apt repository without signatures"`
	AptValid     time.Duration `env:"GOROCM_APT_VALID" envDefault:"2160h" help:"how long clients trust the apt repository after its date"`
	Bench        []string      `env:"GOROCM_BENCH" help:"benchmarks to run, as ready,first (default: all but go; docs/benchmarks.md names them)"`
	CI           bool          `env:"CI" envDefault:"false" help:"true: never ask, install what is missing"`
	Yes          bool          `env:"GOROCM_YES" envDefault:"false" help:"true: answer every question with yes"`

	// SourceDate and ReleaseDate are Epoch and Date in UTC, zero where those are
	// not set.
	SourceDate, ReleaseDate time.Time
}

// elsewhere are GOROCM_ names that other parts of the project read.
var elsewhere = []string{"GOROCM_BUNDLE", "GOROCM_HIP_BUNDLE", "GOROCM_SYSTEM_BUNDLE", "GOROCM_DEB", "GOROCM_SMALL_DEB", "GOROCM_SMALL_IMAGE", "GOROCM_TORTURE", "GOROCM_CLI", "GOROCM_MODELS", "GOROCM_LLAMA_SOURCE", "GOROCM_API_KEY", "GOROCM_E2E_WORK", "GOROCM_BENCH_PACK"}

// Secret is a value that is used and never shown.
type Secret string

// String says whether there is one.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(set)"
}

// GoString keeps the value out of printed structs too.
func (s Secret) GoString() string { return s.String() }

// Bytes is a size such as 16GiB.
type Bytes int64

// UnmarshalText reads a size with an optional binary unit.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := units.RAMInBytes(string(text))
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a size such as 16GiB", text)
	}
	*b = Bytes(n)
	return nil
}

// Read reads and checks the environment.
func Read() (*Settings, error) {
	return Parse(os.Environ())
}

// Parse reads and checks an environment given as NAME=value strings.
func Parse(environ []string) (*Settings, error) {
	values := env.ToMap(environ)
	for name, v := range values {
		if v == "" {
			delete(values, name) // empty means unset
		}
	}
	s := &Settings{}
	if err := env.ParseWithOptions(s, env.Options{Environment: values}); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
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
			return nil, fmt.Errorf("settings: no cache folder: %w; set GOROCM_CACHE", err)
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

// paths are the settings that name a file or folder of this machine. They are
// absolute: they are handed to programs that run in other folders. The folder for
// the deliverables is none of them: each checkout has its own.
func (s *Settings) paths() map[string]*string {
	return map[string]*string{
		"GOROCM_CACHE": &s.Cache, "GOROCM_SOURCE": &s.Source, "GOROCM_PUBLISHED": &s.Published,
		"GOROCM_SIGNING_KEY": &s.SigningKey, "GOROCM_MINISIGN_KEY": &s.Minisign, "GOROCM_APT_KEY_FILE": &s.AptKeyFile,
	}
}

// Paths gives those settings as NAME=value, for a build that runs in another
// folder.
func (s *Settings) Paths() []string {
	var out []string
	for name, path := range s.paths() {
		out = append(out, name+"="+*path)
	}
	slices.Sort(out)
	return out
}

func unknown(values map[string]string) error {
	params, err := env.GetFieldParams(&Settings{})
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	known := slices.Clone(elsewhere)
	for _, p := range params {
		known = append(known, p.Key)
	}
	slices.Sort(known)
	var errs []error
	for _, name := range slices.Sorted(keys(values)) {
		if strings.HasPrefix(name, "GOROCM_") && !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("settings: %s is not a setting; `mage config` lists them", name))
		}
	}
	return errors.Join(errs...)
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (s *Settings) check() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("settings: "+name+": "+format, args...))
	}
	for i, v := range s.Variants {
		if v != "hip" && v != "cpu" {
			bad("GOROCM_VARIANTS", "%q is not a variant; choose from hip, cpu", v)
		}
		if slices.Contains(s.Variants[:i], v) {
			bad("GOROCM_VARIANTS", "%s is there twice", v)
		}
	}
	for i, f := range s.Flavours {
		if f != "hermetic" && f != "system" {
			bad("GOROCM_FLAVOURS", "%q is not a flavour; choose from hermetic, system", f)
		}
		if slices.Contains(s.Flavours[:i], f) {
			bad("GOROCM_FLAVOURS", "%s is there twice", f)
		}
	}
	if slices.Contains(s.Flavours, "system") && !slices.Contains(s.Variants, "hip") {
		bad("GOROCM_FLAVOURS", "system concerns the hip variant, which is not among the variants %v that are built", s.Variants)
	}
	if !slices.Contains(s.Variants, s.Embed) {
		bad("GOROCM_EMBED", "%q is not among the variants %v that are built", s.Embed, s.Variants)
	}
	if s.Reproduce != "signed" && s.Reproduce != "always" && s.Reproduce != "never" {
		bad("GOROCM_REPRODUCE", "%q is not signed, always or never", s.Reproduce)
	}
	for _, name := range s.TakesOver {
		if name != "compile-core" && name != "compile-hip" && name != "none" {
			bad("GOROCM_REPRODUCE_TAKES", "%q is not compile-core, compile-hip or none", name)
		}
	}
	if s.Toolchain != "debian" && s.Toolchain != "amd" {
		bad("GOROCM_TOOLCHAIN", "%q is not a toolchain; choose debian or amd", s.Toolchain)
	}
	if len(s.Targets) == 0 && slices.Contains(s.Variants, "hip") {
		bad("GOROCM_TARGETS", "the hip variant needs at least one target, such as gfx1100")
	}
	for i, t := range s.Targets {
		if slices.Contains(s.Targets[:i], t) {
			bad("GOROCM_TARGETS", "%s is there twice", t)
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
		case only && component != "core" && component != "hip":
			bad("GOROCM_CMAKE", "%q: %q is not a component; write NAME=VALUE, or core:NAME=VALUE or hip:NAME=VALUE for one alone", o, component)
		case strings.Contains(option, ":"):
			bad("GOROCM_CMAKE", "%q gives the option a type; write NAME=VALUE", o)
		}
	}
	if s.Jobs < 1 {
		bad("GOROCM_JOBS", "%d is not a number of jobs", s.Jobs)
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
		bad("GOROCM_APT_KEY", "GOROCM_APT_KEY_FILE is set too; choose one")
	case signed && s.AptUnsign:
		bad("GOROCM_APT_UNSIGNED", "a key is given too; choose one")
	case (signed || s.AptUnsign) && s.AptURL == "":
		bad("GOROCM_APT_URL", "is empty; give the address at which the apt repository will be served, such as https://example.org/apt")
	}
	if s.AptValid <= 0 {
		bad("GOROCM_APT_VALID", "%s is not a time such as 2160h", s.AptValid)
	}
	return errors.Join(errs...)
}

// Signed says whether any key is given.
func (s *Settings) Signed() bool {
	return s.AptKeyFile+string(s.AptKey)+s.Minisign+s.SigningKey != ""
}

// Twice says whether a release has to come out the same from a second build.
func (s *Settings) Twice() bool {
	return s.Reproduce == "always" || s.Reproduce == "signed" && s.Signed()
}

// checkMaintainer wants somebody to answer for what is signed.
func (s *Settings) checkMaintainer() error {
	if s.Maintainer == "" {
		if !s.Signed() {
			return nil
		}
		return errors.New("is empty, and a key is given: say who answers for the release, as NAME <ADDRESS>")
	}
	who, err := mail.ParseAddress(s.Maintainer)
	if err != nil {
		return fmt.Errorf("%q: %w: give NAME <ADDRESS>", s.Maintainer, err)
	}
	if want := who.Name + " <" + who.Address + ">"; who.Name == "" || s.Maintainer != want {
		return fmt.Errorf("%q is not of the form NAME <ADDRESS>, as Jane Doe <jane@example.org>", s.Maintainer)
	}
	return nil
}

// ParseEpoch reads a time as SOURCE_DATE_EPOCH has it: whole seconds since 1970 in UTC (see
// reproducible-builds.org's specification of the variable).
func ParseEpoch(v string) (time.Time, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(v, "+") {
		return time.Time{}, fmt.Errorf("%q is not a number of seconds since 1970", v)
	}
	return time.Unix(n, 0).UTC(), nil
}

// Print writes the settings as they stand, one a line.
func (s *Settings) Print(w io.Writer) error {
	params, err := env.GetFieldParams(s)
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range s.rows(params) {
		if _, err := fmt.Fprintln(tw, row); err != nil {
			return err
		}
	}
	return tw.Flush()
}
