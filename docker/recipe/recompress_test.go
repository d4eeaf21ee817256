package recipe

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// The bytes do not depend on the number of threads, which is that of the machine, and a
// repetition at a distance of 100 MiB is found.
func TestRecompressCommandIsReproducible(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the zstd program; `mage test` runs this test")
	}
	t.Parallel()
	noise := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	if _, err := random.Read(noise); err != nil {
		t.Fatal(err)
	}
	content := bytes.Join([][]byte{noise, make([]byte, 100<<20), noise}, nil)
	var first []byte
	for _, threads := range []int{1, 2, 5} {
		argv := RecompressCommand(threads)
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Stdin = bytes.NewReader(content)
		got, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", argv, err)
		}
		if first == nil {
			first = got
		}
		if !bytes.Equal(got, first) {
			t.Errorf("%d threads write other bytes than 1", threads)
		}
	}
	if len(first) > len(noise)*5/4 {
		t.Errorf("%d bytes for %d bytes of noise twice", len(first), len(noise))
	}
	var h zstd.Header
	if err := h.Decode(first); err != nil || h.WindowSize != 1<<recompressWindow || !h.HasCheckSum {
		t.Errorf("header %+v, %v", h, err)
	}
	z, err := zstd.NewReader(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, content) {
		t.Errorf("decoded %d bytes, %v; want %d", len(got), err, len(content))
	}
}
