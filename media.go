package rocm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// MediaMarker marks the place of an image or a sound in a prompt or a message. It
// is the marker of llama.cpp's own programs (mtmd_default_marker in mtmd.cpp). The
// marker that the server accepts is random, so that a user's text cannot contain
// it by chance.
const MediaMarker = "<__media__>"

var (
	// ErrNoProjector reports that the model was loaded without a projector, or with
	// one for another kind of media.
	ErrNoProjector = errors.New("the model cannot read media")
	// ErrMedia reports that an image or a sound cannot be decoded. Where the server
	// rejected it, the error wraps the server's *llamaapi.APIError too.
	ErrMedia = errors.New("unreadable media")
)

// Media is an image or a sound: the whole file.
type Media struct {
	// Data are the bytes of the file. llama.cpp decodes PNG, JPEG, GIF (the first
	// picture), BMP, PSD, TGA, HDR and PNM (stb_image), and WAV, MP3 and FLAC
	// (miniaudio).
	Data []byte
	// Type is the media type, such as "image/png"; empty: detected from Data.
	Type string
}

// MediaMessage is a message of a conversation with images or sounds. Its media
// stand at the places of MediaMarker in the content, which has as many markers as
// media, or before the content where it has no marker.
type MediaMessage struct {
	inference.Message

	Media []Media
}

// Multimodal generates text about images and sounds. It needs a model that was
// loaded with Settings.Projector.
type Multimodal interface {
	// Modalities returns the kinds of media that the model reads.
	Modalities() llamaapi.Modalities
	// GenerateMedia is Generate with media at the places of MediaMarker in the
	// prompt, or before the prompt where it has no marker.
	GenerateMedia(ctx context.Context, prompt string, media []Media, opts ...inference.GenerateOption) iter.Seq[inference.Token]
	// ChatMedia is Chat with media.
	ChatMedia(ctx context.Context, messages []MediaMessage, opts ...inference.GenerateOption) iter.Seq[inference.Token]
}

var _ Multimodal = (*Model)(nil)

// Modalities implements Multimodal. It returns none where the server does not
// answer.
func (m *Model) Modalities() llamaapi.Modalities {
	ctx, cancel := context.WithTimeout(m.life, 5*time.Second)
	defer cancel()
	p, err := m.serverProps(ctx)
	if err != nil {
		return llamaapi.Modalities{}
	}
	return p.Modalities
}

// serverProps returns the server's properties, which it reads once. The properties
// of media do not change with a restart: the projector is an argument, and the
// marker is ours.
func (m *Model) serverProps(ctx context.Context) (*llamaapi.Props, error) {
	if p := m.props.Load(); p != nil {
		return p, nil
	}
	p, err := m.api.Props(ctx)
	if err != nil {
		return nil, err
	}
	m.props.Store(p)
	return p, nil
}

// GenerateMedia implements Multimodal. Err wraps ErrNoProjector, ErrMedia, or
// ErrInvalidOption where the numbers of markers and media differ.
func (m *Model) GenerateMedia(ctx context.Context, prompt string, media []Media, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.run(ctx, func() Request {
		return Request{Prompt: TextPrompt(prompt, media...), GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// ChatMedia implements Multimodal. Its errors are those of GenerateMedia.
func (m *Model) ChatMedia(ctx context.Context, messages []MediaMessage, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.run(ctx, func() Request {
		return Request{Prompt: MediaChatPrompt(messages), GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// insertMarkers returns the text with the server's marker for each medium.
func (m *Model) insertMarkers(ctx context.Context, text string, media []Media) (string, error) {
	if err := m.CheckMedia(ctx, media...); err != nil {
		return "", err
	}
	marker := m.props.Load().MediaMarker // CheckMedia has read it
	switch n := strings.Count(text, MediaMarker); n {
	case 0:
		return strings.Repeat(marker+"\n", len(media)) + text, nil
	case len(media):
		return strings.ReplaceAll(text, MediaMarker, marker), nil
	default:
		return "", invalidOption("%d markers %s for %d media; write one for each, or none to put the media before the text", n, MediaMarker, len(media))
	}
}

// CheckMedia compares the kinds of media with the kinds that the model's projector
// reads. Its error wraps ErrNoProjector, ErrMedia or ErrInvalidOption. A damaged
// file is detected only when the model reads it.
func (m *Model) CheckMedia(ctx context.Context, media ...Media) error {
	p, err := m.serverProps(ctx)
	if err != nil {
		return err
	}
	reads := p.Modalities
	if !reads.Vision && !reads.Audio {
		return fmt.Errorf("%w: %s was loaded without a projector; set Settings.Projector (--mmproj) to the model's projector",
			ErrNoProjector, m.srv.Path)
	}
	for i, medium := range media {
		kind, err := medium.kind()
		switch {
		case err != nil:
			return fmt.Errorf("medium %d: %w", i, err)
		case kind == "image" && !reads.Vision:
			return fmt.Errorf("%w: medium %d is an image, but the projector of %s is for sound", ErrNoProjector, i, m.srv.Path)
		case kind == "audio" && !reads.Audio:
			return fmt.Errorf("%w: medium %d is a sound, but the projector of %s is for images", ErrNoProjector, i, m.srv.Path)
		}
	}
	return nil
}

// unsupportedTypes returns image types that llama.cpp's stb_image does not decode.
func unsupportedTypes() []string {
	return []string{"image/webp", "image/avif", "image/heic", "image/heif", "image/svg+xml", "image/tiff", "image/x-icon"}
}

// kind returns "image" or "audio", or an empty string where the data does not
// show the kind.
func (m Media) kind() (string, error) {
	if len(m.Data) == 0 {
		return "", fmt.Errorf("%w: the data is empty", ErrMedia)
	}
	detected := http.DetectContentType(m.Data)
	declared := detected
	if m.Type != "" {
		var err error
		if declared, _, err = mime.ParseMediaType(m.Type); err != nil {
			return "", invalidOption("the media type %q: %w; use a type such as image/png", m.Type, err)
		}
	}
	for _, t := range []string{detected, declared} {
		if slices.Contains(unsupportedTypes(), t) {
			return "", fmt.Errorf("%w: llama.cpp does not decode %s; convert it to PNG or JPEG", ErrMedia, t)
		}
	}
	kind, _, _ := strings.Cut(declared, "/")
	switch {
	case kind == "image" || kind == "audio":
		return kind, nil
	case m.Type != "":
		return "", invalidOption("the media type %q; only images and sounds can be read", m.Type)
	}
	return "", nil // the server may detect it
}

// mediaData returns the data of media.
func mediaData(media []Media) [][]byte {
	var out [][]byte
	for _, m := range media {
		out = append(out, m.Data)
	}
	return out
}

// mediaError adds ErrMedia and a remedy to the server's error for a request with
// media.
func mediaError(err error) error {
	var apiErr *llamaapi.APIError
	switch {
	case errors.Is(err, llamaapi.ErrMedia):
		return fmt.Errorf("%w: %w; check that the file is complete, and convert other image types to PNG or JPEG", ErrMedia, err)
	case errors.As(err, &apiErr) && apiErr.Status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: the request is larger than llama-server accepts: %w; scale the image down", ErrMedia, err)
	}
	return err
}
