// Package toolchain provides the images in which llama.cpp is compiled, and lists their
// packages.
//
// There are three kinds: Debian (built from the signed archive by mmdebstrap and imported),
// AMD's own ROCm image by registry digest, and any image that the user names. The packages of
// every image are compared with the lock file. The compile runs without a network, so it uses
// nothing else.
package toolchain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// User is the user and group id that owns /src and /build in the images and runs
// the jobs there. Any number other than root's would do.
const User = 1000

// Set is the set of tools of an image. Sets are data: each back end of the recipe defines its own.
type Set struct {
	// Name is part of the names of the image, of its stage and of its lock file.
	Name string
	// Extra lists the Debian packages besides the base ones, separated by spaces, so that sets are
	// comparable.
	Extra string
	// Only lists the packages of a set without the base ones, which compiles no llama.cpp.
	Only string
	// Areas lists the areas of the archive besides main that Extra needs, separated by spaces, such
	// as "contrib non-free".
	Areas string
	// ROCm reports that the packages are ROCm's. A base image must contain it, since other archives
	// name its packages differently.
	ROCm bool
	// Download is the sum of the packages' sizes in Debian forky of November 2026, for the log.
	Download string
}

// The sets that more than one back end uses: CPU is enough for everything but code for GPUs.
var (
	CPU = Set{Name: "cpu", Download: "140 MB"}
	HIP = Set{Name: "hip", Extra: "hipcc libamdhip64-dev libhipblas-dev librocblas-dev", ROCm: true, Download: "550 MB"}
	// UI is for the web page. engine.Vary needs the C compiler.
	UI = Set{Name: "ui", Only: "gcc libc6-dev nodejs", Download: "128 MB"}
)

// basePackages are the tools of all sets that compile llama.cpp.
var basePackages = []string{"binutils", "ca-certificates", "cmake", "g++", "gcc", "ninja-build", "zstd"}

// String returns the set's name.
func (s Set) String() string { return s.Name }

// Packages returns the Debian packages that the set names.
func (s Set) Packages() []string {
	if s.Only != "" {
		return strings.Fields(s.Only)
	}
	return append(slices.Clone(basePackages), strings.Fields(s.Extra)...)
}

// addedPackages returns the packages that are added to a base image.
func (s Set) addedPackages() []string {
	if s.ROCm {
		return basePackages
	}
	return s.Packages()
}

// areas returns the areas of the archive, as mmdebstrap lists them.
func (s Set) areas() string {
	return strings.Join(append([]string{"main"}, strings.Fields(s.Areas)...), ",")
}

// Spec describes the wanted image.
type Spec struct {
	Kind  string // debian or amd
	Set   Set
	Suite string // Debian suite, for kind debian
	// BaseImage names an image to use as it is; tools it lacks are added.
	BaseImage string
	// MmdebstrapImage names an image to run mmdebstrap in.
	MmdebstrapImage string
	Epoch           time.Time
	Locked          bool // reject packages that differ from the lock file
}

// Toolchain is an image with known contents.
type Toolchain struct {
	Kind string
	Set  Set
	// ID is the image's content digest, which jobs use: another cache may have created an
	// image with the same tag meanwhile.
	ID       string
	Tag      string
	Packages []Package
	// Deviations has a sentence for each difference between the packages and the lock file.
	Deviations []string
}

// ROCm is the directory of ROCm in images of a kind, also in one that the user names.
func (s Spec) ROCm() string {
	if s.Kind == "amd" {
		return "/opt/rocm"
	}
	return "/usr"
}

// inputs has the inputs of an image; it keys the stage cache.
type inputs struct {
	Kind, Suite, Base string
	Packages          []string
	Script            int // increment it when the way to build an image changes
	Epoch             int64
}

func (s Spec) inputs() inputs {
	in := inputs{Kind: s.Kind, Suite: s.Suite, Packages: s.Set.Packages(), Script: 2, Epoch: s.Epoch.Unix()}
	if base := s.base(); base != "" {
		in.Base, in.Suite = base, ""
	}
	return in
}

// base is the image to which tools are added; empty for one that is built from scratch.
func (s Spec) base() string {
	if s.BaseImage != "" {
		return s.BaseImage
	}
	if s.Kind == "amd" {
		return amdImage()
	}
	return ""
}

