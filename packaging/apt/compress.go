package apt

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// indexFile is a file below the suite's folder.
type indexFile struct {
	name string
	data []byte
}

// compressed gives an index in its three forms: plain, xz and zstd.
func compressed(name string, text []byte) ([]indexFile, error) {
	forms := []indexFile{{name, text}}
	for _, c := range []struct {
		suffix string
		open   func(io.Writer) (io.WriteCloser, error)
	}{
		{".xz", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }},
		{".zst", func(w io.Writer) (io.WriteCloser, error) {
			// One lane: the result must not depend on the number of processors.
			return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
		}},
	} {
		var b bytes.Buffer
		z, err := c.open(&b)
		if err != nil {
			return nil, fmt.Errorf("compress %s: %w", name, err)
		}
		_, err = z.Write(text)
		if err := errors.Join(err, z.Close()); err != nil {
			return nil, fmt.Errorf("compress %s: %w", name, err)
		}
		forms = append(forms, indexFile{name + c.suffix, b.Bytes()})
	}
	return forms, nil
}
