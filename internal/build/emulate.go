package build

import (
	"context"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/internal/ci"
)

// Tests on the emulated card have one of these words in their names. With emulateAll in emulateVariable they run
// everything; without it they run the part for which CI has time.
const (
	emulateTests    = "RDNA3|Emulated"
	emulateVariable = "GOROCM_EMULATE"
	emulateAll      = "all"
)

// Emulate runs the GPU code of the hip bundle on the emulated card, all of it where the tests of a change run a part.
func Emulate() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) error {
		if err := s.prepare(ctx, buildPrograms); err != nil {
			return err
		}
		source, packs, err := s.subjects(ctx, "cpu", "hip")
		if err != nil {
			return err
		}
		env := []string{
			emulateVariable + "=" + emulateAll, ci.EnvBundle + "=" + packs[0], ci.EnvHIPBundle + "=" + packs[1],
			ci.EnvSource + "=" + source,
		}
		return runGo(ctx, filepath.Join(p.Root, "testing", "e2e"), env, "test", "-tags=e2e", "-count=1", "-timeout=0", "-v", "-run="+emulateTests, ".")
	}))
}
