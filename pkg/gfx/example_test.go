package gfx_test

import (
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func ExampleFromKFD() {
	t, err := gfx.FromKFD(110001) // gfx_target_version of an RX 7800 XT
	fmt.Println(t, err)
	// Output: gfx1101 <nil>
}

func ExampleTarget_OverridesFor() {
	built := []gfx.Target{gfx.GFX1100, gfx.GFX1101}
	for _, r := range gfx.Target("gfx1102").OverridesFor(built) { // an RX 7600
		fmt.Printf("HSA_OVERRIDE_GFX_VERSION=%s runs code for %s\n", r.Version, r.Target)
	}
	// Output:
	// HSA_OVERRIDE_GFX_VERSION=11.0.0 runs code for gfx1100
	// HSA_OVERRIDE_GFX_VERSION=11.0.1 runs code for gfx1101
}
