package selftest

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
)

// redactor removes personal data from texts.
type redactor struct {
	replaced *strings.Replacer
	names    *regexp.Regexp // whole words; nil: none
}

var (
	// uuid is a UUID as the kernel, file systems and Vulkan write it.
	uuid = regexp.MustCompile(`(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)
	// gpuID is the name of a card by its serial number, as ROCm writes it.
	gpuID = regexp.MustCompile(`(?i)\bGPU-[0-9a-f]{4,16}\b`)
	// hardwareAddress is the address of a network card.
	hardwareAddress = regexp.MustCompile(`(?i)\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b`)
	// directory is an absolute path with its last slash.
	directory = regexp.MustCompile(`(?:/[^/\s"',;:()=]+)+/`)
)

// publicDirs are the directories whose names say nothing about a person.
func publicDirs() []string {
	return []string{"/dev/", "/sys/", "/proc/", "/usr/", "/etc/", "/lib/", "/lib64/", "/bin/", "/sbin/", "/boot/", "/opt/rocm"}
}

// isPublic reports whether a directory, with a slash at its end, says nothing about a
// person.
func isPublic(dir string) bool {
	return slices.ContainsFunc(publicDirs(), func(public string) bool { return strings.HasPrefix(dir, public) })
}

// newRedactor returns the redactor for this user and this machine, whose files are
// below root, with the serial numbers of the cards, for messages about files.
func newRedactor(root string, devices []gpu.Device, files ...string) *redactor {
	env := os.Getenv
	names := []string{env("USER"), env("LOGNAME"), env("SUDO_USER")}
	dirs := []string{env("HOME")}
	if u, err := user.Current(); err == nil {
		names, dirs = append(names, u.Username), append(dirs, u.HomeDir)
	}
	if host, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(host, ".")
		names = append(names, host, short)
	}
	for _, name := range []string{"XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "TMPDIR", userdirs.EnvCache, userdirs.EnvModels} {
		dirs = append(dirs, env(name))
	}
	if dir, err := os.Getwd(); err == nil {
		dirs = append(dirs, dir)
	}
	for _, file := range append(files, env(locate.EnvBundle)) {
		if abs, err := filepath.Abs(file); file != "" && err == nil {
			dirs = append(dirs, filepath.Dir(abs), filepath.Dir(file))
		}
	}
	if root != "/" {
		dirs = append(dirs, root)
	}
	var serials []string
	for _, d := range devices {
		if d.UniqueID > 1 {
			serials = append(serials, fmt.Sprintf("%016x", d.UniqueID), fmt.Sprintf("%x", d.UniqueID), fmt.Sprint(d.UniqueID))
		}
	}
	return makeRedactor(names, dirs, serials)
}

func makeRedactor(names, dirs, serials []string) *redactor {
	var pairs, words []string
	// The longest first: what is below a directory may say more of a person.
	slices.SortFunc(dirs, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, dir := range dirs {
		if dir = strings.TrimSuffix(dir, "/"); strings.HasPrefix(dir, "/") && !isPublic(dir+"/") {
			pairs = append(pairs, dir, "…")
		}
	}
	for _, serial := range serials {
		if len(serial) > 4 {
			pairs = append(pairs, serial, "…")
		}
	}
	for _, name := range names {
		switch name {
		case "", "root", "localhost": // they are everybody's
		default:
			words = append(words, regexp.QuoteMeta(name))
		}
	}
	r := &redactor{replaced: strings.NewReplacer(pairs...)}
	if len(words) > 0 {
		r.names = regexp.MustCompile(`(^|[^\pL\pN])(?:` + strings.Join(words, "|") + `)($|[^\pL\pN])`)
	}
	return r
}

// text returns a text without personal data.
func (r *redactor) text(s string) string {
	s = r.replaced.Replace(s)
	s = uuid.ReplaceAllString(s, "…")
	s = gpuID.ReplaceAllString(s, "GPU-…")
	s = hardwareAddress.ReplaceAllString(s, "…")
	s = directory.ReplaceAllStringFunc(s, func(dir string) string {
		if isPublic(dir) {
			return dir
		}
		return "…/"
	})
	for r.names != nil { // matches may share the character between them
		next := r.names.ReplaceAllString(s, "${1}…${2}")
		if next == s {
			break
		}
		s = next
	}
	return s
}

// redact removes personal data from every text of a report.
func (r *redactor) redact(report *Report) { r.walk(reflect.ValueOf(report)) }

func (r *redactor) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			r.walk(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				r.walk(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			r.walk(v.Index(i))
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() { // other types have values of their own
			v.SetString(r.text(v.String()))
		}
	}
}
