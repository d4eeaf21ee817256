package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Clean removes the dist directory, the embedded bundle and the web page. It keeps the stage
// cache: stages are keyed by their inputs and are never stale.
func Clean() error {
	return withCheckout(func(_ context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		if err := s.removeDist(root); err != nil {
			return err
		}
		parts, err := filepath.Glob(filepath.Join(root, payloadDir, payloadParts))
		if err != nil {
			return err
		}
		for _, name := range parts {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		if err := s.embedPage(root, nil); err != nil {
			return err
		}
		return s.printf("clean: removed %s, the embedded bundle and the web page; kept the stage cache in %s", s.Settings.Dist, s.Settings.Cache)
	})
}

// Prune removes from the cache the stages that no build has used for a number of
// days, and directories of that age that interrupted runs of verify and bench
// have left.
func Prune(days int) error {
	return withSession(func(ctx context.Context, s *Session) error {
		if days < 1 {
			return fmt.Errorf("%d days: the number must be at least 1, so that the stages of a running build are kept", days)
		}
		return s.prune(ctx, time.Now().AddDate(0, 0, -days))
	})
}

func (s *Session) prune(ctx context.Context, since time.Time) error {
	removed, err := s.Recipe.Cache.Prune(ctx, since)
	if err != nil {
		return err
	}
	var left []string
	for _, pattern := range []string{"verify-*", "bench-*"} {
		found, err := filepath.Glob(filepath.Join(s.Settings.Cache, pattern))
		if err != nil {
			return err
		}
		left = append(left, found...)
	}
	for _, dir := range left {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		if !info.ModTime().Before(since) || !isWork(dir) {
			continue
		}
		if err := removeWork(dir); err != nil {
			return err
		}
		removed = append(removed, filepath.Base(dir))
	}
	slices.Sort(removed)
	for _, name := range removed {
		if err := s.printf("  %s", name); err != nil {
			return err
		}
	}
	return s.printf("prune: removed %d directories not used since %s", len(removed), since.Format(time.DateOnly))
}
