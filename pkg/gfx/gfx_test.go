package gfx_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestKFD(t *testing.T) {
	// Pairs as the amdgpu driver and the compiler have them.
	for _, c := range []struct {
		kfd      uint32
		target   gfx.Target
		override string
		family   string
	}{
		{80003, "gfx803", "8.0.3", "gfx8"},
		{90000, "gfx900", "9.0.0", "gfx9"},
		{90010, "gfx90a", "9.0.10", "gfx9"},
		{90012, "gfx90c", "9.0.12", "gfx9"},
		{90402, "gfx942", "9.4.2", "gfx9"},
		{100300, "gfx1030", "10.3.0", "gfx10"},
		{100306, "gfx1036", "10.3.6", "gfx10"},
		{110000, gfx.GFX1100, "11.0.0", "gfx11"},
		{110001, gfx.GFX1101, "11.0.1", "gfx11"},
		{110501, "gfx1151", "11.5.1", "gfx11"},
		{120001, "gfx1201", "12.0.1", "gfx12"},
	} {
		got, err := gfx.FromKFD(c.kfd)
		if err != nil || got != c.target {
			t.Errorf("FromKFD(%d) = %q, %v, want %q", c.kfd, got, err, c.target)
		}
		if got := c.target.KFD(); got != c.kfd {
			t.Errorf("%s.KFD() = %d, want %d", c.target, got, c.kfd)
		}
		if got := c.target.OverrideVersion(); got != c.override {
			t.Errorf("%s.OverrideVersion() = %q, want %q", c.target, got, c.override)
		}
		if got := c.target.Family(); got != c.family {
			t.Errorf("%s.Family() = %q, want %q", c.target, got, c.family)
		}
	}
}

