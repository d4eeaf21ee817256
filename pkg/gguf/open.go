package gguf

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
)

// Keys of the parts of a split model.
const (
	keySplitNo      = "split.no"
	keySplitCount   = "split.count"
	keySplitTensors = "split.tensors.count"
	maxParts        = 1024
)

// Open reads the model at path. For a split model (NAME-00001-of-0000N.gguf)
// path is the first part, and the others are read from beside it; the tensor
// table then covers all of them. The first part stays open, for its arrays, until
// Close.
func Open(path string) (*File, error) {
	f, err := openPart(path)
	if err != nil {
		return nil, err
	}
	count, err := f.Uint(keySplitCount)
	if errors.Is(err, ErrNotFound) || (err == nil && count <= 1) {
		return f, nil
	}
	if err == nil {
		err = f.addParts(path, count)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

func openPart(path string) (*File, error) {
	h, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	var f *File
	info, err := h.Stat()
	if err == nil {
		f, err = NewReader(h, info.Size())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), h.Close())
	}
	f.closer = h
	return f, nil
}

// openRegular opens a regular file and rejects others: opening a FIFO would block
// until there is a writer.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var content Content
	switch {
	case info.IsDir():
		content = ContentDirectory
	case !info.Mode().IsRegular():
		content = ContentSpecial
	default:
		return os.Open(path)
	}
	return nil, fmt.Errorf("%s: %w", path, &FormatError{Part: "header", Reason: string(content), Err: ErrNotGGUF, Content: content})
}

// addParts reads the parts after the first and adds their tensors.
func (f *File) addParts(path string, count uint64) error {
	if count > maxParts {
		return fmt.Errorf("%w: %d parts, more than %d", ErrSplit, count, maxParts)
	}
	if no, err := f.Uint(keySplitNo); err != nil || no != 0 {
		first, nameErr := PartPath(path, 1, int(count))
		if nameErr != nil {
			first = "the first part"
		}
		return fmt.Errorf("%w: this is not the first part; open %s", ErrSplit, first)
	}
	for i := 2; i <= int(count); i++ {
		name, err := PartPath(path, i, int(count))
		if err != nil {
			return err
		}
		p, err := openPart(name)
		if err != nil {
			return fmt.Errorf("%w: part %d of %d: %w", ErrSplit, i, count, err)
		}
		// Arrays are read from the first part alone: the tensor table of this part has been read.
		if err := errors.Join(f.join(p, i-1, count), p.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	f.parts = int(count)
	want, err := f.Uint(keySplitTensors)
	if err == nil && want != uint64(len(f.tensors)) {
		return fmt.Errorf("%w: %d tensors expected, %d found in %d parts", ErrSplit, want, len(f.tensors), count)
	}
	return nil
}

func (f *File) join(p *File, no int, count uint64) error {
	if n, err := p.Uint(keySplitNo); err != nil || n != uint64(no) {
		return fmt.Errorf("%w: it is part %d, want part %d", ErrSplit, n+1, no+1)
	}
	if n, err := p.Uint(keySplitCount); err != nil || n != count {
		return fmt.Errorf("%w: it has %d parts, the first part has %d", ErrSplit, n, count)
	}
	if n := len(f.tensors) + len(p.tensors); n > maxTensors {
		return fmt.Errorf("%w: %d tensors, more than %d", ErrMalformed, n, maxTensors)
	}
	for _, t := range p.tensors {
		if _, twice := f.byName[t.Name]; twice {
			return fmt.Errorf("%w: tensor %q is in two parts", ErrSplit, t.Name)
		}
		t.Part = no
		f.byName[t.Name] = int32(len(f.tensors))
		f.tensors = append(f.tensors, t)
	}
	f.size += p.size
	return nil
}

// SplitName parses the name of a part of a split model. ok is false for a name that
// does not have the form NAME-00001-of-00003.gguf.
func SplitName(path string) (prefix string, no, count int, ok bool) {
	m := regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`).FindStringSubmatch(path)
	if m == nil {
		return "", 0, 0, false
	}
	no, errNo := strconv.Atoi(m[2])
	count, errCount := strconv.Atoi(m[3])
	ok = errNo == nil && errCount == nil && no >= 1 && no <= count
	return m[1], no, count, ok
}

// PartPath returns the path of part no (from 1) of the split model to which path
// belongs.
func PartPath(path string, no, count int) (string, error) {
	prefix, _, stated, ok := SplitName(path)
	if !ok || stated != count {
		return "", fmt.Errorf("%w: the file has %d parts but its name is not NAME-00001-of-%05d.gguf", ErrSplit, count, count)
	}
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, no, count), nil
}