// HasBaseImage reports whether tools are added to a base image, which has more than the listed
// packages.
func (s Spec) HasBaseImage() bool { return s.base() != "" }

// Name returns the kind in a word: the suite of Debian, or "image" if the user names an image.
func (s Spec) Name() string {
	switch {
	case s.BaseImage != "":
		return s.Kind + "-image"
	case s.Kind == "debian":
		return s.Kind + "-" + s.Suite
	}
	return s.Kind
}

// listFile is the stage's output: the packages, in the form of a lock file.
const listFile = "packages.lock"

// Describe returns the toolchain's packages from the cache, or builds the image to list them.
// Ensure must be called before a job runs in it.
func Describe(ctx context.Context, eng engine.Engine, cache *stage.Cache, s Spec, log io.Writer) (*Toolchain, error) {
	if s.Locked && s.HasBaseImage() {
		return nil, errors.New("toolchain: no lock covers the packages of a base image, and GOROCM_LOCKED=true requires one: unset GOROCM_LOCKED, or unset GOROCM_BASE_IMAGE and set GOROCM_TOOLCHAIN=debian")
	}
	in := s.inputs()
	key, err := stage.Key(in)
	if err != nil {
		return nil, err
	}
	tag := "go-rocm/toolchain-" + s.Set.Name + ":" + key[:12]
	res, err := cache.Do(ctx, "toolchain-"+s.Set.Name, in, func(ctx context.Context, dir string) error {
		img, err := s.make(ctx, eng, tag, log)
		if err != nil {
			return err
		}
		pkgs, err := readPackages(ctx, eng, img.ID)
		if err != nil {
			return err
		}
		return writeLock(dir, listFile, img.ID, pkgs)
	})
	if err != nil {
		return nil, err
	}
	id, pkgs, err := readLock(res.Dir, listFile)
	if err != nil {
		return nil, fmt.Errorf("toolchain: %w; remove %s to make the image again", err, res.Dir)
	}
	t := &Toolchain{Kind: s.Kind, Set: s.Set, ID: id, Tag: tag, Packages: pkgs}
	if s.HasBaseImage() {
		return t, nil // the lock file is about the Debian image
	}
	locked, err := Locked(s.Set)
	if err != nil {
		return nil, err
	}
	t.Deviations = Compare(locked, pkgs)
	if s.Locked && len(t.Deviations) > 0 {
		return nil, fmt.Errorf("toolchain: the archive no longer has the locked packages (GOROCM_LOCKED=true); accept the new ones with `mage lock`:\n  %s",
			strings.Join(t.Deviations, "\n  "))
	}
	return t, nil
}

// Ensure ensures that the engine has the described image, or one with the same packages, whose
// ID t then has.
func Ensure(ctx context.Context, eng engine.Engine, s Spec, t *Toolchain, log io.Writer) error {
	img, err := eng.Image(ctx, t.ID)
	if errors.Is(err, engine.ErrNoImage) {
		img, err = eng.Image(ctx, t.Tag)
	}
	if errors.Is(err, engine.ErrNoImage) {
		img, err = s.make(ctx, eng, t.Tag, log)
	}
	if err != nil || img.ID == t.ID {
		return err
	}
	pkgs, err := readPackages(ctx, eng, img.ID)
	if err != nil {
		return err
	}
	if diff := Compare(t.Packages, pkgs); len(diff) > 0 {
		return &ChangedError{Image: t.Tag, Differences: diff}
	}
	t.ID = img.ID
	return nil
}

// ChangedError reports that a rebuilt image has other packages than those with which the cached
// results were compiled.
type ChangedError struct {
	Image       string
	Differences []string
}

// Error lists the differences.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("toolchain: image %s has other packages than the cached results were built with (remove it with `docker rmi`, and the toolchain-* directories of the stage cache, to start from the new ones):\n  %s", e.Image, strings.Join(e.Differences, "\n  "))
}

func (s Spec) make(ctx context.Context, eng engine.Engine, tag string, log io.Writer) (engine.Image, error) {
	if base := s.base(); base != "" {
		return s.makeFromBase(ctx, eng, base, tag, log)
	}
	return s.makeDebian(ctx, eng, tag, log)
}

// Version returns the version of an installed package, or "".
func (t *Toolchain) Version(name string) string {
	for _, p := range t.Packages {
		if p.Name == name {
			return p.Version
		}
	}
	return ""
}
