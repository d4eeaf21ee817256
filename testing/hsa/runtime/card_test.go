//go:build linux && amd64 && cgo

package main

import (
	"errors"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// TestVisibleCards checks ROCR_VISIBLE_DEVICES.
func TestVisibleCards(t *testing.T) {
	first, second := &card{model: models["gfx1100"], node: 1}, &card{model: models["gfx1101"], node: 2}
	all := []*card{first, second}
	for list, want := range map[string][]*card{
		"":                         nil,
		"0":                        {first},
		"1,0":                      {second, first},
		"GPU-398a3f843a146602":     {second},
		"GPU-39":                   {second},
		"398a3f843a146602":         nil,
		"1,7,0":                    {second},
		"1,GPU-398a3f843a146602,0": {second},
	} {
		if got := visible(all, list); !slices.Equal(got, want) {
			t.Errorf("%q shows %v, and not %v", list, got, want)
		}
	}
}

// TestCardsWithLessMemory checks the sizes in GOROCM_EMULATED_CARDS.
func TestCardsWithLessMemory(t *testing.T) {
	for entry, vram := range map[string]uint64{"gfx1100": 25753026560, "gfx1101": 17163091968, "gfx1101:512": 512 << 20} {
		if m, err := modelOf(entry); err != nil || m.vram != vram {
			t.Errorf("%s has %d bytes: %v", entry, m.vram, err)
		}
	}
	for _, entry := range []string{"gfx1102", "gfx1100:", "gfx1100:-1", "gfx1100:1G", "gfx1100:99999999"} {
		if m, err := modelOf(entry); err == nil {
			t.Errorf("%q is a card with %d bytes", entry, m.vram)
		}
	}
}

// TestOverriddenTarget checks HSA_OVERRIDE_GFX_VERSION, and which code a card then has.
func TestOverriddenTarget(t *testing.T) {
	load := func(c *card, flags uint32) error {
		return checkTarget(c, elfgen.CodeObject(flags, nil, 0))
	}
	const gfx1100, gfx1101 = 0x41, 0x46 // as LLVM numbers them in the flags of a code object
	c := &card{model: models["gfx1101"], node: 1}
	if err := errors.Join(c.override(), load(c, gfx1101)); err != nil || c.target != "gfx1101" {
		t.Errorf("without an override the target is %s: %v", c.target, err)
	}
	if err := load(c, gfx1100); !errors.Is(err, errOtherTarget) {
		t.Errorf("gfx1101 gets code for gfx1100: %v", err)
	}
	t.Setenv(envOverride, "11.0.0")
	if err := errors.Join(c.override(), load(c, gfx1100)); err != nil || c.target != "gfx1100" {
		t.Errorf("with the override the target is %s: %v", c.target, err)
	}
	t.Setenv(envOverride+"_1", "9.0.10")
	if err := c.override(); err != nil || c.target != "gfx90a" {
		t.Errorf("with the override of the node the target is %s: %v", c.target, err)
	}
	t.Setenv(envOverride+"_1", "gfx1100")
	if err := c.override(); err == nil {
		t.Error("gfx1100 is accepted as a version")
	}
}
