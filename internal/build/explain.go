package build

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// stageOutputs compares the outputs of the stages that two caches both made
// from equal inputs. A stage that only one of them has is a difference, since
// its inputs then depended on the circumstances.
func stageOutputs(first, second string) ([]compared, error) {
	names, err := filepath.Glob(filepath.Join(second, "*", "stage.json"))
	if err != nil {
		return nil, err
	}
	var rows []compared
	for _, n := range names {
		name := filepath.Base(filepath.Dir(n))
		if strings.HasPrefix(name, "toolchain-") {
			continue // holds the id of the image, which has a time of import
		}
		row := compared{name: "stage " + name, taken: exists(filepath.Join(second, name, takenName))}
		row.paths = [2]string{filepath.Join(first, name, "out"), filepath.Join(second, name, "out")}
		if row.second, err = stage.Digest(row.paths[1]); err != nil {
			return nil, err
		}
		row.first, err = stage.Digest(row.paths[0])
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// explain says where two files, or the files of two folders, begin to differ.
func explain(ctx context.Context, first, second string) string {
	a, errA := os.Stat(first)
	b, errB := os.Stat(second)
	switch {
	case errors.Is(errA, os.ErrNotExist) && errB == nil && b.IsDir():
		return "only the second build has this stage: its inputs depend on the circumstances"
	case errors.Is(errA, os.ErrNotExist):
		return "only the second build has it"
	case errors.Is(errB, os.ErrNotExist):
		return "only the first build has it"
	case errA != nil || errB != nil:
		return errors.Join(errA, errB).Error()
	case a.IsDir() && b.IsDir():
		return explainFolders(ctx, first, second)
	}
	if out, err := exec.CommandContext(ctx, "diffoscope", "--text", "-", first, second).Output(); len(out) > 0 && err != nil {
		return "diffoscope:\n" + string(out)
	}
	if d := explainPack(first, second); d != "" {
		return d
	}
	if d := explainELF(first, second); d != "" {
		return d
	}
	return explainBytes(first, second)
}

// explainBytes says where the bytes of two files begin to differ.
func explainBytes(first, second string) string {
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if err := errors.Join(errA, errB); err != nil {
		return err.Error()
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return fmt.Sprintf("first difference at byte %d of %d and %d", i, len(a), len(b))
		}
	}
	return fmt.Sprintf("sizes are %d and %d bytes", len(a), len(b))
}

// explainFolders names the first file that differs between two folders.
func explainFolders(ctx context.Context, first, second string) string {
	rows, err := digests(first, second)
	if err != nil {
		return err.Error()
	}
	for _, r := range rows {
		if r.first != r.second {
			return r.name + ": " + explain(ctx, r.paths[0], r.paths[1])
		}
		a, errA := os.Stat(r.paths[0])
		b, errB := os.Stat(r.paths[1])
		if err := errors.Join(errA, errB); err != nil {
			return err.Error()
		}
		if a.Mode() != b.Mode() {
			return fmt.Sprintf("%s: its modes are %v and %v", r.name, a.Mode(), b.Mode())
		}
	}
	return "the files are the same, links or empty folders differ"
}

// explainPack names the first file that differs between two packed bundles.
func explainPack(first, second string) string {
	a, errA := bundle.OpenFile(first)
	b, errB := bundle.OpenFile(second)
	if errA == nil {
		defer a.Close()
	}
	if errB == nil {
		defer b.Close()
	}
	if errA != nil || errB != nil {
		return ""
	}
	for _, f := range a.Manifest().Files {
		other, ok := b.Manifest().File(f.Path)
		switch {
		case !ok:
			return f.Path + " is in the first bundle alone"
		case other.SHA256 != f.SHA256:
			return fmt.Sprintf("%s differs: %s and %s", f.Path, f.SHA256, other.SHA256)
		}
	}
	return "the files are the same, the manifests or the packing differ"
}

// explainELF names the first section that differs between two ELF files.
func explainELF(first, second string) string {
	a, errA := elf.Open(first)
	b, errB := elf.Open(second)
	if errA == nil {
		defer a.Close()
	}
	if errB == nil {
		defer b.Close()
	}
	if errA != nil || errB != nil {
		return ""
	}
	for i, sa := range a.Sections {
		if i >= len(b.Sections) || b.Sections[i].Name != sa.Name {
			return "the sections differ from " + sa.Name + " on"
		}
		if sa.Type == elf.SHT_NOBITS {
			continue
		}
		da, errA := io.ReadAll(sa.Open())
		db, errB := io.ReadAll(b.Sections[i].Open())
		if errA != nil || errB != nil || !bytes.Equal(da, db) {
			return fmt.Sprintf("section %s differs (%d and %d bytes)", sa.Name, len(da), len(db))
		}
	}
	return "the sections are the same, the headers differ"
}
