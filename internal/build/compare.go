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
	"slices"
	"strings"
	"text/tabwriter"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// comparison is one row of the table: a file or stage of both builds.
type comparison struct {
	name, first, second string    // name and digests
	paths               [2]string // where both are
	reused              bool      // the second is a copy of the first
}

// compare prints a table with the digests of both deliveries and of the stages in
// both caches, and returns an error that explains every difference.
func (s *Session) compare(ctx context.Context, firstDist, secondDist, firstStages, secondStages string) error {
	files, err := compareFiles(firstDist, secondDist)
	if err != nil {
		return err
	}
	stages, err := compareStages(firstStages, secondStages)
	if err != nil {
		return err
	}
	tw := tabwriter.NewWriter(s.Out, 0, 4, 2, ' ', 0)
	var differences []error
	reused := 0
	for _, r := range append(stages, files...) {
		result := "equal"
		if r.reused {
			result = "reused"
			reused++
		}
		if r.first != r.second {
			result = "DIFFERS"
			differences = append(differences, fmt.Errorf("%s: %s", r.name, describeDifference(ctx, r.paths[0], r.paths[1])))
		}
		if _, err := fmt.Fprintf(tw, "%s\t%s\t%.16s\t%.16s\n", result, r.name, r.first, r.second); err != nil {
			return err
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(differences) > 0 {
		return fmt.Errorf("not reproducible:\n%w", errors.Join(differences...))
	}
	return s.printf("reproduce: %d artifacts and stages are identical bit for bit, %d were reused", len(files)+len(stages)-reused, reused)
}

// compareFiles compares the files of two directories by name.
func compareFiles(first, second string) ([]comparison, error) {
	var rows []comparison
	for _, dir := range []string{first, second} {
		names, err := filesBelow(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			sum, err := stage.FileDigest(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			i := slices.IndexFunc(rows, func(r comparison) bool { return r.name == name })
			if i < 0 {
				rows = append(rows, comparison{name: name, paths: [2]string{filepath.Join(first, name), filepath.Join(second, name)}})
				i = len(rows) - 1
			}
			if dir == first {
				rows[i].first = sum
			} else {
				rows[i].second = sum
			}
		}
	}
	return rows, nil
}

// compareStages compares the outputs of the stages in two caches. A stage that
// only the second cache has is a difference: its inputs depended on the
// environment.
func compareStages(first, second string) ([]comparison, error) {
	names, err := filepath.Glob(filepath.Join(second, "*", "stage.json"))
	if err != nil {
		return nil, err
	}
	var rows []comparison
	for _, n := range names {
		name := filepath.Base(filepath.Dir(n))
		if strings.HasPrefix(name, "toolchain-") {
			continue // contains the ID of the image, which depends on the time of the import
		}
		row := comparison{name: "stage " + name, reused: exists(filepath.Join(second, name, reusedMark))}
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

// describeDifference describes the first difference between two files, or between the files
// of two directories.
func describeDifference(ctx context.Context, first, second string) string {
	a, errA := os.Stat(first)
	b, errB := os.Stat(second)
	switch {
	case errors.Is(errA, os.ErrNotExist) && errB == nil && b.IsDir():
		return "only the second build has this stage: its inputs depend on the environment"
	case errors.Is(errA, os.ErrNotExist):
		return "only the second build has it"
	case errors.Is(errB, os.ErrNotExist):
		return "only the first build has it"
	case errA != nil || errB != nil:
		return errors.Join(errA, errB).Error()
	case a.IsDir() && b.IsDir():
		return explainDirs(ctx, first, second)
	}
	if out, err := exec.CommandContext(ctx, "diffoscope", "--text", "-", first, second).Output(); len(out) > 0 && err != nil {
		return "diffoscope:\n" + string(out)
	}
	if d := explainPacks(first, second); d != "" {
		return d
	}
	if d := explainELF(first, second); d != "" {
		return d
	}
	return explainBytes(first, second)
}

// explainBytes describes the first byte that differs between two files.
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
	return fmt.Sprintf("the sizes are %d and %d bytes", len(a), len(b))
}

// explainDirs describes the first file that differs between two directories.
func explainDirs(ctx context.Context, first, second string) string {
	rows, err := compareFiles(first, second)
	if err != nil {
		return err.Error()
	}
	for _, r := range rows {
		if r.first != r.second {
			return r.name + ": " + describeDifference(ctx, r.paths[0], r.paths[1])
		}
		a, errA := os.Stat(r.paths[0])
		b, errB := os.Stat(r.paths[1])
		if err := errors.Join(errA, errB); err != nil {
			return err.Error()
		}
		if a.Mode() != b.Mode() {
			return fmt.Sprintf("%s: the modes are %v and %v", r.name, a.Mode(), b.Mode())
		}
	}
	return "the files are identical, links or empty directories differ"
}

// explainPacks describes the first file that differs between two packed bundles,
// or returns "" for files that are not packed bundles.
func explainPacks(first, second string) string {
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
			return "only the first bundle has " + f.Path
		case other.SHA256 != f.SHA256:
			return fmt.Sprintf("%s differs: %s and %s", f.Path, f.SHA256, other.SHA256)
		}
	}
	return "the files are identical, the manifests or the packing differ"
}

// explainELF describes the first section that differs between two ELF files, or
// returns "" for other files.
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
	return "the sections are identical, the headers differ"
}
