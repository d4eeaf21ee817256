package extract

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFindPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		dir, home string
		env       map[string]string
		want      []string
		err       error
	}{
		"option":     {dir: "/a/b/../c", env: map[string]string{CacheEnv: "/x"}, want: []string{"/a/c"}},
		"variable":   {env: map[string]string{CacheEnv: "/x", "HOME": "/h"}, want: []string{"/x"}},
		"named /tmp": {env: map[string]string{CacheEnv: "/tmp/mine"}, want: []string{"/tmp/mine"}},
		"relative":   {env: map[string]string{CacheEnv: "x"}, err: ErrNoCache},
		"home":       {env: map[string]string{"HOME": "/h"}, want: []string{"/h/.cache/go-rocm", "/h/.local/share/go-rocm"}},
		"xdg": {
			env:  map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "/d"},
			want: []string{"/c/go-rocm", "/h/.cache/go-rocm", "/d/go-rocm", "/h/.local/share/go-rocm"},
		},
		"relative xdg is ignored": {env: map[string]string{"XDG_CACHE_HOME": "c", "HOME": "/h"}, want: []string{"/h/.cache/go-rocm", "/h/.local/share/go-rocm"}},
		"systemd":                 {env: map[string]string{"CACHE_DIRECTORY": "/var/cache/a:/var/cache/b"}, want: []string{"/var/cache/a/go-rocm"}},
		"passwd":                  {home: "/srv/u", want: []string{"/srv/u/.cache/go-rocm", "/srv/u/.local/share/go-rocm"}},
		"same home twice":         {home: "/h", env: map[string]string{"HOME": "/h"}, want: []string{"/h/.cache/go-rocm", "/h/.local/share/go-rocm"}},
		"home is public":          {home: "/nonexistent", env: map[string]string{"HOME": "/tmp/"}, err: ErrNoCache},
		"home is the root":        {env: map[string]string{"HOME": "/"}, err: ErrNoCache},
		"nothing":                 {err: ErrNoCache},
	} {
		t.Run(name, func(t *testing.T) {
			places, err := findLocations(c.dir, func(k string) string { return c.env[k] }, func() string { return c.home })
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil && !strings.Contains(err.Error(), "absolute path") && !strings.Contains(err.Error(), "set "+CacheEnv) {
				t.Errorf("the error does not name a remedy: %v", err)
			}
			var got []string
			for _, p := range places {
				got = append(got, p.dir)
				if p.from == "" {
					t.Errorf("%s has no source", p.dir)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
