package apt_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/testing/pgpkeys"
)

// A key that any supported client refuses is rejected before anything is written,
// with the reason. testing/install shows the same keys to the clients.
func TestOptionsRejectKeysThatClientsRefuse(t *testing.T) {
	t.Parallel()
	for _, k := range pgpkeys.Keys(t, first) {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			keys, err := apt.ParseKeys(k.Private(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			o := options(t.TempDir(), keys, first)
			if strings.HasPrefix(k.Name, "RSA of 2048") { // sqv accepts it for a limited time
				o.Validity = time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC).Sub(first)
				if err := o.Check(); !errors.Is(err, apt.ErrKey) || !strings.Contains(err.Error(), "from 2030-02-01 on") {
					t.Errorf("valid until 2030-02-01: %v", err)
				}
				o.Validity = 0
			}
			err = o.Check()
			if k.Refused == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, apt.ErrKey) || !strings.Contains(err.Error(), k.Refused) {
				t.Errorf("got %v; want an error about %q", err, k.Refused)
			}
			if _, err := keys.Sign([]byte("text"), first); !errors.Is(err, apt.ErrKey) {
				t.Errorf("Sign: %v", err)
			}
		})
	}
}
