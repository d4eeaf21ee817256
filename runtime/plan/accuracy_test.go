package plan_test

import (
	"os"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
)

// TestAgainstFitParams compares the estimate with the output of llama.cpp
// v0.5.0's llama-fit-params for the same shapes and arguments. This command
// records it:
//
//	go run ./testing/ggufgen/cmd/fitcheck -rpc ADDRESS -record runtime/plan/testdata/fit-params.txt LLAMA-FIT-PARAMS
func TestAgainstFitParams(t *testing.T) {
	f, err := os.Open("testdata/fit-params.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	said, err := fitcheck.Recorded(f)
	if err != nil {
		t.Fatal(err)
	}
	archs := map[string]bool{}
	compared := 0
	dir := t.TempDir()
	for _, k := range ggufgen.Catalogue() {
		path, err := fitcheck.Write(dir, k)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range slices.Concat(fitcheck.Scenarios(), fitcheck.DeviceScenarios()) {
			want, ok := said[k.ID()+" "+s.Name]
			if !ok {
				t.Errorf("%s %s is not in the record; make it anew", k.ID(), s.Name)
				continue
			}
			rows, err := fitcheck.Compare(k, path, s, want)
			if err != nil || len(rows) != len(want) {
				t.Errorf("%s %s: %d rows of %d, %v", k.ID(), s.Name, len(rows), len(want), err)
				continue
			}
			for _, row := range rows {
				if off := row.Off(); off != "" {
					t.Errorf("%s %s %s: %s", k.ID(), s.Name, row.Place, off)
				}
			}
			archs[k.Arch] = true
			compared++
		}
	}
	if len(archs) < 15 || compared != len(said) {
		t.Errorf("%d architectures and %d of %d recorded figures compared", len(archs), compared, len(said))
	}
}
