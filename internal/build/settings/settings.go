// Package settings reads the settings of a build from the environment, once, into
// one typed struct. A malformed variable is an error, and so is an unknown one that
// begins with GOROCM_: a misspelt setting must not be ignored.
package settings

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/mail"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/docker/go-units"
	"golang.org/x/mod/semver"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Settings are the settings of a build, one field for each variable.
type Settings struct {
	Variants         []string      `env:"GOROCM_VARIANTS" envDefault:"hip,cpu" help:"bundles to build: hip, cpu"`
	Flavours         []string      `env:"GOROCM_FLAVOURS" envDefault:"hermetic" help:"flavours of the hip bundle: hermetic, system (uses the host's ROCm); of both, the first is embedded in the command"`
	Targets          []gfx.Target  `env:"GOROCM_TARGETS" envDefault:"gfx1100,gfx1101" help:"GPU targets of the hip bundle"`
	Embed            string        `env:"GOROCM_EMBED" envDefault:"hip" help:"variant of the bundle in the command, the container image and the Go module"`
	Toolchain        string        `env:"GOROCM_TOOLCHAIN" envDefault:"debian" help:"debian, or amd (AMD's own image)"`
	Suite            string        `env:"GOROCM_SUITE" envDefault:"forky" help:"Debian suite of the debian toolchain"`
	BaseImage        string        `env:"GOROCM_BASE_IMAGE" help:"image to compile in, by digest or ID, instead of the toolchain's own"`
	MmdebstrapImage  string        `env:"GOROCM_MMDEBSTRAP_IMAGE" help:"image with mmdebstrap, if it is not installed on this machine"`
	Locked           bool          `env:"GOROCM_LOCKED" envDefault:"false" help:"reject toolchain packages that differ from the locked ones"`
	Source           string        `env:"GOROCM_SOURCE" help:"llama.cpp as a git repository, git bundle or tarball on this machine"`
	CMake            []string      `env:"GOROCM_CMAKE" envSeparator:";" help:"further CMake options, NAME=VALUE;NAME=VALUE, or core:NAME=VALUE and hip:NAME=VALUE for one component"`
	Jobs             int           `env:"GOROCM_JOBS" help:"parallel compile jobs (default: the number of processors)"`
	Memory           Bytes         `env:"GOROCM_MEMORY" envDefault:"0" help:"memory limit of a compile, such as 16GiB (0: no limit)"`
	Cache            string        `env:"GOROCM_CACHE" help:"cache directory (default: go-rocm in the user's cache directory)"`
	Dist             string        `env:"GOROCM_DIST" envDefault:"dist" help:"directory for the deliverables; a directory with other files in it is rejected"`
	Reproduce        string        `env:"GOROCM_REPRODUCE" envDefault:"signed" help:"when a release must be proven reproducible by a second build: signed (if a key is set), always, never"`
	Reuse            []string      `env:"GOROCM_REPRODUCE_REUSE" envDefault:"compile-hip" help:"stages that the second build reuses: compile-core, compile-hip (none: everything is built twice)"`
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
var otherVariables = []string{"GOROCM_BUNDLE", "GOROCM_HIP_BUNDLE", "GOROCM_SYSTEM_BUNDLE", "GOROCM_DEB", "GOROCM_SMALL_DEB", "GOROCM_SMALL_IMAGE", "GOROCM_TORTURE", "GOROCM_CLI", "GOROCM_MODELS", "GOROCM_LLAMA_SOURCE", "GOROCM_API_KEY", "GOROCM_E2E_WORK", "GOROCM_BENCH_PACK"}

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

// parsers parse the types for which the errors of the standard library name no remedy.
var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[bool](): func(v string) (any, error) { return parseBool(v) },
	reflect.TypeFor[int](): func(v string) (any, error) {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		if err != nil {
			return nil, errors.New("is not a number; set one such as 4")
		}
		return n, nil
	},
	reflect.TypeFor[time.Duration](): func(v string) (any, error) {
		d, err := time.ParseDuration(strings.TrimSpace(v))
		if err != nil {
			return nil, errors.New("is not a duration; set one such as 2160h")
		}
		return d, nil
	},
}

// parseBool parses a boolean, in the forms that are usual in environment variables.
func parseBool(v string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(v)) {
	case "1", "t", "true", "y", "yes", "on":
		return true, nil
	case "0", "f", "false", "n", "no", "off":
		return false, nil
	}
	return false, errors.New("is not a boolean; set true or false")
}

