package recipe

import (
	"bytes"
	_ "embed" // the recorded sizes are part of the program
	"encoding/json"
	"fmt"
	"slices"
)

// Sizes are a variant's recorded sizes in bytes.
type Sizes struct {
	Packed   int64 `json:"packed"`
	Unpacked int64 `json:"unpacked"`
	// Targets are the GPU targets that the record is for.
	Targets []string `json:"targets,omitempty"`
}

// growth is how much larger than its record a bundle may be: 3 %.
const growth = 0.03

//go:embed sizes.lock.json
var sizesJSON []byte

// RecordedSizes gives the sizes of each bundle, by its label, as `mage lock` recorded them.
func RecordedSizes() (map[string]Sizes, error) { return ParseSizes(sizesJSON) }

// ParseSizes reads recorded sizes; unknown fields are errors.
func ParseSizes(b []byte) (map[string]Sizes, error) {
	all := map[string]Sizes{}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("recorded sizes: %w", err)
	}
	return all, nil
}

// FormatSizes writes sizes as the lock file holds them.
func FormatSizes(all map[string]Sizes) ([]byte, error) {
	b, err := json.MarshalIndent(all, "", "  ")
	return append(b, '\n'), err
}

// SizeError says that a bundle has outgrown its record.
type SizeError struct {
	Variant, What  string
	Recorded, Size int64
}

// Error names both sizes and the way to accept the new one.
func (e *SizeError) Error() string {
	return fmt.Sprintf("the %s bundle is %.1f MB %s, more than 3 %% over the recorded %.1f MB: find out why, or accept it with `mage lock`",
		e.Variant, float64(e.Size)/1e6, e.What, float64(e.Recorded)/1e6)
}

// CheckSize holds a bundle against the record. Bundles with other targets than
// the recorded ones, or of a variant without a record, are not judged.
func CheckSize(recorded map[string]Sizes, variant string, now Sizes) error {
	old, ok := recorded[variant]
	if !ok || !slices.Equal(old.Targets, now.Targets) {
		return nil
	}
	for _, c := range []struct {
		what     string
		old, now int64
	}{{"packed", old.Packed, now.Packed}, {"unpacked", old.Unpacked, now.Unpacked}} {
		if float64(c.now) > float64(c.old)*(1+growth) {
			return &SizeError{Variant: variant, What: c.what, Recorded: c.old, Size: c.now}
		}
	}
	return nil
}

// Sizes gives the sizes of a packed bundle.
func (p *Packed) Sizes() Sizes {
	s := Sizes{Packed: p.Size, Unpacked: p.Manifest.Size()}
	for _, t := range p.Manifest.Targets {
		s.Targets = append(s.Targets, t.String())
	}
	return s
}
