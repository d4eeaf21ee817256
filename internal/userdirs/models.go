package userdirs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// EnvModels is the variable that names the directory of models.
const EnvModels = "GOROCM_MODELS"

// Models returns the directories to try for models, best first: $GOROCM_MODELS and
// then nothing else, or models in the directory go-rocm of $STATE_DIRECTORY
// (systemd), of $XDG_DATA_HOME or of .local/share in the home directory. There is at
// least one. Like those of [Cache], none belongs to another user.
func Models() ([]Dir, error) { return findModels(os.Getenv, passwdHome, os.Geteuid()) }

func findModels(env func(string) string, home func() string, euid int) ([]Dir, error) {
	if dir := env(EnvModels); dir != "" {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("%w: %s is %q; set an absolute path", ErrNone, EnvModels, dir)
		}
		return []Dir{{filepath.Clean(dir), EnvModels}}, nil
	}
	l := list{euid: euid}
	// StateDirectory= of systemd.exec(5) may name several, joined with colons. It is
	// the service's own directory, such as /var/lib/go-rocm.
	systemd, _, _ := strings.Cut(env("STATE_DIRECTORY"), ":")
	l.add("STATE_DIRECTORY", systemd, "models")
	l.add("XDG_DATA_HOME", env("XDG_DATA_HOME"), "go-rocm", "models")
	l.add("HOME", env("HOME"), ".local", "share", "go-rocm", "models")
	l.add("/etc/passwd", home(), ".local", "share", "go-rocm", "models")
	if len(l.dirs) > 0 {
		return l.dirs, nil
	}
	return nil, l.none("STATE_DIRECTORY, XDG_DATA_HOME", EnvModels, "a directory for models")
}
