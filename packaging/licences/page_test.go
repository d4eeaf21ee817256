package licences_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/licences"
)

func TestFromPage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "components.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`[
 {"name":"@s/a","version":"1.0.0","purl":"pkg:npm/%40s/a@1.0.0","integrity":"sha512-x","licence":"MIT","texts":[{"name":"LICENSE","body":"Copyright (c) 2020 A. Person\r\n\r\nterms\r\n\r\n"}]},
 {"name":"b","version":"2","purl":"pkg:npm/b@2","licence":"ISC OR MIT","texts":[{"name":"package.json","body":"{}"}]}]`)
	got, err := licences.FromPage(file)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	a := got[0]
	if a.Kind != licences.WebPage || a.PURL != "pkg:npm/%40s/a@1.0.0" || a.Sum != "sha512-x" || !slices.Equal(a.Licences, []string{"MIT"}) ||
		!slices.Equal(a.Holders, []string{"Copyright (c) 2020 A. Person"}) || a.Texts[0].Body != "Copyright (c) 2020 A. Person\n\nterms\n" {
		t.Errorf("%+v", a)
	}
	if !slices.Equal(got[1].Licences, []string{"ISC OR MIT"}) {
		t.Errorf("%+v", got[1])
	}
	for text, want := range map[string]string{
		`[]`: "lists none", `{`: "components.json", `[{"name":"a","version":"1","purl":"p"}]`: "a 1",
	} {
		write(text)
		if _, err := licences.FromPage(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	write(`[{"name":"a","version":"1","purl":"p","texts":[]}]`)
	if _, err := licences.FromPage(file); !errors.Is(err, licences.ErrNoLicence) {
		t.Errorf("no text: %v", err)
	}
	if _, err := licences.FromPage(file + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
