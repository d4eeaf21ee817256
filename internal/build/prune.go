package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Prune removes from the cache what no build has used for some days, and what
// killed runs of verify and bench have left there for as long.
func Prune(days int) error {
	return within(func(ctx context.Context, s *Session) error {
		if days < 1 {
			return fmt.Errorf("%d days: give one or more, since what a running build uses must stay", days)
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
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !info.ModTime().Before(since) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		removed = append(removed, filepath.Base(dir))
	}
	slices.Sort(removed)
	for _, name := range removed {
		if err := s.say("  %s", name); err != nil {
			return err
		}
	}
	return s.say("prune: removed %d folders that were not used since %s", len(removed), since.Format(time.DateOnly))
}
