//go:build mage

package main

import "forge.lthn.ai/core/go-rocm/internal/build"

// Compile compiles llama.cpp for the chosen variants, without bundling.
func Compile() error { return build.Compile() }

// Config prints every setting, its value and its meaning.
func Config() error { return build.Config() }
