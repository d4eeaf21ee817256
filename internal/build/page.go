package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/internal/webui"
)

// pageFile is the packed web page that the command embeds, relative to the root.
const pageFile = "internal/webui/payload/" + webui.PackName

// embeddedPage builds the web page and puts it to where the command embeds it. It is
// nil if the settings want none.
func (s *Session) embeddedPage(ctx context.Context, root string) (*recipe.Page, error) {
	if !s.Settings.Page {
		return nil, s.embedPage(root, nil)
	}
	start := time.Now()
	p, err := s.Recipe.Page(ctx)
	if err != nil {
		return nil, err
	}
	how := "built in " + time.Since(start).Round(time.Second).String()
	if p.Cached {
		how = "unchanged"
	}
	if err := s.printf("web page: %s", how); err != nil {
		return nil, err
	}
	return p, s.embedPage(root, p)
}

// embedPage writes the packed page to where the command embeds it, or removes it for a
// command without. It does not touch a file that is already there, so that Go's build
// cache keeps its result.
func (s *Session) embedPage(root string, p *recipe.Page) error {
	name := filepath.Join(root, filepath.FromSlash(pageFile))
	if p == nil {
		if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	var b bytes.Buffer
	if err := webui.Pack(&b, p.Files(), s.Recipe.Lock.Time()); err != nil {
		return err
	}
	if b.Len() > maxPage {
		return fmt.Errorf("%w: %.1f MB, and %.1f MB is the limit; find out what has grown", errPageSize, float64(b.Len())/1e6, maxPage/1e6)
	}
	have, err := os.ReadFile(name)
	if err == nil && bytes.Equal(have, b.Bytes()) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".page-")
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return s.printf("embed: the web page, %.1f MB", float64(b.Len())/1e6)
}

// maxPage limits the packed web page, in bytes.
const maxPage = 5_000_000

var errPageSize = errors.New("the web page is too large")