// translateError returns the errors of the parser with the names of the variables instead of
// those of the fields.
func translateError(err error, values map[string]string) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return fmt.Errorf("settings: %w", err)
	}
	var errs []error
	for _, err := range all.Errors {
		var parse env.ParseError
		if !errors.As(err, &parse) {
			errs = append(errs, fmt.Errorf("settings: %w", err))
			continue
		}
		name := parse.Name
		if f, ok := reflect.TypeFor[Settings]().FieldByName(parse.Name); ok {
			name = f.Tag.Get("env")
		}
		value := ""
		if _, named := parsers[parse.Type]; named {
			value = fmt.Sprintf("%q ", values[name])
		}
		remedy := ""
		if parse.Type == reflect.TypeFor[[]gfx.Target]() {
			remedy = "; set targets such as gfx1100,gfx1101"
		}
		errs = append(errs, fmt.Errorf("settings: %s: %s%w%s", name, value, parse.Err, remedy))
	}
	return errors.Join(errs...)
}

// trimLists removes spaces around the elements of lists, and empty elements. It returns
// an error for a list without elements.
func trimLists(values map[string]string) error {
	var errs []error
	for f := range reflect.TypeFor[Settings]().Fields() {
		name := f.Tag.Get("env")
		v, ok := values[name]
		if !ok || f.Type.Kind() != reflect.Slice {
			continue
		}
		sep := separator(f)
		var parts []string
		for part := range strings.SplitSeq(v, sep) {
			if part = strings.TrimSpace(part); part != "" {
				parts = append(parts, part)
			}
		}
		if len(parts) == 0 {
			errs = append(errs, fmt.Errorf("settings: %s: %q lists nothing; unset it for the default, %q", name, v, f.Tag.Get("envDefault")))
		}
		values[name] = strings.Join(parts, sep)
	}
	return errors.Join(errs...)
}

// separator returns the separator of a list.
func separator(f reflect.StructField) string {
	return cmp.Or(f.Tag.Get("envSeparator"), ",")
}

// unknown returns an error for each variable that begins with GOROCM_ and is no
// setting.
func unknown(values map[string]string) error {
	params, err := env.GetFieldParams(&Settings{})
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	known := slices.Clone(otherVariables)
	for _, p := range params {
		known = append(known, p.Key)
	}
	slices.Sort(known)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if strings.HasPrefix(name, "GOROCM_") && !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("settings: %s is not a setting; `mage config` lists them", name))
		}
	}
	return errors.Join(errs...)
}

// check returns all errors of the settings.
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
		if name != "compile-core" && name != "compile-hip" && name != "none" {
			bad("GOROCM_REPRODUCE_REUSE", "%q is not a stage; choose from compile-core, compile-hip, none", name)
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
		case only && component != "core" && component != "hip":
			bad("GOROCM_CMAKE", "%q: %q is not a component; write NAME=VALUE, or core:NAME=VALUE or hip:NAME=VALUE for one component", o, component)
		case strings.Contains(option, ":"):
			bad("GOROCM_CMAKE", "%q has a type; write NAME=VALUE", o)
		}
	}
	if err := CheckVersion(s.Version); s.Version != "" && err != nil {
		bad("GOROCM_VERSION", "%w", err)
	}
	for _, name := range s.Bench {
		if !slices.Contains(Benchmarks, name) {
			bad("GOROCM_BENCH", "%q is not a benchmark; choose from %s", name, strings.Join(Benchmarks, ", "))
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

// Benchmarks are the names of all benchmarks, in the order of docs/benchmarks.md.
var Benchmarks = []string{"tokens", "ready", "first", "flow", "cancel", "batch", "memory", "extract", "pack", "compile", "unchanged", "go"}

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

// Print writes a table of the settings: name, value and meaning, one per line.
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

// rows returns name, value and meaning of each setting, tab-separated.
func (s *Settings) rows(params []env.FieldParams) []string {
	v := reflect.ValueOf(s).Elem()
	rows := make([]string, 0, len(params))
	for i, p := range params {
		value := fmt.Sprint(v.Field(i).Interface())
		if f := v.Field(i); f.Kind() == reflect.Slice {
			parts := make([]string, f.Len())
			for j := range parts {
				parts[j] = fmt.Sprint(f.Index(j).Interface())
			}
			value = strings.Join(parts, separator(v.Type().Field(i)))
		}
		rows = append(rows, p.Key+"\t"+value+"\t"+v.Type().Field(i).Tag.Get("help"))
	}
	return rows
}
