//go:build mage

package main

import "forge.lthn.ai/core/go-rocm/internal/build"

// Build makes the bundles and the command with a bundle inside, into dist/.
func Build() error { return build.Build() }

// Package makes what build makes, and the Debian packages.
func Package() error { return build.Package() }

// Release makes everything that is published, with checksums, into dist/.
func Release() error { return build.Release() }

// Publish adds the release in dist/ to a folder that may be being served.
func Publish(dir string) error { return build.Publish(dir) }

// Test runs every test, also on the real bundles and packages, and builds them again to compare.
func Test() error { return build.Test() }

// Lint checks format, style, imports and vet on each platform.
func Lint() error { return build.Lint() }

// CI runs lint and test, as a change has to pass them.
func CI() error { return build.CI() }

// Bench measures every claim of speed beside its named peer, into docs/benchmarks.md.
func Bench() error { return build.Bench() }

// Torture injects every fault of docs/faults.md a hundred times (GOROCM_TORTURE).
func Torture() error { return build.Torture() }

// Reproduce builds again under other circumstances and compares every artifact.
func Reproduce() error { return build.Reproduce() }

// Verify builds again what a bundle's manifest records, and compares each file.
func Verify(manifest string) error { return build.Verify(manifest) }

// Lock records the toolchain's packages and the bundles' sizes as they are now.
func Lock() error { return build.Lock() }

// Config prints every setting, its value and its meaning.
func Config() error { return build.Config() }

// Prune removes from the cache what no build has used for that many days.
func Prune(days int) error { return build.Prune(days) }

// Clean removes dist/ and the embedded bundle; the stage cache is kept.
func Clean() error { return build.Clean() }
