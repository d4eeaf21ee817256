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

// MediaMarker stands in a prompt or a message where a medium goes. It is the
// marker of llama.cpp's own programs (mtmd_default_marker in mtmd.cpp); the
// server's is a secret of each Server, so that no text of a user's is taken for
// one where there are no media.
const MediaMarker = "<__media__>"

var (
	// ErrNoProjector means that the model was loaded without a projector, or with
	// one for another kind of media.
	ErrNoProjector = errors.New("the model cannot read media")
	// ErrMedia means that an image or a sound cannot be decoded. Where the server
	// found out, the error wraps its *llamaapi.APIError too.
	ErrMedia = errors.New("unreadable media")
)

// Media is an image or a sound: the whole file.
type Media struct {
	// Data are the bytes of the file. llama.cpp decodes PNG, JPEG, GIF (the first
	// picture), BMP, PSD, TGA, HDR and PNM (stb_image), and WAV, MP3 and FLAC
	// (miniaudio).
	Data []byte
	// Type is the media type, such as "image/png"; empty: what the bytes say.
	Type string
}

// MediaMessage is a turn of a conversation with the media that it shows. They
// stand at the places of MediaMarker in the content, as many as there are media,
// or before the content where it has none.
type MediaMessage struct {
	inference.Message

	Media []Media
}

// Multimodal answers about images and sounds. The model must have been loaded
// with Settings.Projector.
type Multimodal interface {
	// Modalities are the kinds of media that the model reads.
	Modalities() llamaapi.Modalities
	// GenerateMedia is Generate with media at the places of MediaMarker in the
	// prompt, or before it where it has none.
	GenerateMedia(ctx context.Context, prompt string, media []Media, opts ...inference.GenerateOption) iter.Seq[inference.Token]
	// ChatMedia is Chat with media.
	ChatMedia(ctx context.Context, messages []MediaMessage, opts ...inference.GenerateOption) iter.Seq[inference.Token]
}

var _ Multimodal = (*Model)(nil)

// Modalities implements Multimodal, as the server tells it; none where it does
// not answer.
func (m *Model) Modalities() llamaapi.Modalities {
	ctx, cancel := context.WithTimeout(m.life, 5*time.Second)
	defer cancel()
	p, err := m.known(ctx)
	if err != nil {
		return llamaapi.Modalities{}
	}
	return p.Modalities
}

