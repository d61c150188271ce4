package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
)

// streamConn gives a stream in pieces of at most chunk bytes, then io.EOF.
type streamConn struct {
	net.Conn
	stream []byte
	chunk  int
}

func (c *streamConn) Read(p []byte) (int, error) {
	if len(c.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.stream[:min(c.chunk, len(c.stream))])
	c.stream = c.stream[n:]
	return n, nil
}

// guarded reads a stream through a guard: the broker's side comes in pieces of
// chunk bytes, the library asks for readSize at a time.
func guarded(t testing.TB, stream []byte, frameMax, chunk, readSize int, log io.Writer) []byte {
	t.Helper()
	g := newHeaderGuard(&streamConn{stream: stream, chunk: chunk}, slog.New(slog.NewTextHandler(log, nil)))
	g.frameMax.Store(int64(frameMax))
	var got []byte
	for p := make([]byte, readSize); ; {
		n, err := g.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatalf("the stream ends with %v", err)
			}
			return got
		}
		if len(got) > len(stream) {
			t.Fatalf("%d bytes became more than %d", len(stream), len(got))
		}
	}
}

func frameOf(kind byte, payload []byte) []byte {
	b := []byte{kind, 0, 7}
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, payload...), 0xCE)
}

// long returns b with its length in front.
func long(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// headerFrame returns a content header with content-type, content-encoding,
// delivery-mode and message-id around the table; nil leaves the headers out.
func headerFrame(table []byte) []byte {
	flags := uint16(0x8000 | 0x4000 | 0x1000 | 0x0080)
	if table != nil {
		flags |= 0x2000
	}
	b := []byte{0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, "\x10application/json\x04gzip"...)
	if table != nil {
		b = append(b, long(table)...)
	}
	return frameOf(2, append(b, "\x02\x04id-1"...))
}

func entry(key string, kind byte, value []byte) []byte {
	b := append([]byte{byte(len(key))}, key...)
	return append(append(b, kind), value...)
}

// nested returns a table with n tables or arrays inside one another.
func nested(n int, kind byte) []byte {
	var inner []byte
	for range n - 1 {
		if kind == 'F' {
			inner = entry("k", 'F', long(inner))
		} else {
			inner = append([]byte{'A'}, long(inner)...)
		}
	}
	return entry("k", kind, long(inner))
}

// ordinary holds a value of each kind that the protocol knows.
func ordinary() []byte {
	var b []byte
	for _, f := range []struct {
		kind  byte
		value string
	}{
		{'t', "\x01"},
		{'b', "\x01"},
		{'B', "\x01"},
		{'s', "12"},
		{'u', "12"},
		{'I', "1234"},
		{'i', "1234"},
		{'f', "1234"},
		{'D', "12345"},
		{'l', "12345678"},
		{'d', "12345678"},
		{'T', "12345678"},
		{'V', ""},
		{'S', "\x00\x00\x00\x02ab"},
		{'x', "\x00\x00\x00\x02ab"},
		{'A', "\x00\x00\x00\x03Vt\x01"},
		{'F', "\x00\x00\x00\x03\x01kV"},
	} {
		b = append(b, entry("key "+string(f.kind), f.kind, []byte(f.value))...)
	}
	return b
}

// bytesOf returns a table of n bytes.
func bytesOf(n int) []byte { return entry("k", 'S', long(make([]byte, n-7))) }

// tables are the header tables of the cases below; strip tells which must go.
func tables() []struct {
	name  string
	table []byte
	strip string // the reason; "" where it stays
} {
	voids := func(n int) []byte { return bytes.Repeat(entry("", 'V', nil), n) }
	return []struct {
		name  string
		table []byte
		strip string
	}{
		{"None", nil, ""},
		{"Empty", []byte{}, ""},
		{"EveryKind", ordinary(), ""},
		{"TablesJustDeepEnough", nested(tableDepthMax, 'F'), ""},
		{"TablesTooDeep", nested(tableDepthMax+1, 'F'), "nested too deep"},
		{"TablesFarTooDeep", nested(4000, 'F'), "nested too deep"},
		{"ArraysJustDeepEnough", nested(tableDepthMax, 'A'), ""},
		{"ArraysTooDeep", nested(tableDepthMax+1, 'A'), "nested too deep"},
		{"EntriesJustFewEnough", voids(tableElementsMax), ""},
		{"TooManyEntries", voids(tableElementsMax + 1), "too many elements"},
		{"TooManyInAnArray", entry("k", 'A', long(bytes.Repeat([]byte{'V'}, tableElementsMax))), "too many elements"},
		{"JustSmallEnough", bytesOf(tableBytesMax), ""},
		{"TooLarge", bytesOf(tableBytesMax + 1), "too large"},
		{"LargerThanAnyFrame", bytesOf(300_000), "too large"},
		{"UnknownKind", entry("k", 'Z', nil), "not readable"},
		{"ValueCutOff", entry("k", 'l', []byte("1234")), "not readable"},
		{"KeyCutOff", []byte("\x09key"), "not readable"},
		{"KeyWithoutValue", []byte("\x03key"), "not readable"},
		{"LengthCutOff", entry("k", 'S', []byte("12")), "not readable"},
		{"InnerTableBeyondItsTable", entry("k", 'F', binary.BigEndian.AppendUint32(nil, math.MaxUint32)), "not readable"},
	}
}

// sizes are the sizes of reads to try on a stream: each one where it is short.
func sizes(stream []byte) []int {
	some := []int{1, 2, 3, 7, 8, 21, 512, 4096, 65_537, len(stream)}
	if len(stream) > 1000 {
		return some[3:]
	}
	all := []int{4096}
	for n := range len(stream) {
		all = append(all, n+1)
	}
	return all
}

func TestHeaderGuard(t *testing.T) {
	method := frameOf(1, []byte("\x00\x3c\x00\x3cdeliver"))
	heartbeat := []byte{8, 0, 0, 0, 0, 0, 0, 0xCE}
	// A body that looks like a message whose headers must go.
	body := frameOf(3, headerFrame(nested(40, 'F')))

	for _, c := range tables() {
		t.Run(c.name, func(t *testing.T) {
			in, want := headerFrame(c.table), headerFrame(c.table)
			if c.strip != "" {
				want = headerFrame(nil)
			}
			stream := bytes.Join([][]byte{method, in, body, heartbeat, method, in}, nil)
			wanted := bytes.Join([][]byte{method, want, body, heartbeat, method, want}, nil)
			for _, chunk := range sizes(in) {
				for _, readSize := range []int{1, 7, 64, 4096, 100_000} {
					var log strings.Builder
					got := guarded(t, stream, 131_072, chunk, readSize, &log)
					if !bytes.Equal(got, wanted) {
						t.Fatalf("in pieces of %d, read by %d: got %d bytes, want %d", chunk, readSize, len(got), len(wanted))
					}
					lines := strings.Count(log.String(), "level=WARN")
					if c.strip == "" && lines != 0 || c.strip != "" && (lines != 2 || !strings.Contains(log.String(), c.strip)) {
						t.Fatalf("the log says %s", log.String())
					}
				}
			}
		})
	}
	t.Run("FrameAboveTheNegotiatedSize", func(t *testing.T) {
		in := headerFrame(bytesOf(5000))
		for frameMax, want := range map[int][]byte{0: in, len(in): in, len(in) - 1: headerFrame(nil)} {
			if got := guarded(t, in, frameMax, 100, 4096, t.Output()); !bytes.Equal(got, want) {
				t.Errorf("with frames of at most %d: got %d bytes, want %d", frameMax, len(got), len(want))
			}
		}
	})
	t.Run("MalformedStreamIsHandedOnAsItIs", func(t *testing.T) {
		tableBeyondFrame := headerFrame(nested(40, 'F'))
		binary.BigEndian.PutUint32(tableBeyondFrame[3:], 60)
		shortstrBeyondFrame := frameOf(2, []byte("\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xa0\x00\xff"))
		for i, stream := range [][]byte{
			{},
			[]byte("AMQP\x00\x00\x09\x01"), tableBeyondFrame, shortstrBeyondFrame,
			frameOf(2, nil), frameOf(2, make([]byte, 13)), frameOf(2, append(make([]byte, 12), 0xff, 0xff)),
			frameOf(2, append(make([]byte, 12), 0x20, 0x00)), frameOf(99, []byte("x")),
		} {
			for _, chunk := range []int{1, 2, 1000} {
				if got := guarded(t, stream, 131_072, chunk, 16, t.Output()); !bytes.Equal(got, stream) {
					t.Errorf("stream %d: got %q, want %q", i, got, stream)
				}
			}
		}
	})
	t.Run("CutStreamGivesWhatThereWas", func(t *testing.T) {
		stream := append(headerFrame(ordinary()), body...)
		for n := range stream {
			if got := guarded(t, stream[:n], 131_072, 50, 33, t.Output()); !bytes.Equal(got, stream[:n]) {
				t.Fatalf("cut after %d bytes: got %d", n, len(got))
			}
		}
	})
}

// What comes out never depends on the pieces in which it came, is never longer,
// and holds nothing more to take out.
func FuzzHeaderGuard(f *testing.F) {
	for _, c := range tables() {
		if len(c.table) < 10_000 {
			f.Add(append(headerFrame(c.table), frameOf(3, []byte("12345"))...), uint16(5), uint16(9))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, chunk, readSize uint16) {
		whole := guarded(t, stream, 131_072, max(1, len(stream)), 4096, io.Discard)
		pieces := guarded(t, stream, 131_072, int(chunk)+1, int(readSize)+1, io.Discard)
		if !bytes.Equal(whole, pieces) {
			t.Errorf("in pieces it is %x, at once %x", pieces, whole)
		}
		var log bytes.Buffer
		if again := guarded(t, whole, 131_072, max(1, len(whole)), 4096, &log); !bytes.Equal(again, whole) || log.Len() > 0 {
			t.Errorf("a second guard makes %x of %x", again, whole)
		}
	})
}

func BenchmarkHeaderGuard(b *testing.B) {
	message := bytes.Join([][]byte{frameOf(1, make([]byte, 40)), headerFrame(ordinary()), frameOf(3, make([]byte, 500))}, nil)
	stream := bytes.Repeat(message, 1000)
	for _, guard := range []bool{false, true} {
		b.Run(fmt.Sprintf("guard=%v", guard), func(b *testing.B) {
			b.SetBytes(int64(len(stream)))
			for b.Loop() {
				var conn net.Conn = &streamConn{stream: stream, chunk: 16_384}
				if guard {
					conn = newHeaderGuard(conn, slog.New(slog.DiscardHandler))
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 4096)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
