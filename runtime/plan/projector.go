package plan

import "forge.lthn.ai/core/go-rocm/pkg/gguf"

// projectorBytes returns the memory of a multimodal projector: its weights, and the
// graph that llama.cpp reserves for one image of the size that the file states.
//
// The terms come from measurements of llama.cpp v0.5.0's reservation for vision
// transformers of fixed size; the test has the figures. For projectors that accept
// any size, the file's size is assumed. For audio only the weights count.
func projectorBytes(f *gguf.File, flash bool) uint64 {
	get := func(key string) uint64 {
		v, _ := f.ArchUint(key) // absent: none
		return min(v, maxWidth)
	}
	side, patch := get("vision.image_size"), get("vision.patch_size")
	if side == 0 || patch == 0 {
		return f.TensorBytes()
	}
	width, feed := get("vision.embedding_length"), get("vision.feed_forward_length")
	n := times(side/patch, side/patch)
	floats := max(feed+3*width, 5*width)
	_, class := f.Tensor("v.class_embd")
	if class {
		// These keep the image and a copy with the class token, and end with two
		// layers over all patches; the others join patches first.
		n++
		floats = max(floats, 2*get("vision.projection_dim")) + width
	}
	if !flash {
		floats = max(floats, plus(times(n, get("vision.attention.head_count")), 6*width))
	}
	graph := times(n, times(4, floats))
	if class {
		graph = plus(graph, times(times(side, side), 3*4))
	}
	return plus(f.TensorBytes(), graph)
}
