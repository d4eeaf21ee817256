package disk

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// The end of a pack, see docs/pack.md.
const (
	footer = 48
	magic  = "GOROCMX1"
)

// ErrIndex reports that a file has no index at its end.
var ErrIndex = errors.New("no index at the end of the pack")

// copyFrames copies the frames of some groups of a pack to w, so that zstd and tar read
// the same bytes as our reader for one target.
func copyFrames(w io.Writer, pack *os.File, groups ...string) error {
	info, err := pack.Stat()
	if err != nil {
		return err
	}
	foot := make([]byte, footer)
	if _, err := pack.ReadAt(foot, info.Size()-footer); err != nil {
		return fmt.Errorf("%w: %w", ErrIndex, err)
	}
	if !bytes.HasSuffix(foot, []byte(magic)) {
		return fmt.Errorf("%w: it does not end in %s", ErrIndex, magic)
	}
	size := int64(binary.LittleEndian.Uint64(foot[32:]))
	if size <= 0 || size > info.Size()-footer {
		return fmt.Errorf("%w: its size is %d", ErrIndex, size)
	}
	var index struct {
		Frames []struct {
			Offset, Length int64
			Group          string
		}
	}
	if err := json.NewDecoder(io.NewSectionReader(pack, info.Size()-footer-size, size)).Decode(&index); err != nil {
		return fmt.Errorf("%w: %w", ErrIndex, err)
	}
	for _, f := range index.Frames {
		if !slices.Contains(groups, f.Group) {
			continue
		}
		if _, err := io.Copy(w, io.NewSectionReader(pack, f.Offset, f.Length)); err != nil {
			return err
		}
	}
	return nil
}
