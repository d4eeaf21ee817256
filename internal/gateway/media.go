package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// rejectRemoteMedia reads the body of a chat request and returns errRemoteMedia
// if llama-server would fetch something for it, possibly from an address that
// the client itself cannot reach.
func rejectRemoteMedia(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	remote, err := hasRemoteMedia(body)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNotJSON, err)
	case remote:
		return errRemoteMedia
	}
	return nil
}

// jsonFrame is an object or array that the decoder is inside.
type jsonFrame struct {
	object bool
	parent string // the key of which this object or array is the value
	key    string // the key of the current member
	hasKey bool   // key belongs to the next value
}

// hasRemoteMedia reports whether a body names media by address: a string that
// begins with "http" at one of the keys where server-common.cpp and
// server-chat.cpp look for media.
func hasRemoteMedia(body []byte) (bool, error) {
	if !bytes.Contains(body, []byte("http")) && !bytes.Contains(body, []byte(`\u`)) {
		return false, nil // the common case
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	stack := []jsonFrame{{}}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		top := &stack[len(stack)-1]
		if text, ok := token.(string); ok && top.object && !top.hasKey {
			top.key, top.hasKey = text, true
			continue
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				inner := jsonFrame{object: v == '{', parent: top.key}
				if !inner.object {
					inner.key = top.key // elements are values of the array's key
				}
				stack = append(stack, inner)
				continue
			}
			stack = stack[:len(stack)-1]
			top = &stack[len(stack)-1]
		case string:
			if strings.HasPrefix(v, "http") && top.isMediaAddress() {
				return true, nil
			}
		}
		top.hasKey = false
	}
}

// isMediaAddress reports whether the next value is the address of a medium.
func (f *jsonFrame) isMediaAddress() bool {
	if f.key == "image_url" {
		return true // a string in the Responses API
	}
	return (f.key == "url" || f.key == "data") &&
		slices.Contains([]string{"image_url", "input_audio", "input_video", "video_url", "source"}, f.parent)
}
