package supervise

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

// os/exec copies by io.Copy, which takes a writer's ReadFrom where it has one.
func TestBounded(t *testing.T) {
	for _, size := range []int{0, 1, maxHelp - 1, maxHelp, maxHelp + 1, 5 << 20} {
		var b bounded
		text := bytes.Repeat([]byte("help"), size/4+1)[:size]
		n, err := io.Copy(&b, iotest.DataErrReader(bytes.NewReader(text)))
		if err != nil || n != int64(size) {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		if got := b.Bytes(); !bytes.Equal(got, text[:min(size, maxHelp)]) {
			t.Errorf("of %d bytes it keeps %d, not the first %d", size, len(got), maxHelp)
		}
	}
}
