// Package registry tests runtime/oci and runtime/pull against other projects' work: the
// registry of the distribution project, which is the image registry:3, and the one of
// go-containerregistry, filled by oras-go with artifacts as Docker Model Runner, ollama
// and the CNCF's model specification make them.
package registry
