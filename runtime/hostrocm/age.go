package hostrocm

import (
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// tooOld tells which symbol versions the bundle's files ask of a library of the
// host and do not get. A library without versions has them all, as the loader
// sees it.
func (s *search) tooOld(file string, l bundle.HostLibrary) []string {
	_, host, err := elfdep.Resolve(s.fs.root, file)
	if err != nil {
		return nil // the closure says it
	}
	defined, err := elfdep.Defines(host)
	if err != nil || len(defined) == 0 {
		return nil
	}
	for _, v := range l.Versions {
		if !slices.Contains(defined, v) {
			return []string{fmt.Sprintf("%s does not define %s, which %s asks for: it is older than ROCm %s, which this bundle was built with", file, v, l.NeededBy[0], s.host.ROCm)}
		}
	}
	return nil
}

// tooNew tells which libraries ask the bundle's own for symbol versions that
// those do not have.
func (s *search) tooNew(libs []elfdep.Lib) []string {
	highest := map[string]string{}
	for _, v := range s.host.Provides {
		if kind, _, ok := elfdep.SplitVersion(v); ok {
			highest[kind] = v
		}
	}
	var out []string
	for _, l := range libs {
		for _, need := range l.Versions {
			if !slices.Contains(s.stop, need.Library) {
				continue // the closure has checked it
			}
			for _, v := range need.Versions {
				kind, _, ok := elfdep.SplitVersion(v)
				if ok && highest[kind] != "" && elfdep.CompareVersions(v, highest[kind]) > 0 {
					out = append(out, fmt.Sprintf("%s needs %s of %s, and the bundle brings %s: the host is newer than the bundle", l.InRoot, v, need.Library, highest[kind]))
				}
			}
		}
	}
	return out
}
