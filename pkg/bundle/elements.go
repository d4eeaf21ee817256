package bundle

// maxElements bounds the elements of all lists of a manifest or an index. An
// element can be two bytes long and takes a hundred once it is decoded. The hip
// bundle for two targets has about two thousand.
const maxElements = 1 << 15

// elements counts the commas in the lists of a JSON text.
func elements(text []byte) int {
	n, quoted := 0, false
	var open []byte // the brackets around the byte, outermost first
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			open = append(open, c)
		case (c == ']' || c == '}') && len(open) > 0:
			open = open[:len(open)-1]
		case c == ',' && len(open) > 0 && open[len(open)-1] == '[':
			n++
		}
	}
	return n
}
