package extract

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// A directory in the options is the only one; otherwise package userdirs, which has
// the tests of the order, names them.
func TestCacheDirs(t *testing.T) {
	for name, c := range map[string]struct {
		dir, env string
		want     []string
		err      error
	}{
		"option":            {dir: "/a/b/../c", env: "/x", want: []string{"/a/c"}},
		"variable":          {env: "/x", want: []string{"/x"}},
		"relative option":   {dir: "a", env: "/x", err: ErrNoCache},
		"relative variable": {env: "x", err: ErrNoCache},
	} {
		t.Setenv(CacheEnv, c.env)
		got, err := CacheDirs(c.dir)
		if !errors.Is(err, c.err) || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v; want %q, %v", name, got, err, c.want, c.err)
		}
		if err != nil && !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%s: the error does not name a remedy: %v", name, err)
		}
	}
}
