package recipe

import (
	"errors"
	"reflect"
	"testing"
)

func TestCheckSize(t *testing.T) {
	recorded := map[string]Sizes{"hip": {Packed: 1000, Unpacked: 10000, Targets: []string{"gfx1100"}}}
	for name, tc := range map[string]struct {
		variant string
		now     Sizes
		what    string // empty: fits
	}{
		"same":               {"hip", Sizes{1000, 10000, []string{"gfx1100"}}, ""},
		"3 % more":           {"hip", Sizes{1030, 10300, []string{"gfx1100"}}, ""},
		"smaller":            {"hip", Sizes{10, 100, []string{"gfx1100"}}, ""},
		"packed too large":   {"hip", Sizes{1031, 10000, []string{"gfx1100"}}, "packed"},
		"unpacked too large": {"hip", Sizes{1000, 10301, []string{"gfx1100"}}, "unpacked"},
		"other targets":      {"hip", Sizes{5000, 50000, []string{"gfx1100", "gfx1101"}}, ""},
		"no record":          {"cpu", Sizes{5000, 50000, nil}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := CheckSize(recorded, tc.variant, tc.now)
			var size *SizeError
			if errors.As(err, &size) != (tc.what != "") || (size != nil && size.What != tc.what) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSizesRoundTrip(t *testing.T) {
	all := map[string]Sizes{"cpu": {Packed: 1, Unpacked: 2}, "hip": {Packed: 3, Unpacked: 4, Targets: []string{"gfx1100"}}}
	b, err := FormatSizes(all)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseSizes(b)
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := ParseSizes([]byte(`{"cpu":{"packd":1}}`)); err == nil {
		t.Error("a misspelt field was accepted")
	}
	if _, err := RecordedSizes(); err != nil {
		t.Errorf("the record in the tree: %v", err)
	}
}
