package cli

import (
	"fmt"
	"io"
	"os"

	"forge.lthn.ai/core/go-rocm"
)

// maxMedia bounds a file that is shown to a model, in bytes: in base64, with
// what else is in the request, it is to be no more than maxBody.
const maxMedia = 74 << 20

// readMedia reads files that are to be shown to a model.
func readMedia(names ...string) ([]rocm.Media, error) {
	var out []rocm.Media
	for _, name := range names {
		raw, err := readBounded(name, maxMedia)
		if err != nil {
			return nil, fmt.Errorf("--image: %w", err)
		}
		out = append(out, rocm.Media{Data: raw})
	}
	return out, nil
}

func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > most {
		return nil, fmt.Errorf("%s is larger than %d MiB; scale it down", name, most>>20)
	}
	return raw, nil
}
