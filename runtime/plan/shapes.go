package plan

import (
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// headSizes has the widths of a key and a value head, in full and in sliding-window
// layers.
type headSizes struct {
	key, value, keyWindow, valueWindow uint64
	latent                             bool // one compressed key is also the value
}

// shapes sets what each layer caches and computes, from the metadata.
func (m *model) shapes() error {
	heads, err := m.perLayer("attention.head_count", 0)
	if err != nil {
		return err
	}
	kv, err := m.perKeyHeads(heads)
	if err != nil {
		return err
	}
	feed, err := m.perLayer("feed_forward_length", 0)
	if err != nil {
		return err
	}
	sizes, err := m.headSizes(heads)
	if err != nil {
		return err
	}
	m.heads = sizes
	if err := m.mixture(); err != nil {
		return err
	}
	var isWindow []bool
	m.window, isWindow = windows(m.file, len(m.layers))
	m.window = min(m.window, maxWidth)
	recurrent := m.recurrentLayers(kv, feed)
	kind, _ := recurrence(m.arch)
	shared := m.firstShared()
	for i := range m.layers {
		l := &m.layers[i]
		l.heads, l.feed, l.recurrent = heads[i], feed[i], recurrent[i]
		attends := !l.recurrent || kind == bothInEach
		if !attends || (kind == whenNoKeysNoFF && feed[i] != 0) {
			continue
		}
		l.window = isWindow[i]
		key, value := sizes.key, sizes.value
		if l.window {
			key, value = sizes.keyWindow, sizes.valueWindow
		}
		if l.query = heads[i] * key; max(l.query, kv[i]*key, kv[i]*value) > maxWidth {
			return fmt.Errorf("%w: layer %d has %d heads of width %d", gguf.ErrMalformed, i, heads[i], key)
		}
		if !m.cached || i >= shared {
			continue // caches nothing, or uses the cache of an earlier layer
		}
		l.keyRow = kv[i] * key
		if !sizes.latent {
			l.valueRow = kv[i] * value
		}
	}
	m.conv, m.state = stateSize(m.file, m.embd, first(heads))
	if m.conv > 1<<32 || m.state > 1<<32 {
		return fmt.Errorf("%w: a recurrent state larger than any real one", gguf.ErrMalformed)
	}
	return nil
}

func (m *model) perKeyHeads(heads []uint64) ([]uint64, error) {
	kv, err := m.perLayer("attention.head_count_kv", maxWidth)
	if err != nil {
		return nil, err
	}
	for i := range kv {
		if kv[i] == maxWidth {
			kv[i] = heads[i]
		}
	}
	return kv, nil
}

func first(v []uint64) uint64 {
	for _, n := range v {
		if n != 0 {
			return n
		}
	}
	return 0
}

func (m *model) headSizes(heads []uint64) (h headSizes, err error) {
	even := uint64(0)
	if n := first(heads); n != 0 {
		even = m.embd / n
	}
	if h.key, err = m.one("attention.key_length", even); err != nil {
		return h, err
	}
	if h.value, err = m.one("attention.value_length", even); err != nil {
		return h, err
	}
	if h.keyWindow, err = m.one("attention.key_length_swa", h.key); err != nil {
		return h, err
	}
	if h.valueWindow, err = m.one("attention.value_length_swa", h.value); err != nil {
		return h, err
	}
	_, keyMLA := m.file.ArchUint("attention.key_length_mla")
	_, valueMLA := m.file.ArchUint("attention.value_length_mla")
	h.latent = keyMLA && valueMLA
	return h, nil
}

func (m *model) mixture() (err error) {
	if m.used, err = m.one("expert_used_count", 0); err != nil {
		return err
	}
	plain, err := m.one("feed_forward_length", 0)
	if err != nil {
		return err
	}
	if m.expertFeed, err = m.one("expert_feed_forward_length", plain); err != nil {
		return err
	}
	m.inner, err = m.one("ssm.inner_size", 0)
	return err
}

// recurrentLayers reports which layers keep a state instead of keys.
func (m *model) recurrentLayers(kv, feed []uint64) []bool {
	out := make([]bool, len(m.layers))
	kind, interval := recurrence(m.arch)
	listed, err := m.file.ArchUints("attention.recurrent_layers")
	if n, ok := m.file.ArchUint("full_attention_interval"); ok && n > 0 {
		interval = n
	}
	for i := range out {
		switch kind {
		case alwaysRecurrent, bothInEach:
			out[i] = true
		case whenNoKeys:
			out[i] = kv[i] == 0
		case whenNoKeysNoFF:
			out[i] = kv[i] == 0 && feed[i] == 0
		case byInterval:
			if err == nil && len(listed) > 1 {
				out[i] = i < len(listed) && listed[i] != 0
			} else {
				out[i] = (uint64(i)+1)%interval != 0
			}
		case neverRecurrent:
		}
	}
	return out
}

// firstShared returns the first layer that reuses the cache of an earlier one.
func (m *model) firstShared() int {
	switch m.arch {
	case "gemma3n":
		return 20
	case "gemma4":
		n, _ := m.file.ArchUint("attention.shared_kv_layers") // absent: none
		return len(m.layers) - int(min(n, uint64(len(m.layers))))
	}
	return len(m.layers)
}
