package cli

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

// These are why the door refuses a conversation.
var (
	errRemoteMedia = errors.New("an image or sound by its address: nothing is fetched here, send it inside as data:image/png;base64,…")
	errNotJSON     = errors.New("the body is not one JSON text")
)

// conversational reports whether messages come this way, in which llama-server
// takes addresses of media and fetches them (handle_media in server-common.cpp).
func conversational(path string) bool {
	return path == "/apply-template" || slices.ContainsFunc([]string{"/chat/completions", "/responses", "/messages"},
		func(part string) bool { return strings.Contains(path, part) })
}

// withoutRemoteMedia reads the body of a conversation and refuses one that would
// have llama-server fetch something, from places that the client may not be able
// to reach itself.
func withoutRemoteMedia(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	remote, err := remoteMedia(body)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errNotJSON, err)
	case remote:
		return errRemoteMedia
	}
	return nil
}

// level is an object or array that the reader is inside of.
type level struct {
	object bool
	of     string // the key whose value it is
	key    string // of the member that is read
	named  bool   // key is that of the value to come
}

// remoteMedia looks for media that are given by their address: a text that
// begins with "http", in the places where server-common.cpp and server-chat.cpp
// look for one.
func remoteMedia(body []byte) (bool, error) {
	if !bytes.Contains(body, []byte("http")) && !bytes.Contains(body, []byte(`\u`)) {
		return false, nil // as almost always
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	stack := []level{{}}
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		top := &stack[len(stack)-1]
		if text, ok := token.(string); ok && top.object && !top.named {
			top.key, top.named = text, true
			continue
		}
		switch v := token.(type) {
		case json.Delim:
			if v == '{' || v == '[' {
				inner := level{object: v == '{', of: top.key}
				if !inner.object {
					inner.key = top.key // its elements are values of the same key
				}
				stack = append(stack, inner)
				continue
			}
			stack = stack[:len(stack)-1]
			top = &stack[len(stack)-1]
		case string:
			if strings.HasPrefix(v, "http") && top.address() {
				return true, nil
			}
		}
		top.named = false // its value is over
	}
}

// address reports whether the value to come is the address of a medium.
func (l *level) address() bool {
	if l.key == "image_url" {
		return true // as the Responses API has it
	}
	return (l.key == "url" || l.key == "data") &&
		slices.Contains([]string{"image_url", "input_audio", "input_video", "video_url", "source"}, l.of)
}
