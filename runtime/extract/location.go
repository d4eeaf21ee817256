package extract

import (
	"fmt"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
)

// location is a possible cache directory and the source of its name.
type location struct {
	dir  string
	from string
}

// findLocations returns the directories to try, best first: dir alone if it is set,
// otherwise those of package userdirs.
func findLocations(dir string) ([]location, error) {
	if dir != "" {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("%w: Options.CacheDir is %q; set it to an absolute path", ErrNoCache, dir)
		}
		return []location{{filepath.Clean(dir), "Options.CacheDir"}}, nil
	}
	dirs, err := userdirs.Cache()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCache, err)
	}
	out := make([]location, len(dirs))
	for i, d := range dirs {
		out[i] = location{d.Path, d.Source}
	}
	return out, nil
}

// CacheDirs returns the cache directories that Extract tries for Options.CacheDir,
// best first. They need not exist.
func CacheDirs(cacheDir string) ([]string, error) {
	locations, err := findLocations(cacheDir)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(locations))
	for i, p := range locations {
		out[i] = p.dir
	}
	return out, nil
}
