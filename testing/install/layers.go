package install

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types"
	"github.com/klauspost/compress/zstd"
)

// firstZstd is the first major version of Docker that loads layers that are compressed
// with zstd. Debian 12 has 20.10.
const firstZstd = 23

// lacksZstd reports whether an engine is Docker of a version before firstZstd.
func lacksZstd(v types.Version) bool {
	if strings.Contains(v.Platform.Name, "Podman") {
		return false
	}
	for _, c := range v.Components {
		if strings.HasPrefix(c.Name, "Podman") {
			return false
		}
	}
	major, _, _ := strings.Cut(v.Version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < firstZstd
}

// imageReference returns the name of the image in a tar file, from Docker's manifest.
func imageReference(path string) (ref string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			return "", fmt.Errorf("find manifest.json: %w", err)
		}
		if h.Name != "manifest.json" {
			continue
		}
		var list []struct{ RepoTags []string }
		if err := json.NewDecoder(r).Decode(&list); err != nil {
			return "", fmt.Errorf("manifest.json: %w", err)
		}
		if len(list) != 1 || len(list[0].RepoTags) != 1 {
			return "", errors.New("manifest.json names not exactly one image")
		}
		return list[0].RepoTags[0], nil
	}
}

// decompressLayers copies an image and writes the files that are compressed with zstd
// uncompressed, under the same names: Docker identifies a layer by its content, and reads
// its name from manifest.json. It is what skopeo does on the way to Docker's daemon.
func decompressLayers(w io.Writer, r io.Reader) error {
	out := tar.NewWriter(w)
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return err
		}
		body := bufio.NewReader(in)
		magic, err := body.Peek(4)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}) { // RFC 8878, 3.1.1
			err = writeDecompressed(out, h, body)
		} else {
			err = writeEntry(out, h, body)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func writeEntry(w *tar.Writer, h *tar.Header, body io.Reader) error {
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, body)
	return err
}

// writeDecompressed writes the content of a zstd stream, which a temporary file holds
// until its size is known.
func writeDecompressed(w *tar.Writer, h *tar.Header, body io.Reader) (err error) {
	f, err := os.CreateTemp("", "layer-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	z, err := zstd.NewReader(body)
	if err != nil {
		return err
	}
	defer z.Close()
	size, err := z.WriteTo(f)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	plain := *h
	plain.Size = size
	return writeEntry(w, &plain, f)
}
