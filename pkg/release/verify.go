package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// Names of the signatures and the provenance, beside the list of checksums.
const (
	// MinisignFile is the signature of the list by minisign or signify.
	MinisignFile = ChecksumsFile + ".minisig"
	// OpenPGPFile is the armoured detached OpenPGP signature of the list.
	OpenPGPFile = ChecksumsFile + ".asc"
	// ProvenanceFile is the signed provenance of the files.
	ProvenanceFile = "provenance.dsse.json"
)

// Limits of the files that are read before anything is verified, in bytes.
const (
	maxList      = 16 << 20 // about 100 000 lines
	maxSignature = 1 << 20
)

// ErrUnsigned reports a missing signature for which a key was given.
var ErrUnsigned = errors.New("not signed")

// TrustedKeys are the public keys that a receiver trusts. The release must have a
// valid signature for each one that is set.
type TrustedKeys struct {
	Minisign   *MinisignVerifier
	OpenPGP    *OpenPGPVerifier
	Provenance *ProvenanceVerifier
}

// Report lists what was verified.
type Report struct {
	// Files match their checksums.
	Files []string
	// Signatures are the files of the verified signatures. Without a signature the
	// checksums show only that the files belong together, not where they come from.
	Signatures []string
	// Unattested are files whose name and digest are not in the provenance, such as
	// modules of earlier releases and the indexes of a repository.
	Unattested []string
}

// Verify verifies the directory of a release: its files must be exactly those of
// the list, and there must be a valid signature for each key. It returns a
// *ChecksumError for differences, ErrSignature for a bad signature and ErrUnsigned
// for a missing one.
func Verify(ctx context.Context, dir string, keys TrustedKeys) (*Report, error) {
	list, report, err := readList(dir, keys)
	if err != nil {
		return nil, err
	}
	if err := compare(ctx, dir, list); err != nil {
		return nil, err
	}
	for _, s := range list {
		report.Files = append(report.Files, s.Path)
	}
	if keys.Provenance == nil {
		return report, nil
	}
	statement, err := readProvenance(ctx, dir, keys.Provenance)
	if err != nil {
		return nil, err
	}
	report.Signatures = append(report.Signatures, ProvenanceFile)
	report.Unattested, err = compareSubjects(statement, list)
	return report, err
}

// compareSubjects checks that every subject of a statement is in the list with the
// same digest, and returns the files that the statement does not cover.
func compareSubjects(statement *Statement, list []Checksum) (unattested []string, err error) {
	listed := map[string]Checksum{}
	for _, s := range list {
		listed[s.Path] = s
	}
	var missing []string
	for _, subject := range statement.Subject {
		s, ok := listed[subject.Name]
		if !ok {
			missing = append(missing, subject.Name)
			continue
		}
		if err := statement.Covers(s); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 {
		return nil, &ChecksumError{Missing: missing}
	}
	for _, s := range list {
		if s.Path != ProvenanceFile && statement.Covers(s) != nil { // the statement cannot contain its own digest
			unattested = append(unattested, s.Path)
		}
	}
	return unattested, nil
}

// VerifyFile verifies one file of a release with the list of checksums in its
// directory or the nearest parent directory that has one. It returns ErrChecksums
// if there is none.
func VerifyFile(ctx context.Context, file string, keys TrustedKeys) (*Report, error) {
	dir, name, err := findRelease(file)
	if err != nil {
		return nil, err
	}
	list, report, err := readList(dir, keys)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(s Checksum) bool { return s.Path == name })
	if i < 0 {
		return nil, &ChecksumError{Unlisted: []string{name}}
	}
	got, err := fileDigest(ctx, dir, name)
	if err != nil {
		return nil, err
	}
	if got != list[i].SHA256 {
		return nil, &ChecksumError{Changed: []string{name}}
	}
	report.Files = []string{name}
	if keys.Provenance == nil || name == ProvenanceFile {
		return report, nil
	}
	statement, err := readProvenance(ctx, dir, keys.Provenance)
	if err != nil {
		return nil, err
	}
	report.Signatures = append(report.Signatures, ProvenanceFile)
	return report, statement.Covers(list[i])
}

// findRelease returns the directory of the list that a file belongs to.
func findRelease(file string) (dir, name string, err error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", "", fmt.Errorf("verify: %w", err)
	}
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ChecksumsFile)); err == nil {
			name, err := filepath.Rel(dir, abs)
			return dir, filepath.ToSlash(name), err
		}
		if dir == filepath.Dir(dir) {
			return "", "", fmt.Errorf("%w: there is none in the directory of %s or its parents", ErrChecksums, file)
		}
	}
}

// readList verifies the signatures of the list and parses it.
func readList(dir string, keys TrustedKeys) ([]Checksum, *Report, error) {
	raw, err := regfile.Read(filepath.Join(dir, ChecksumsFile), maxList)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrChecksums, err)
	}
	report := &Report{}
	check := func(name string, verify func(message, signature []byte) error) error {
		sig, err := regfile.Read(filepath.Join(dir, name), maxSignature)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("%w: there is no %s", ErrUnsigned, name)
		case err != nil:
			return fmt.Errorf("verify: %w", err)
		}
		if err := verify(raw, sig); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		report.Signatures = append(report.Signatures, name)
		return nil
	}
	if keys.Minisign != nil {
		if err := check(MinisignFile, keys.Minisign.Verify); err != nil {
			return nil, nil, err
		}
	}
	if keys.OpenPGP != nil {
		if err := check(OpenPGPFile, keys.OpenPGP.Verify); err != nil {
			return nil, nil, err
		}
	}
	list, err := ParseChecksums(bytes.NewReader(raw))
	return list, report, err
}

func readProvenance(ctx context.Context, dir string, key *ProvenanceVerifier) (*Statement, error) {
	f, err := regfile.Open(filepath.Join(dir, ProvenanceFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no %s", ErrUnsigned, ProvenanceFile)
	}
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	defer func() { _ = f.Close() }()
	s, err := OpenEnvelope(ctx, f, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ProvenanceFile, err)
	}
	return s, nil
}
