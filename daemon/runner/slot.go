package runner

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// slotBytes is the size of one slot: a block, which disks write whole.
const slotBytes = 4096

// slot is an index into an attempt's record.
type slot int

// The slots; doc.go says who writes each. Their order is the file's format.
const (
	slotStarted slot = iota
	slotRevoked
	slotStop
	slotStopping
	slotExit
	slotVerdict
	slotCount
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal returns v as JSON behind a line with its length and checksum:
//
//	gpuq1 <bytes> <crc32c>\n<json>\n
func seal(v any) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	head := fmt.Sprintf("gpuq1 %d %08x\n", body.Len(), crc32.Checksum(body.Bytes(), castagnoli))
	return append([]byte(head), body.Bytes()...), nil
}

// unseal reads what seal wrote; bytes after it are ignored. It reports false
// where data begins with a zero byte: never written.
func unseal(data []byte, v any) (bool, error) {
	if len(data) == 0 || data[0] == 0 {
		return false, nil
	}
	head, body, _ := bytes.Cut(data, []byte("\n"))
	var size int
	var sum uint32
	if n, err := fmt.Sscanf(string(head), "gpuq1 %d %08x", &size, &sum); n != 2 || err != nil {
		return false, fmt.Errorf("%w: no header", ErrDamaged)
	}
	if size < 0 || size > len(body) || crc32.Checksum(body[:size], castagnoli) != sum {
		return false, fmt.Errorf("%w: the checksum does not match", ErrDamaged)
	}
	if err := json.Unmarshal(body[:size], v); err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return true, nil
}

// sealSlot returns v sealed and filled up to one slot.
func sealSlot(v any) ([]byte, error) {
	data, err := seal(v)
	if err != nil {
		return nil, err
	}
	if len(data) > slotBytes {
		return nil, fmt.Errorf("%d bytes do not fit a slot of %d", len(data), slotBytes)
	}
	return append(data, make([]byte, slotBytes-len(data))...), nil
}

// writeSlot writes v into its slot of the record at path and syncs it. It takes
// no disk space.
func (s syncs) writeSlot(path string, which slot, v any) error {
	data, err := sealSlot(v)
	if err != nil {
		return err
	}
	fd, err := openRaw(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // synced
	n, err := retried(func() (int, error) { return unix.Pwrite(fd, data, int64(which)*slotBytes) })
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return s.timed(func() error { return datasync(fd) })
}

// readSlot reads a slot of the record at path. A slot that was torn by a crash
// reads as absent: its writer never saw the sync succeed and told nobody.
func readSlot(path string, s slot, v any) (bool, error) {
	fd, err := openRaw(path, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd) // read only
	data := make([]byte, slotBytes)
	n, err := retried(func() (int, error) { return unix.Pread(fd, data, int64(s)*slotBytes) })
	if err == nil && n < len(data) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return false, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	ok, err := unseal(data, v)
	if errors.Is(err, ErrDamaged) {
		return false, nil
	}
	return ok, err
}
