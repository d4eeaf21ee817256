package regfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// What cannot be written is reported without writing anything.
func TestCheckWritable(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		os.Mkdir(at("dir"), 0o700), os.Mkdir(at("locked"), 0o500), syscall.Mkfifo(at("fifo"), 0o600),
		os.WriteFile(at("empty"), nil, 0o600), os.WriteFile(at("locked.json"), nil, 0o400),
		os.WriteFile(at("usage.json"), []byte(" {\"version\":1}\n"), 0o600), os.WriteFile(at("torn.json"), make([]byte, 100), 0o600),
		os.WriteFile(at("keys"), []byte("first\n"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0 // may write everywhere
	other := errors.New("any error")
	locked := fs.ErrPermission
	if root {
		locked = nil
	}
	for _, c := range []struct {
		name                 string
		dir, append, replace error
	}{
		{"dir", nil, regfile.ErrNotRegular, regfile.ErrNotRegular},
		{"fifo", syscall.ENOTDIR, regfile.ErrNotRegular, regfile.ErrNotRegular},
		{"empty", syscall.ENOTDIR, nil, nil},
		{"empty/x", syscall.ENOTDIR, syscall.ENOTDIR, syscall.ENOTDIR},
		{"absent", fs.ErrNotExist, nil, nil},
		{"absent/x", fs.ErrNotExist, fs.ErrNotExist, fs.ErrNotExist},
		{"usage.json", syscall.ENOTDIR, nil, nil},
		{"torn.json", syscall.ENOTDIR, nil, nil},
		{"keys", syscall.ENOTDIR, nil, other}, // it would be lost
		{"locked.json", syscall.ENOTDIR, locked, nil},
		{"locked", locked, regfile.ErrNotRegular, regfile.ErrNotRegular},
		{"locked/x", fs.ErrNotExist, locked, locked},
	} {
		for check, got := range map[string][2]error{
			"CheckDir": {regfile.CheckDir(at(c.name)), c.dir}, "CheckAppend": {regfile.CheckAppend(at(c.name)), c.append}, "CheckReplace": {regfile.CheckReplace(at(c.name)), c.replace},
		} {
			if want := got[1]; (got[0] == nil) != (want == nil) || want != nil && !errors.Is(want, other) && !errors.Is(got[0], want) {
				t.Errorf("%s(%s): %v, want %v", check, c.name, got[0], want)
			}
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 8 {
		t.Errorf("%d files, %v: something was written", len(entries), err)
	}
}
