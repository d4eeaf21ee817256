package webui

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// PackName is the name of the packed page in the directory from which it is embedded.
const PackName = "page.zip"

const (
	// methodZstd is the method of compressed entries: each is one frame of zstd, which is
	// a sixth smaller than deflate.
	methodZstd = zstd.ZipMethodWinZip
	// maxWindow is the largest window that browsers accept (RFC 9659 3).
	maxWindow = 8 << 20
)

// Pack writes the page in the directory dir to w: a zip file whose entries have the
// SHA-256 of their contents as comments. The same files result in the same bytes; when
// is the time of all entries.
func Pack(w io.Writer, dir string, when time.Time) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(methodZstd, func(out io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(out, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(maxWindow), zstd.WithEncoderConcurrency(1))
	})
	found := false
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", name)
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(name) //nolint:gosec // a directory of the build
		if err != nil {
			return err
		}
		found = found || rel == indexName
		sum := sha256.Sum256(content)
		h := &zip.FileHeader{Name: filepath.ToSlash(rel), Comment: hex.EncodeToString(sum[:]), Modified: when.UTC()}
		if isCompressible(h.Name) {
			h.Method = methodZstd
		}
		to, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = io.Copy(to, bytes.NewReader(content))
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%s has no %s", dir, indexName)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		return fmt.Errorf("pack the web page: %w", err)
	}
	return nil
}

// isCompressible reports whether a file of the page is not compressed by its format.
func isCompressible(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".webp", ".gif", ".woff", ".woff2", ".zip", ".gz":
		return false
	}
	return true
}
