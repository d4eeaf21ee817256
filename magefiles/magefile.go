//go:build mage

package main

import "forge.lthn.ai/core/go-rocm/internal/build"

// Build builds the bundles and the command with an embedded bundle, into dist/.
func Build() error { return build.Build() }

// Package does the work of build and builds the Debian packages.
func Package() error { return build.Package() }

// Release builds everything that is published, with checksums, into dist/.
func Release() error { return build.Release() }

// Publish copies the release in dist/ to a directory, which a server may be serving.
func Publish(dir string) error { return build.Publish(dir) }

// Unit runs the tests that need no bundle, container or network.
func Unit() error { return build.Unit() }

// Test runs all tests, on the real bundles and packages too, and builds them twice to compare.
func Test() error { return build.Test() }

// Lint checks format, style, imports and vet on each platform.
func Lint() error { return build.Lint() }

// CI runs lint and all tests. Every change has to pass it.
func CI() error { return build.CI() }

// Bench measures every claim about speed against a named peer, into docs/benchmarks.md.
func Bench() error { return build.Bench() }

// Torture injects every fault of docs/faults.md a hundred times (GOROCM_TORTURE), and lets clients use many models under change.
func Torture() error { return build.Torture() }

// Pages tests the web pages, one of them for an hour (GOROCM_SOAK), and writes the documentation's screenshots.
func Pages() error { return build.Pages() }

// BackendOps compares the operations of the Vulkan module, or some (GOROCM_OPERATIONS), with the CPU's, into docs/operations.md.
func BackendOps() error { return build.BackendOps() }

// Emulate runs the GPU code of the hip bundle on the emulated card, all of it, into docs/emulated-*.md.
func Emulate() error { return build.Emulate() }

// Reproduce builds twice in different environments and compares every artifact.
func Reproduce() error { return build.Reproduce() }

// Verify rebuilds the bundle of a manifest and compares each file.
func Verify(manifest string) error { return build.Verify(manifest) }

// Lock records the current packages of the toolchain and sizes of the bundles.
func Lock() error { return build.Lock() }

// Config prints every setting with its value and meaning.
func Config() error { return build.Config() }

// Prune removes stages from the cache that no build has used for a number of days.
func Prune(days int) error { return build.Prune(days) }

// Clean removes dist/ and the embedded bundle and keeps the stage cache.
func Clean() error { return build.Clean() }
