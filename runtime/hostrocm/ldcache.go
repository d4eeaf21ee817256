package hostrocm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
)

// ErrLoaderCache is wrapped by errors about the content of a loader's cache.
var ErrLoaderCache = errors.New("bad ld.so.cache")

// LoaderCacheEntry is one library of the loader's cache.
type LoaderCacheEntry struct {
	SONAME string
	Path   string // absolute
}

// The layout of ld.so.cache, from glibc's dl-cache.h. All numbers are
// little endian on amd64.
const (
	oldMagic  = "ld.so-1.7.0"
	newMagic  = "glibc-ld.so.cache1.1"
	oldHead   = 16 // magic, a byte of padding, the number of entries
	oldEntry  = 12
	newHead   = 48 // magic, number of entries, size of strings, flags, extensions
	newEntry  = 24 // flags, name, path, version of the OS, capabilities
	maxString = 4096

	// endianMask selects the bits of the header's flags for the byte order: 0
	// unspecified, 1 invalid, 2 little, 3 big.
	endianMask   = 3
	endianLittle = 2

	// typeX8664 is an entry's flags for a library of glibc on amd64:
	// FLAG_X8664_LIB64 and FLAG_ELF_LIBC6.
	typeX8664 = 0x0303
)

// ParseLoaderCache parses /etc/ld.so.cache. It returns the libraries for amd64 that
// need no further capabilities of the processor, in the file's order. It accepts the
// format of glibc 2.32 and later, and the one before, which starts with a table for
// older loaders.
func ParseLoaderCache(b []byte) ([]LoaderCacheEntry, error) {
	if bytes.HasPrefix(b, []byte(oldMagic)) {
		if len(b) < oldHead {
			return nil, fmt.Errorf("%w: %d bytes are too few for the header", ErrLoaderCache, len(b))
		}
		count := uint64(binary.LittleEndian.Uint32(b[oldHead-4:]))
		skip := (oldHead + count*oldEntry + 7) &^ 7 // the next header begins at a multiple of 8
		if skip > uint64(len(b)) {
			return nil, fmt.Errorf("%w: %d entries do not fit into %d bytes", ErrLoaderCache, count, len(b))
		}
		b = b[skip:]
	}
	if !bytes.HasPrefix(b, []byte(newMagic)) || len(b) < newHead {
		return nil, fmt.Errorf("%w: it does not start like a file of glibc", ErrLoaderCache)
	}
	if order := b[28] & endianMask; order != 0 && order != endianLittle {
		return nil, fmt.Errorf("%w: its byte order is not that of amd64", ErrLoaderCache)
	}
	count := uint64(binary.LittleEndian.Uint32(b[20:]))
	if newHead+count*newEntry > uint64(len(b)) {
		return nil, fmt.Errorf("%w: %d entries do not fit into %d bytes", ErrLoaderCache, count, len(b))
	}
	var out []LoaderCacheEntry
	for i := range count {
		e := b[newHead+i*newEntry:]
		if binary.LittleEndian.Uint32(e) != typeX8664 || binary.LittleEndian.Uint64(e[16:]) != 0 {
			continue // for another architecture, or for some processors only
		}
		name, err := cacheString(b, binary.LittleEndian.Uint32(e[4:]))
		if err != nil {
			return nil, err
		}
		file, err := cacheString(b, binary.LittleEndian.Uint32(e[8:]))
		if err != nil {
			return nil, err
		}
		if path.IsAbs(file) && name != "" {
			out = append(out, LoaderCacheEntry{SONAME: name, Path: path.Clean(file)})
		}
	}
	return out, nil
}

// cacheString reads the string at an offset from the header's beginning.
func cacheString(b []byte, at uint32) (string, error) {
	if uint64(at) >= uint64(len(b)) {
		return "", fmt.Errorf("%w: a string begins at byte %d of %d", ErrLoaderCache, at, len(b))
	}
	end := bytes.IndexByte(b[at:], 0)
	if end < 0 || end > maxString {
		return "", fmt.Errorf("%w: the string at byte %d does not end", ErrLoaderCache, at)
	}
	return string(b[at:][:end]), nil
}
