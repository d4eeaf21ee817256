package fakellama

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"image"
	_ "image/gif"  // as stb_image reads them
	_ "image/jpeg" // "
	_ "image/png"  // "
	"strings"
)

// ImageTokens is the number of tokens of an image, whatever its size.
const ImageTokens = 16

// newMarker returns a random media marker, as get_media_marker in
// server-common.cpp does.
func newMarker() string { return "<__media_" + rand.Text() + "__>" }

// mediaPrompt replaces the markers by images, as process_mtmd_prompt does. Without
// images it returns plain text.
func (s *Server) mediaPrompt(text string, files [][]byte) ([]int32, *apiError) {
	images := make([][]int32, len(files))
	for i, f := range files {
		img, _, err := image.Decode(bytes.NewReader(f))
		if err != nil {
			return nil, errRequest("Failed to load image or audio file")
		}
		images[i] = imageTokens(img)
	}
	parts := strings.Split(text, s.script.MediaMarker)
	if len(parts) != len(images)+1 {
		return nil, errRequest("Failed to tokenize prompt")
	}
	ids := s.vocab.tokenize(parts[0], true)
	for i, part := range parts[1:] {
		ids = append(append(ids, images[i]...), s.vocab.tokenize(part, true)...)
	}
	return ids, nil
}

// imageTokens returns tokens that depend on every pixel, so that the generated text
// does, too.
func imageTokens(img image.Image) []int32 {
	h := sha256.New()
	b := img.Bounds()
	var pixel [16]byte
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			red, green, blue, alpha := img.At(x, y).RGBA()
			for i, v := range []uint32{red, green, blue, alpha} {
				binary.LittleEndian.PutUint32(pixel[4*i:], v)
			}
			_, _ = h.Write(pixel[:]) // it never fails
		}
	}
	ids := make([]int32, ImageTokens)
	for i, sum := 0, h.Sum(nil); i < ImageTokens; i++ {
		ids[i] = firstByte + int32(sum[i])
	}
	return ids
}

// multimodal parses the media of a prompt object.
func (s *Server) multimodal(text string, media []string) ([]int32, *apiError) {
	if !s.script.Vision {
		return nil, errRequest("Multimodal data provided, but model does not support multimodal requests.")
	}
	files := make([][]byte, len(media))
	for i, m := range media {
		files[i] = unbase64(m)
	}
	return s.mediaPrompt(text, files)
}

// unbase64 returns no bytes for invalid base64. The server's decoder does not report
// errors either, and its result is then no image.
func unbase64(text string) []byte {
	out, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return []byte{}
	}
	return out
}

// turn is a message of a request: its content is a string or a list of parts.
type turn struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// part is one part of a message's content.
type part struct {
	Type  string `json:"type"`
	Text  string `json:"text"`
	Image struct {
		URL string `json:"url"`
	} `json:"image_url"`
}

// conversation replaces the images of messages by markers and returns the images,
// as oaicompat_chat_params_parse and common_chat_msg's to_json do. Text parts are
// joined by newlines, except around a marker.
func (s *Server) conversation(received []turn) (messages []message, files [][]byte, bad *apiError) {
	for _, t := range received {
		m := message{Role: t.Role}
		var parts []part
		switch {
		case len(t.Content) == 0 && t.Role != "assistant":
			return nil, nil, errRequest("All non-assistant messages must contain 'content'")
		case len(t.Content) == 0 || json.Unmarshal(t.Content, &m.Content) == nil: // a text, or none
		case json.Unmarshal(t.Content, &parts) != nil:
			return nil, nil, errRequest("Expected 'content' to be a string or an array")
		}
		for i, p := range parts {
			file, bad := s.join(&m, p, i > 0 && parts[i-1].Type != "text")
			if bad != nil {
				return nil, nil, bad
			}
			if file != nil {
				files = append(files, file)
			}
		}
		messages = append(messages, m)
	}
	return messages, files, nil
}

// join appends a part to a message's content and returns the part's file, if any.
func (s *Server) join(m *message, p part, afterMarker bool) (file []byte, bad *apiError) {
	switch {
	case p.Type == "text":
		if m.Content != "" && !afterMarker {
			m.Content += "\n"
		}
		m.Content += p.Text
		return nil, nil
	case p.Type != "image_url":
		return nil, errRequest("unsupported content[].type")
	case !s.script.Vision:
		return nil, &apiError{
			status: 500, Type: "server_error",
			Message: "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
		}
	}
	if file, bad = dataURI(p.Image.URL); bad == nil {
		m.Content += s.script.MediaMarker
	}
	return file, bad
}

// dataURI does what handle_media does, except for remote URLs.
func dataURI(uri string) ([]byte, *apiError) {
	head, data, ok := strings.Cut(uri, ",")
	switch {
	case strings.HasPrefix(uri, "http"):
		return nil, &apiError{status: 500, Type: "server_error", Message: "Failed to download image"}
	case strings.HasPrefix(uri, "file://"):
		return nil, errRequest("file:// URLs are not allowed unless --media-path is specified")
	case !strings.HasPrefix(uri, "data:"):
		return unbase64(uri), nil
	case !ok:
		return nil, errRequest("Invalid uri-encoded base64 value")
	case !strings.HasPrefix(head, "data:image/"):
		return nil, errRequest("Invalid uri format: " + head)
	case !strings.HasSuffix(head, "base64"):
		return nil, errRequest("uri must be base64 encoded")
	}
	return unbase64(data), nil
}
