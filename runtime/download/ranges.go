package download

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// identity is what all answers about one file have in common.
type identity struct {
	Size int64 `json:"size"` // -1: not known yet
	// ETag is the entity tag, weak or strong; empty: the server sends none.
	ETag string `json:"etag,omitempty"`
	// Modified is the Last-Modified header.
	Modified string `json:"modified,omitempty"`

	expected bool // Size is what the caller expects, and not what the server said
}

// validator returns the value for If-Range, which needs a strong tag.
func (id *identity) validator() string {
	if strings.HasPrefix(id.ETag, "W/") {
		return ""
	}
	return id.ETag
}

// openRange requests length bytes from offset. whole reports that the server knows no
// ranges and sends the file from its beginning, which is possible for offset 0 only.
// id is checked and filled. With a known digest, that decides and not the tag, since
// the mirrors of one file have different tags. The error wraps ErrChanged if the
// file on the server is another one.
func (c *Client) openRange(ctx context.Context, address string, offset, length int64, id *identity, digestKnown bool) (res *http.Response, stop func(), whole bool, err error) {
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)}}
	conditional := !digestKnown && id.validator() != ""
	if conditional {
		header.Set("If-Range", id.validator())
	}
	res, stop, err = c.send(ctx, address, header)
	if err != nil {
		if s, ok := isStatus(err, http.StatusRequestedRangeNotSatisfiable); ok {
			err = fmt.Errorf("%w: it has no byte %d now (%s, Content-Range %.60q)", ErrChanged, offset, s.URL, s.Header.Get("Content-Range"))
		}
		return nil, nil, false, err
	}
	whole, err = checkRange(res, offset, length, id, conditional, digestKnown)
	if err != nil {
		_ = res.Body.Close()
		stop()
		return nil, nil, false, err
	}
	return res, stop, whole, nil
}

// checkRange compares an answer with the request and with id, and completes id.
func checkRange(res *http.Response, offset, length int64, id *identity, conditional, digestKnown bool) (whole bool, err error) {
	at := withoutQuery(res.Request.URL)
	size := res.ContentLength
	if res.StatusCode == http.StatusOK {
		switch {
		case conditional || offset > 0: // it honoured a range before
			return false, fmt.Errorf("%w: %s", ErrChanged, at)
		case size < 0:
			return false, fmt.Errorf("%w: %s does not say how long the file is", ErrAnswer, at)
		}
		whole = true
	} else {
		first, last, total, err := parseContentRange(res.Header.Get("Content-Range"))
		if err != nil {
			return false, fmt.Errorf("%w: %s: %w", ErrAnswer, at, err)
		}
		want := min(offset+length, total) - 1
		if first != offset || last != want || size >= 0 && size != last-first+1 {
			return false, fmt.Errorf("%w: %s sends the bytes %d to %d (%d of them), not %d to %d", ErrAnswer, at, first, last, size, offset, want)
		}
		size = total
	}
	if size == 0 {
		return false, fmt.Errorf("%w: %s is empty", ErrAnswer, at)
	}
	switch {
	case id.expected && size != id.Size:
		return false, fmt.Errorf("%w: %s has %d bytes, not %d", ErrSize, at, size, id.Size)
	case id.Size >= 0 && size != id.Size:
		return false, fmt.Errorf("%w: %s has %d bytes, expected %d", ErrChanged, at, size, id.Size)
	}
	id.Size = size
	etag, modified := res.Header.Get("ETag"), res.Header.Get("Last-Modified")
	if !digestKnown && (id.ETag != "" && etag != id.ETag || id.ETag == "" && id.Modified != "" && modified != id.Modified) {
		return false, fmt.Errorf("%w: %s", ErrChanged, at)
	}
	id.ETag, id.Modified = etag, modified
	return whole, nil
}

// parseContentRange parses "bytes FIRST-LAST/TOTAL".
func parseContentRange(s string) (first, last, total int64, err error) {
	invalid := fmt.Errorf("the Content-Range is %.60q", s)
	unit, rest, _ := strings.Cut(s, " ")
	span, size, _ := strings.Cut(rest, "/")
	from, to, _ := strings.Cut(span, "-")
	if !strings.EqualFold(unit, "bytes") {
		return 0, 0, 0, invalid
	}
	var numbers [3]int64
	for i, digits := range []string{from, to, size} {
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil {
			return 0, 0, 0, invalid
		}
		numbers[i] = int64(n)
	}
	if first, last, total = numbers[0], numbers[1], numbers[2]; first > last || last >= total {
		return 0, 0, 0, invalid
	}
	return first, last, total, nil
}

func isStatus(err error, code int) (*StatusError, bool) {
	var s *StatusError
	return s, errors.As(err, &s) && s.Code == code
}