func TestFromKFDRejects(t *testing.T) {
	if _, err := gfx.FromKFD(0); !errors.Is(err, gfx.ErrNoGPU) {
		t.Errorf("FromKFD(0) = %v, want ErrNoGPU", err)
	}
	for _, v := range []uint32{1, 9999, 11 * 10000 * 10, 111600, 110016, 110099, 1<<32 - 1} {
		var pe *gfx.ParseError
		if got, err := gfx.FromKFD(v); !errors.As(err, &pe) {
			t.Errorf("FromKFD(%d) = %q, %v, want a ParseError", v, got, err)
		}
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{"gfx803", "gfx90a", "gfx1100", "gfx1036", "gfx11-generic", "gfx9-4-generic", "gfx1310"} {
		if got, err := gfx.Parse(s); err != nil || string(got) != s {
			t.Errorf("Parse(%q) = %q, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "gfx", "gfx1", "gfx11", "gfx11000", "GFX1100", "gfx1100 ", " gfx1100", "gfx110G", "gfx11A0", "gfx0900", "gfx000",
		"gfx-generic", "gfx11--generic", "gfx011-generic", "gfx11-generic-", "gfxab00", "sm_90", "1100", "gfx1100:xnack-", "gfx+100",
	} {
		var pe *gfx.ParseError
		if got, err := gfx.Parse(s); !errors.As(err, &pe) {
			t.Errorf("Parse(%q) = %q, %v, want a ParseError", s, got, err)
		} else if pe.Text != s || !strings.Contains(err.Error(), "invalid GPU target") {
			t.Errorf("Parse(%q): unhelpful error %q", s, err)
		}
	}
}

func TestGenericHasNoVersion(t *testing.T) {
	for _, g := range []gfx.Target{"gfx11-generic", "", "nonsense"} {
		if _, _, _, ok := g.Version(); ok || g.KFD() != 0 || g.OverrideVersion() != "" || g.Family() != "" {
			t.Errorf("%q has version %q, KFD %d, family %q", g, g.OverrideVersion(), g.KFD(), g.Family())
		}
	}
	if !gfx.Target("gfx11-generic").Generic() || gfx.GFX1100.Generic() {
		t.Error("Generic is wrong")
	}
}

func TestListAndOrder(t *testing.T) {
	got, err := gfx.ParseList("gfx1101; gfx906,gfx1100 gfx11-generic\tgfx1101\ngfx90a")
	if err != nil {
		t.Fatal(err)
	}
	want := []gfx.Target{"gfx906", "gfx90a", "gfx1100", "gfx1101", "gfx11-generic"}
	if !slices.Equal(got, want) {
		t.Errorf("ParseList = %v, want %v", got, want)
	}
	if s := gfx.Join(got[2:4], ";"); s != "gfx1100;gfx1101" {
		t.Errorf("Join = %q", s)
	}
	if got, err := gfx.ParseList(" , "); err != nil || len(got) != 0 {
		t.Errorf("ParseList of nothing = %v, %v", got, err)
	}
	if _, err := gfx.ParseList("gfx1100,radeon"); err == nil {
		t.Error("ParseList took a bad name")
	}
}

func TestMarshalText(t *testing.T) {
	type doc struct {
		Targets []gfx.Target
		One     gfx.Target            `json:",omitempty"`
		Sizes   map[gfx.Target]uint64 `json:",omitempty"`
	}
	in := doc{Targets: []gfx.Target{"gfx1100"}, Sizes: map[gfx.Target]uint64{"gfx1101": 7}}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Targets":["gfx1100"],"Sizes":{"gfx1101":7}}`; string(b) != want {
		t.Errorf("JSON %s, want %s", b, want)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil || out.Targets[0] != "gfx1100" || out.Sizes["gfx1101"] != 7 {
		t.Errorf("back: %+v, %v", out, err)
	}
	for _, bad := range []string{`{"Targets":["gfx11"]}`, `{"Sizes":{"x":1}}`, `{"One":"gfx1100 "}`} {
		if err := json.Unmarshal([]byte(bad), &out); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if err := json.Unmarshal([]byte(`{"One":""}`), &out); err != nil || out.One != "" {
		t.Errorf("empty target: %q, %v", out.One, err)
	}
	if b, err := json.Marshal(doc{One: "nonsense"}); err == nil {
		t.Errorf("a malformed target was written as %s", b)
	}
}

func TestMustParse(t *testing.T) {
	if gfx.MustParse("gfx1100") != gfx.GFX1100 {
		t.Error("MustParse changes the name")
	}
	defer func() {
		if recover() == nil {
			t.Error("MustParse of a bad name does not panic")
		}
	}()
	gfx.MustParse("7900xtx")
}

func TestCompatibleTargets(t *testing.T) {
	built := []gfx.Target{"gfx1101", "gfx1100", "gfx1100", "gfx1030", "gfx906", "gfx11-generic"}
	for _, c := range []struct {
		device gfx.Target
		want   []gfx.Override
	}{
		{"gfx1102", []gfx.Override{{"gfx1100", "11.0.0", true}, {"gfx1101", "11.0.1", true}}},
		{"gfx1103", []gfx.Override{{"gfx1100", "11.0.0", true}, {"gfx1101", "11.0.1", true}}},
		{"gfx1100", []gfx.Override{{"gfx1101", "11.0.1", true}}},
		{"gfx1151", []gfx.Override{{"gfx1100", "11.0.0", false}, {"gfx1101", "11.0.1", false}}},
		{"gfx1032", []gfx.Override{{"gfx1030", "10.3.0", true}}},
		{"gfx1010", nil}, // gfx1030 has instructions that it lacks
		{"gfx1200", nil},
		{"gfx90a", nil}, // gfx906 differs in instructions
		{"gfx11-generic", nil},
		{"", nil},
	} {
		if got := c.device.OverridesFor(built); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.device, got, c.want)
		}
	}
	if built[0] != "gfx1101" {
		t.Error("OverridesFor reordered its argument")
	}
}
