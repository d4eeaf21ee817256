package plan_test

import (
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// BenchmarkMake plans a dense model that fits, one that fits in part, and a
// large mixture of experts, for which the search runs.
func BenchmarkMake(b *testing.B) {
	for _, id := range []string{"qwen3-8b-Q4_K_M", "llama3-70b-Q4_K_M", "qwen3-next-80b-Q4_K_M"} {
		b.Run(id, func(b *testing.B) {
			r := request(b, id, xtx(0))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := plan.Make(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
