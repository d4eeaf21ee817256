package rocm

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// A server's error about the media gets a condition and a remedy; any other error stays
// as it is.
func TestMediaError(t *testing.T) {
	for name, c := range map[string]struct {
		said   llamaapi.APIError
		media  bool
		remedy string
	}{
		"undecoded": {llamaapi.APIError{Status: http.StatusBadRequest, Message: "Failed to load image or audio file"}, true, "PNG or JPEG"},
		"too large": {llamaapi.APIError{Status: http.StatusRequestEntityTooLarge, Message: "Request Entity Too Large"}, true, "scale the image down"},
		"busy":      {llamaapi.APIError{Status: http.StatusServiceUnavailable, Message: "Loading model"}, false, "Loading"},
	} {
		err := mediaError(fmt.Errorf("ask: %w", &c.said))
		var said *llamaapi.APIError
		if errors.Is(err, ErrMedia) != c.media || !errors.As(err, &said) || !strings.Contains(err.Error(), c.remedy) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
