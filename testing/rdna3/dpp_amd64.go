package rdna3

// A lanePattern is a DPP for every lane.
type lanePattern struct {
	from       [64]uint8
	found      uint64 // lanes that have a source
	masked     uint64 // lanes that the masks of rows and banks leave out
	fetch      bool   // inactive lanes are read
	zero, dpp8 bool
}

// pattern returns the pattern of a DPP.
func (d DPP) pattern() *lanePattern {
	p := &lanePattern{fetch: d.FetchInact, zero: d.BoundZero, dpp8: d.Kind == dpp8}
	for l := range p.from {
		if from, ok := d.from(l); ok {
			p.from[l] = uint8(from)
			p.found |= 1 << l
		}
		if d.Kind == dpp16 && (d.RowMask>>(l/16&3)&1 == 0 || d.BankMask>>(l/4%4)&1 == 0) {
			p.masked |= 1 << l
		}
	}
	return p
}

// rearrange moves lanes to t, and returns the lanes that keep their destination.
func (w *Wave) rearrange(p *lanePattern, from *uint32, t *[64]uint32) (lost uint64) {
	var in [64]uint32
	vecMove(&in[0], from, from, from, w.lanes)
	found := p.found
	if exec := w.exec(); exec != w.all && !p.fetch {
		for l := range w.lanes {
			if exec>>(p.from[l]&63)&1 == 0 {
				found &^= 1 << l
			}
		}
	}
	for l := range w.lanes {
		t[l] = in[p.from[l]&63]
	}
	lost = p.masked
	if missing := w.all &^ found; missing != 0 {
		gone := missing
		if p.zero {
			gone = 0
		} else if p.dpp8 {
			gone = missing &^ p.found
		}
		lost |= gone
		laneSelect(&t[0], &t[0], &unused[0], missing, w.lanes)
	}
	return lost & w.all
}
