//go:build linux

package gateway

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// A FIFO without a writer must not block the start or a reload.
func TestCredentialFilesRejectFIFO(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]CredentialFiles{
		"keys":        {KeyFile: fifo},
		"certificate": {TLSCert: fifo, TLSKey: fifo},
	} {
		if _, err := files.load(); !errors.Is(err, regfile.ErrNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
