package journald

import (
	"encoding/binary"
	"strings"
)

// The priorities of syslog(3) that gpuqd uses.
const (
	Err     = "3"
	Warning = "4"
	Info    = "6"
	Debug   = "7"
)

// nameBytesMax is how long a field's name may be; journald drops longer ones.
const nameBytesMax = 64

// Field is one name and value of an entry.
type Field struct{ Name, Value string }

// Append adds a field to an entry. Any bytes are a valid value. The name must be
// one that Name returns, or a constant that it would not change.
func Append[T string | []byte](entry []byte, name string, value T) []byte {
	entry = append(entry, name...)
	for i := range len(value) {
		if value[i] == '\n' {
			entry = append(entry, '\n')
			entry = binary.LittleEndian.AppendUint64(entry, uint64(len(value)))
			entry = append(entry, value...)
			return append(entry, '\n')
		}
	}
	entry = append(entry, '=')
	entry = append(entry, value...)
	return append(entry, '\n')
}

// Name makes text a valid name of a field: upper case, digits and _, neither of
// the latter first (journald keeps names with a leading _ for itself, and drops
// the field), and at most 64 bytes. Text without a letter becomes "X".
func Name(text string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, text)
	name = strings.TrimLeft(name, "_0123456789")
	if name == "" {
		return "X"
	}
	return name[:min(len(name), nameBytesMax)]
}
