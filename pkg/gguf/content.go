package gguf

import (
	"bytes"
	"encoding/binary"
)

// Content is what a file contains that does not begin as GGUF does.
type Content string

// The contents that are recognised. Each value is a phrase for an error.
const (
	ContentUnknown     Content = ""
	ContentDirectory   Content = "a directory"
	ContentSpecial     Content = "a named pipe, a socket or a device"
	ContentEmpty       Content = "an empty file"
	ContentZeros       Content = "a file that begins with zeros"
	ContentLFSPointer  Content = "a pointer of git-lfs to the model"
	ContentHTML        Content = "a web page"
	ContentJSON        Content = "a JSON file"
	ContentSafetensors Content = "a safetensors file"
	ContentZip         Content = "a zip archive, as PyTorch writes checkpoints"
	ContentPickle      Content = "a Python pickle, as PyTorch wrote checkpoints"
	ContentCompressed  Content = "a compressed file"
	ContentTar         Content = "a tar archive"
	ContentOldGGML     Content = "a model in a format of llama.cpp before GGUF"
)

// sniff recognises what the first bytes of a file of size bytes begin.
func sniff(head []byte, size int64) Content {
	if size == 0 {
		return ContentEmpty
	}
	for _, m := range []struct {
		magic   string
		content Content
	}{
		{"version https://git-lfs.github.com/spec/", ContentLFSPointer},
		{"PK\x03\x04", ContentZip},
		{"\x80\x02", ContentPickle}, // protocol 2, PyTorch's default before the archive
		{"\x1f\x8b", ContentCompressed},
		{"\x28\xb5\x2f\xfd", ContentCompressed},
		{"\xfd7zXZ\x00", ContentCompressed},
		{"BZh", ContentCompressed},
		// ggml, ggmf, ggjt, ggla and ggsn, as 32-bit numbers in little-endian order.
		{"lmgg", ContentOldGGML},
		{"fmgg", ContentOldGGML},
		{"tjgg", ContentOldGGML},
		{"algg", ContentOldGGML},
		{"nsgg", ContentOldGGML},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.content
		}
	}
	if isSafetensors(head, size) {
		return ContentSafetensors
	}
	if len(head) > 262 && string(head[257:262]) == "ustar" {
		return ContentTar
	}
	text := bytes.ToLower(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n"))
	switch {
	case bytes.HasPrefix(text, []byte("<!doctype html")), bytes.HasPrefix(text, []byte("<html")), bytes.HasPrefix(text, []byte("<?xml")):
		return ContentHTML
	case bytes.HasPrefix(text, []byte("{")):
		return ContentJSON
	case len(bytes.Trim(head, "\x00")) == 0:
		return ContentZeros
	}
	return ContentUnknown
}

// isSafetensors reports whether a file begins with the length of a JSON object, and
// the object.
func isSafetensors(head []byte, size int64) bool {
	if len(head) < 9 || head[8] != '{' {
		return false
	}
	n := binary.LittleEndian.Uint64(head)
	return n >= 2 && size >= 8 && n <= uint64(size-8)
}
