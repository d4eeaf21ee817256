package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Names of what is checked beside the list of digests.
const (
	// MinisignFile is the list's signature by minisign or signify.
	MinisignFile = ChecksumsFile + ".minisig"
	// OpenPGPFile is the list's signature by OpenPGP, detached and armoured.
	OpenPGPFile = ChecksumsFile + ".asc"
	// ProvenanceFile is the signed statement of where the files came from.
	ProvenanceFile = "provenance.dsse.json"
)

// ErrUnsigned says that a key was given for a signature that is not there.
var ErrUnsigned = errors.New("not signed")

// TrustedKeys are the public keys that a receiver trusts. For each that is given the
// release must hold that signature.
type TrustedKeys struct {
	Minisign   *MinisignVerifier
	OpenPGP    *OpenPGPVerifier
	Provenance *ProvenanceVerifier
}

// Report says what was found to be right.
type Report struct {
	// Files were compared with their digests.
	Files []string
	// Signatures are the files with the signatures that were checked. Without
	// one the digests show that the files belong together, and nothing of where
	// they come from.
	Signatures []string
	// Unattested are files of which the provenance names neither name nor digest,
	// such as modules of earlier releases and the indexes of a repository.
	Unattested []string
}

// Verify checks the folder of a release: that its files are those of the list,
// all of them and no other, and every signature for which there is a key.
// Differences are a *ChecksumError; a bad signature is ErrSignature, a missing one
// ErrUnsigned.
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
	report.Unattested, err = hold(statement, list)
	return report, err
}

// hold compares a list with the subjects of a statement: each has to be in the
// list as it was built. What the statement does not cover is returned.
func hold(statement *Statement, list []Checksum) (unnamed []string, err error) {
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
		if s.Path != ProvenanceFile && statement.Covers(s) != nil { // it cannot be about itself
			unnamed = append(unnamed, s.Path)
		}
	}
	return unnamed, nil
}

// VerifyFile checks one file of a release by what was published with it: the
// list of digests in its folder or, for a file in a folder of the release, above
// it. ErrChecksums is returned when there is none.
func VerifyFile(ctx context.Context, file string, keys TrustedKeys) (*Report, error) {
	dir, name, err := releaseOf(file)
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
	got, err := measure(ctx, dir, name)
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

// releaseOf finds the folder with the list that a file belongs to.
func releaseOf(file string) (dir, name string, err error) {
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
			return "", "", fmt.Errorf("%w: there is none in the folder of %s or above it", ErrChecksums, file)
		}
	}
}

// readList reads the list after its signatures were checked.
func readList(dir string, keys TrustedKeys) ([]Checksum, *Report, error) {
	raw, err := os.ReadFile(filepath.Join(dir, ChecksumsFile))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrChecksums, err)
	}
	report := &Report{}
	check := func(name string, verify func(message, signature []byte) error) error {
		sig, err := os.ReadFile(filepath.Join(dir, name))
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
	f, err := os.Open(filepath.Join(dir, ProvenanceFile))
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
