//go:build unix

package userdirs

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestFindModels(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		home string
		env  map[string]string
		want []string
		err  error
	}{
		"variable": {env: map[string]string{EnvModels: "/x/", "HOME": "/h"}, want: []string{"/x"}},
		"relative": {env: map[string]string{EnvModels: "x"}, err: ErrNone},
		"home":     {env: map[string]string{"HOME": "/h"}, want: []string{"/h/.local/share/go-rocm/models"}},
		"xdg":      {env: map[string]string{"HOME": "/h", "XDG_DATA_HOME": "/d"}, want: []string{"/d/go-rocm/models", "/h/.local/share/go-rocm/models"}},
		"systemd":  {env: map[string]string{"STATE_DIRECTORY": "/var/lib/go-rocm:/var/lib/x"}, want: []string{"/var/lib/go-rocm/models"}},
		"passwd":   {home: "/srv/u", want: []string{"/srv/u/.local/share/go-rocm/models"}},
		"nothing":  {env: map[string]string{"HOME": "/"}, err: ErrNone},
	} {
		dirs, err := findModels(func(k string) string { return c.env[k] }, func() string { return c.home }, os.Geteuid())
		if !errors.Is(err, c.err) || !slices.Equal(paths(dirs), c.want) {
			t.Errorf("%s: %q, %v; want %q, %v", name, paths(dirs), err, c.want, c.err)
		}
		if err != nil && !strings.Contains(err.Error(), EnvModels) {
			t.Errorf("%s: the error does not name the variable: %v", name, err)
		}
	}
}
