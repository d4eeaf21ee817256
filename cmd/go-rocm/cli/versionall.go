package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// provenance is what the answers of a service depend on, besides the bundle: the
// bytes of the pulled models and of the settings.
type provenance struct {
	Models   []modelstore.Record `json:"models"`
	Settings *settingsInfo       `json:"settings,omitempty"`
}

// settingsInfo identifies a configuration file.
type settingsInfo struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// readProvenance reads the records of the store and the configuration file, which
// may be missing unless it was named.
func readProvenance(config string) (*provenance, error) {
	p := &provenance{}
	if err := withStore(func(s *modelstore.Store) (err error) {
		p.Models, err = storedRecords(s, nil)
		return err
	}); err != nil {
		return nil, err
	}
	path := config
	if path == "" {
		path = defaultConfig
	}
	raw, err := regfile.Read(path, maxConfigSize)
	switch {
	case errors.Is(err, fs.ErrNotExist) && config == "":
		return p, nil
	case err != nil:
		return nil, fmt.Errorf("version: %w", err)
	}
	sum := sha256.Sum256(raw)
	p.Settings = &settingsInfo{path, hex.EncodeToString(sum[:])}
	return p, nil
}

func (p *provenance) print(w io.Writer) {
	for _, r := range p.Models {
		_, _ = fmt.Fprintf(w, "%-10s %s\n", "model", printable(r.Name))
		for _, f := range r.Files {
			_, _ = fmt.Fprintf(w, "%-10s %s %s\n", "", f.SHA256, printable(f.Name))
		}
	}
	if p.Settings != nil {
		_, _ = fmt.Fprintf(w, "%-10s %s\n%-10s %s\n", "settings", printable(p.Settings.Path), "", p.Settings.SHA256)
	}
}
