package broker

import "encoding/binary"

// What a message's header table may be. All lie below what the client library
// bears (depth 32, 8192 elements in one table or array, a frame of frame_max),
// with room for what queues add.
const (
	tableDepthMax    = 16        // tables and arrays inside the header table
	tableElementsMax = 1024      // entries and array elements, of all depths together
	tableBytesMax    = 64 * 1024 // as encoded
)

// judgeTable returns why a table cannot be given to the library; "" if it can.
func judgeTable(table []byte) string {
	w := tableWalk{}
	w.container(table, 0, true)
	return w.reason
}

// tableWalk follows an encoded table until something is wrong with it.
type tableWalk struct {
	elements int
	reason   string // what is wrong; "" so far
}

// container walks a table's entries or an array's elements.
func (w *tableWalk) container(b []byte, depth int, keys bool) {
	if depth > tableDepthMax {
		w.reason = "nested too deep"
		return
	}
	for len(b) > 0 && w.reason == "" {
		if w.elements++; w.elements > tableElementsMax {
			w.reason = "too many elements"
			return
		}
		if keys {
			b = w.cut(b, 1+int(b[0]))
		}
		b = w.field(b, depth)
	}
}

// field walks one value and returns what follows it.
func (w *tableWalk) field(b []byte, depth int) []byte {
	if len(b) == 0 {
		w.reason = "not readable" // also where cut has found it so
		return nil
	}
	kind, b := b[0], b[1:]
	switch kind {
	case 'V':
		return b
	case 't', 'b', 'B':
		return w.cut(b, 1)
	case 's', 'u':
		return w.cut(b, 2)
	case 'I', 'i', 'f':
		return w.cut(b, 4)
	case 'D':
		return w.cut(b, 5)
	case 'l', 'd', 'T':
		return w.cut(b, 8)
	case 'S', 'x', 'A', 'F':
		if len(b) < 4 {
			return w.cut(b, 4)
		}
		length := int(binary.BigEndian.Uint32(b))
		rest := w.cut(b[4:], length)
		if w.reason == "" && (kind == 'A' || kind == 'F') {
			w.container(b[4:4+length], depth+1, kind == 'F')
		}
		return rest
	}
	w.reason = "not readable"
	return nil
}

// cut returns b without its first n bytes.
func (w *tableWalk) cut(b []byte, n int) []byte {
	if n > len(b) {
		w.reason = "not readable"
		return nil
	}
	return b[n:]
}
