package gguf

// fileTypeName returns the name of a general.file_type, a llama_ftype of llama.h
// (v0.5.0), or "" for an unknown number.
func fileTypeName(n uint64) string {
	names := [...]string{
		0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1",
		10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M",
		16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S",
		22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
		28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
		37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
	}
	if n < uint64(len(names)) {
		return names[n]
	}
	return ""
}

// DominantType returns the tensor type with most of the model's bytes, and false for
// a file without tensors.
func (f *File) DominantType() (TensorType, bool) {
	var bytes [64]uint64
	var best TensorType
	found := false
	for i := range f.tensors {
		t := &f.tensors[i]
		bytes[t.Type&63] += t.Bytes
		if !found || bytes[t.Type&63] > bytes[best&63] {
			best, found = t.Type, true
		}
	}
	return best, found
}

// Quantisation returns the name of the quantisation: the file's own ("Q4_K_M") or,
// without one, the dominant tensor type.
func (f *File) Quantisation() string {
	if n, err := f.Uint("general.file_type"); err == nil {
		if name := fileTypeName(n); name != "" {
			return name
		}
	}
	if t, ok := f.DominantType(); ok {
		return t.String()
	}
	return ""
}

// QuantBits is the whole number of bits of a weight in the dominant type,
// scales left out (4 for Q4_K, 16 for F16), 0 without tensors.
func (f *File) QuantBits() int {
	t, ok := f.DominantType()
	if !ok {
		return 0
	}
	if l := typeLayout(t); !l.quant {
		return int(l.size) * 8
	}
	switch t {
	case Q1_0, IQ1_S, IQ1_M, TQ1_0:
		return 1
	case Q2_0, Q2_K, IQ2_XXS, IQ2_XS, IQ2_S, TQ2_0:
		return 2
	case Q3_K, IQ3_XXS, IQ3_S:
		return 3
	case Q5_0, Q5_1, Q5_K:
		return 5
	case Q6_K:
		return 6
	case Q8_0, Q8_1, Q8_K:
		return 8
	}
	return 4
}

// QuantGroup returns the number of weights in a block of the dominant type, or 0 if
// it is not quantised.
func (f *File) QuantGroup() int {
	t, ok := f.DominantType()
	if !ok || !t.Quantised() {
		return 0
	}
	return int(t.BlockElements())
}

// BitsPerWeight returns the average over all tensors, including scales.
func (f *File) BitsPerWeight() float64 {
	p := f.Parameters()
	if p == 0 {
		return 0
	}
	return float64(f.TensorBytes()) * 8 / float64(p)
}