// known are the server's properties. What concerns media stays as it is when the
// process is started again: the projector is an argument, the marker ours.
func (m *Model) known(ctx context.Context) (*llamaapi.Props, error) {
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
// ErrOption where markers and media are not equally many.
func (m *Model) GenerateMedia(ctx context.Context, prompt string, media []Media, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	return m.run(ctx, func() Request {
		return Request{Prompt: prompt, Media: media, GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// ChatMedia implements Multimodal; its errors are those of GenerateMedia.
func (m *Model) ChatMedia(ctx context.Context, messages []MediaMessage, opts ...inference.GenerateOption) iter.Seq[inference.Token] {
	if messages == nil {
		messages = []MediaMessage{} // a chat all the same, and an empty one
	}
	return m.run(ctx, func() Request {
		return Request{MediaMessages: messages, GenerateConfig: inference.ApplyGenerateOpts(opts)}
	})
}

// withMedia gives the request as the server wants it: the server's marker in the
// text for each medium, and all media in their order. A marker in a message that
// carries no media is mere text.
func (m *Model) withMedia(ctx context.Context, r Request) (Request, error) {
	if err := r.validate(); err != nil {
		return r, err
	}
	switch {
	case len(r.Media) > 0 && (len(r.Tokens) > 0 || len(r.Messages) > 0 || r.MediaMessages != nil):
		return r, fmt.Errorf("%w: Media belong to a Prompt; for a conversation use MediaMessages", ErrOption)
	case len(r.Media) > 0:
		var err error
		r.Prompt, err = m.place(ctx, r.Prompt, r.Media)
		return r, err
	case r.MediaMessages == nil:
		return r, nil
	}
	r.Messages = make([]inference.Message, len(r.MediaMessages))
	for i, msg := range r.MediaMessages {
		r.Messages[i] = msg.Message
		if len(msg.Media) == 0 {
			continue
		}
		var err error
		if r.Messages[i].Content, err = m.place(ctx, msg.Content, msg.Media); err != nil {
			return r, fmt.Errorf("message %d: %w", i, err)
		}
		r.Media = append(r.Media, msg.Media...)
	}
	r.MediaMessages = nil
	return r, nil
}

// place puts the server's markers into a text.
func (m *Model) place(ctx context.Context, text string, media []Media) (string, error) {
	if err := m.Readable(ctx, media...); err != nil {
		return "", err
	}
	marker := m.props.Load().MediaMarker // Readable has asked for it
	switch n := strings.Count(text, MediaMarker); n {
	case 0:
		return strings.Repeat(marker+"\n", len(media)) + text, nil
	case len(media):
		return strings.ReplaceAll(text, MediaMarker, marker), nil
	default:
		return "", fmt.Errorf("%w: %d markers %s for %d media; write one for each, or none to have the media before the text",
			ErrOption, n, MediaMarker, len(media))
	}
}

// Readable compares the kinds of media with what the model's projector is for. It
// wraps ErrNoProjector, ErrMedia or ErrOption; that a file is whole is found out
// only when the model reads it.
func (m *Model) Readable(ctx context.Context, media ...Media) error {
	p, err := m.known(ctx)
	if err != nil {
		return err
	}
	reads := p.Modalities
	if !reads.Vision && !reads.Audio {
		return fmt.Errorf("%w: %s was loaded without a projector; set Settings.Projector (--mmproj) to the one made for it",
			ErrNoProjector, m.srv.Path)
	}
	for i, one := range media {
		kind, err := one.kind()
		switch {
		case err != nil:
			return fmt.Errorf("medium %d: %w", i, err)
		case kind == "image" && !reads.Vision:
			return fmt.Errorf("%w: medium %d is an image, and the projector of %s is for sound", ErrNoProjector, i, m.srv.Path)
		case kind == "audio" && !reads.Audio:
			return fmt.Errorf("%w: medium %d is a sound, and the projector of %s is for images", ErrNoProjector, i, m.srv.Path)
		}
	}
	return nil
}

// undecodable are kinds of images that llama.cpp's stb_image does not know.
func undecodable() []string {
	return []string{"image/webp", "image/avif", "image/heic", "image/heif", "image/svg+xml", "image/tiff", "image/x-icon"}
}

// kind is "image", "audio", or empty where the bytes do not say.
func (m Media) kind() (string, error) {
	if len(m.Data) == 0 {
		return "", fmt.Errorf("%w: it is empty", ErrMedia)
	}
	seen := http.DetectContentType(m.Data)
	said := seen
	if m.Type != "" {
		var err error
		if said, _, err = mime.ParseMediaType(m.Type); err != nil {
			return "", fmt.Errorf("%w: the media type %q: %w; give one such as image/png", ErrOption, m.Type, err)
		}
	}
	for _, t := range []string{seen, said} {
		if slices.Contains(undecodable(), t) {
			return "", fmt.Errorf("%w: llama.cpp does not decode %s; convert it to PNG or JPEG", ErrMedia, t)
		}
	}
	kind, _, _ := strings.Cut(said, "/")
	switch {
	case kind == "image" || kind == "audio":
		return kind, nil
	case m.Type != "":
		return "", fmt.Errorf("%w: the media type %q; images and sounds can be read", ErrOption, m.Type)
	}
	return "", nil // the server may know it
}

// files are the bytes of media.
func files(media []Media) [][]byte {
	var out [][]byte
	for _, m := range media {
		out = append(out, m.Data)
	}
	return out
}

// mediaError adds the condition and a remedy to what the server said of a
// request with media.
func mediaError(err error) error {
	var said *llamaapi.APIError
	switch {
	case errors.Is(err, llamaapi.ErrMedia):
		return fmt.Errorf("%w: %w; see that the file is whole, and convert it to PNG or JPEG if it is of another kind", ErrMedia, err)
	case errors.As(err, &said) && said.Status == http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%w: the request with it is larger than llama-server takes: %w; scale the image down", ErrMedia, err)
	}
	return err
}
