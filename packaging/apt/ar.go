package apt

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// arReader walks through the members of an ar archive as deb(5) uses it: short
// names, no symbol table. The library that the packages are written with is no
// choice for reading: it takes what it is given as well-formed.
type arReader struct {
	r    io.Reader
	body *io.LimitedReader
	pad  int64
}

const (
	arMagic  = "!<arch>\n"
	arHeader = 60 // bytes of a member's header
)

func newArReader(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, fmt.Errorf("it is no ar archive: %w", err)
	}
	if string(magic) != arMagic {
		return nil, errors.New("it is no ar archive")
	}
	return &arReader{r: r, body: &io.LimitedReader{R: r}}, nil
}

// next goes to the next member; its bytes are then in a.body. The error is
// io.EOF after the last.
func (a *arReader) next() (name string, err error) {
	rest := a.body.N + a.pad
	if n, err := io.CopyN(io.Discard, a.r, rest); err != nil && (n < rest-a.pad || !errors.Is(err, io.EOF)) {
		return "", fmt.Errorf("the archive ends within a member: %w", err)
	}
	a.body.N, a.pad = 0, 0
	h := make([]byte, arHeader)
	switch _, err := io.ReadFull(a.r, h); {
	case errors.Is(err, io.EOF):
		return "", io.EOF
	case err != nil:
		return "", fmt.Errorf("the archive ends within a header: %w", err)
	}
	size, err := strconv.ParseUint(strings.TrimRight(string(h[48:58]), " "), 10, 40)
	if err != nil || string(h[58:]) != "`\n" {
		return "", errors.New("a member's header is malformed")
	}
	a.body.N, a.pad = int64(size), int64(size%2)
	return strings.TrimRight(string(h[:16]), "/ "), nil
}
